//! What a hostile peer may repeat, and where it is cut.

use super::super::frame::{flag, kind};
use super::super::limits::{MAX_CONTINUATIONS, MAX_UNSENT_BYTES};
use super::super::*;
use super::support::*;

/// Repeat until the connection fails; how often that took. The answers are read, if `is_read`.
fn repeat(
    server: &mut Connection,
    limit: usize,
    is_read: bool,
    mut bytes: impl FnMut(u32) -> Vec<u8>,
) -> Option<usize> {
    for round in 0..limit {
        match feed(server, &bytes(round as u32)) {
            Ok(_) => assert!(server.outgoing().len() < MAX_UNSENT_BYTES + 1000),
            Err(error) => {
                assert_eq!(error.code, ErrorCode::ENHANCE_YOUR_CALM, "{error}");
                return Some(round);
            }
        }
        if is_read {
            server.take_outgoing(&mut Vec::new());
        }
    }
    None
}

#[test]
fn frames_that_carry_nothing_are_limited() {
    let cases: [(&str, Vec<u8>); 9] = [
        ("ping", frame(kind::PING, 0, 0, b"12345678")),
        ("ping ack", frame(kind::PING, flag::ACK, 0, b"12345678")),
        ("settings", settings(&[])),
        ("settings ack", frame(kind::SETTINGS, flag::ACK, 0, &[])),
        ("window update", window_update(0, 1)),
        ("priority", frame(kind::PRIORITY, 0, 1, b"12345")),
        ("empty data", data(1, 0, b"")),
        ("padding only", data(1, flag::PADDED, b"\0")),
        ("unknown", frame(0x42, 0, 0, b"")),
    ];
    for (name, bytes) in cases {
        let mut server = server();
        feed(&mut server, &request(1)).expect("a request");
        let rounds = repeat(&mut server, 20_000, true, |_| bytes.clone());
        assert!(
            rounds.is_some_and(|rounds| (9_000..=10_000).contains(&rounds)),
            "{name}: {rounds:?}"
        );
    }
}

#[test]
fn settings_cost_by_their_entries() {
    let many = settings(&[(4, 1000); 100]);
    assert!(repeat(&mut server(), 200, true, |_| many.clone()).is_some());
    assert_eq!(
        code_of(feed(&mut server(), &settings(&[(4, 1000); 101]))),
        ErrorCode::ENHANCE_YOUR_CALM
    );
}

#[test]
fn answers_that_are_not_read_do_not_pile_up() {
    let ping = frame(kind::PING, 0, 0, b"12345678");
    let rounds = repeat(&mut server(), 10_000, false, |_| ping.clone());
    assert!(
        rounds.is_some_and(|rounds| rounds <= MAX_UNSENT_BYTES / 17 + 1),
        "{rounds:?}"
    );
}

#[test]
fn an_idle_connection_that_pings_lives_for_ever() {
    let mut server = server();
    let ping = frame(kind::PING, 0, 0, b"12345678");
    for _ in 0..50_000 {
        feed(&mut server, &ping).expect("one ping an interval");
        server.ping([0; 8]);
        server.take_outgoing(&mut Vec::new());
    }
}

#[test]
fn useful_bytes_pay_for_window_updates() {
    let (mut client, stream) = tunnel();
    for _ in 0..100_000 {
        assert!(client.data_head(stream, 1, false).is_some());
        let updates = [window_update(stream.get(), 1), window_update(0, 1)].concat();
        feed(&mut client, &updates).expect("a receiver may update both windows for every frame");
    }
}

#[test]
fn rapid_resets_are_limited() {
    let rapid = |round: u32| [request(2 * round + 1), reset(2 * round + 1, ErrorCode::CANCEL)].concat();
    assert_eq!(
        repeat(&mut server(), 2000, true, rapid),
        Some(999),
        "hello cost a little"
    );
}

#[test]
fn completed_tunnels_are_not_limited() {
    let mut server = server();
    for round in 0..5000 {
        let stream = 2 * round + 1;
        feed(&mut server, &request(stream)).expect("a request");
        server.respond(StreamId(stream), 200, &[], false).expect("open");
        server.finish(StreamId(stream));
        feed(&mut server, &data(stream, flag::END_STREAM, b"")).expect("the end");
        server.take_outgoing(&mut Vec::new());
    }
}

#[test]
fn refused_and_malformed_streams_are_limited() {
    let mut full = server_with(Settings {
        max_concurrent_streams: Some(0),
        ..Settings::server()
    });
    assert_eq!(repeat(&mut full, 2000, true, |round| request(2 * round + 1)), Some(999));
    let mut server = server();
    let rounds = repeat(&mut server, 2000, true, |round| {
        headers(2 * round + 1, 0, &[(":method", "GET")])
    });
    assert_eq!(rounds, Some(999));
}

#[test]
fn informational_responses_are_limited() {
    let mut client = client();
    client.open(&head()).expect("room for a stream");
    let rounds = repeat(&mut client, 20_000, true, |_| headers(1, 0, &[(":status", "100")]));
    assert!(rounds.is_some());
}

#[test]
fn header_blocks_are_cut_at_the_list_bound() {
    let mut server = server();
    let long = frame(kind::HEADERS, 0, 1, &vec![0; 65_536 + 262]);
    assert_eq!(
        code_of(feed(&mut server, &long[..9])),
        ErrorCode::ENHANCE_YOUR_CALM,
        "by its head alone"
    );
    let mut server = self::server();
    feed(&mut server, &frame(kind::HEADERS, 0, 1, &[0; 16_384])).expect("a fragment");
    let piece = frame(kind::CONTINUATION, 0, 1, &[0; 16_384]);
    assert_eq!(repeat(&mut server, 20, true, |_| piece.clone()), Some(3));
}

#[test]
fn empty_continuations_are_limited() {
    let mut server = server();
    feed(&mut server, &frame(kind::HEADERS, 0, 1, b"")).expect("a fragment");
    let rounds = repeat(&mut server, 100, true, |_| frame(kind::CONTINUATION, 0, 1, b""));
    assert_eq!(rounds, Some(MAX_CONTINUATIONS as usize));
}

#[test]
fn a_compressed_bomb_counts_decoded() {
    // One entry of nearly 4 KiB, then named 1,000 times in 1,000 bytes.
    let value = "x".repeat(4000);
    let mut bomb = block(&CONNECT)[1..].to_vec();
    bomb.extend([0x40, 1, b'a', 0x7f, 0xa1, 0x1e]);
    bomb.extend(value.as_bytes());
    bomb.extend([0xbe; 1000]);
    let mut server = server();
    let events = feed(&mut server, &frame(kind::HEADERS, flag::END_HEADERS, 1, &bomb));
    assert_eq!(
        events,
        Ok(vec![Seen::Request {
            stream: 1,
            problem: Some(MalformedRequest::HeadTooLarge)
        }])
    );
}

#[test]
fn ended_streams_with_held_bytes_do_not_pile_up() {
    let mut server = server();
    for round in 0..500 {
        let stream = StreamId(2 * round + 1);
        feed(
            &mut server,
            &[request(stream.get()), data(stream.get(), flag::END_STREAM, b"x")].concat(),
        )
        .expect("data");
        // Refused ones are gone already.
        let _ = server.respond(stream, 200, &[], false);
        server.finish(stream);
        server.take_outgoing(&mut Vec::new());
        assert!(server.streams.len() <= 400);
    }
    assert_eq!((server.active_streams(), server.streams.len()), (0, 400));
}
