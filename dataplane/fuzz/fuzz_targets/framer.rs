//! Any bytes to either end of an HTTP/2 connection, whole and in pieces: the same events, bounded answers, no panic.
#![no_main]

use ambit_core::framing::{ConnectHead, Connection, Settings};
use libfuzzer_sys::fuzz_target;

/// A peer that does not read may leave 128 KiB of answers, and one more (`limits::MAX_UNSENT_BYTES`).
const MOST_UNSENT: usize = (128 << 10) + 1024;

fn end(is_server: bool) -> Connection {
    if is_server {
        return Connection::server(Settings::server());
    }
    let mut client = Connection::client(Settings::client());
    let head = ConnectHead {
        authority: "192.0.2.1:80",
        ..ConnectHead::default()
    };
    for _ in 0..3 {
        client.open(&head).expect("a new connection has room");
    }
    client
}

/// What happened, with the bytes of neighbouring DATA events joined: where they are cut is not the peer's doing.
fn run<'a>(is_server: bool, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, Vec<u8>) {
    let (mut connection, mut events, mut data) = (end(is_server), Vec::new(), Vec::new());
    for piece in pieces {
        let mut input = piece;
        loop {
            match connection.receive(&mut input) {
                Ok(Some(event)) => match event {
                    ambit_core::framing::Event::Data { stream, bytes, end } => {
                        data.extend_from_slice(bytes);
                        connection.consumed(stream, bytes.len());
                        if end {
                            events.push(format!("end {stream:?}"));
                        }
                    }
                    other => events.push(format!("{other:?}")),
                },
                Ok(None) => break,
                Err(error) => {
                    events.push(error.to_string());
                    assert!(connection.outgoing().len() <= MOST_UNSENT);
                    return (events, data);
                }
            }
        }
        assert!(connection.outgoing().len() <= MOST_UNSENT);
    }
    (events, data)
}

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (is_server, size, bytes) = input;
    let whole = run(is_server, std::iter::once(bytes));
    let cut = run(is_server, bytes.chunks(usize::from(size).max(1)));
    assert_eq!(whole, cut);
});
