//! What must hold for any bytes, however they are cut, and for any schedule of two ends.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::frame::{PREFACE, flag, kind};
use super::super::limits::{MAX_CONTINUATIONS, MAX_UNSENT_BYTES};
use super::super::*;
use super::support::*;

/// Frames that a peer could send, legal and not, on a few streams.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![8 => Just(1u32), 6 => Just(3), 4 => Just(5), 2 => Just(7), 1 => 0..12u32];
    let payload = prop::collection::vec(any::<u8>(), 0..60);
    let data_flags = prop_oneof![8 => Just(0), 2 => Just(flag::END_STREAM)];
    let fields = prop_oneof![
        Just(vec![
            (":method", "CONNECT"),
            (":authority", "192.0.2.1:80"),
            ("baggage", "a=b")
        ]),
        Just(vec![(":status", "200"), ("baggage", "a=b")]),
        Just(vec![(":status", "100")]),
        Just(vec![("trailer", "x")]),
    ];
    let value = prop_oneof![Just(0u32), 0..100_000u32, any::<u32>()];
    prop_oneof![
        8 => (stream.clone(), data_flags.clone(), payload.clone())
            .prop_map(|(stream, flags, payload)| data(stream, flags, &payload)),
        3 => (stream.clone(), data_flags.clone(), payload.clone(), 0..20u8).prop_map(|(stream, flags, payload, padding)| {
            let padded = [&[padding][..], &payload, &vec![0; usize::from(padding)]].concat();
            data(stream, flags | flag::PADDED, &padded)
        }),
        4 => (stream.clone(), data_flags.clone(), fields.clone())
            .prop_map(|(stream, flags, fields)| headers(stream, flags, &fields)),
        3 => (stream.clone(), data_flags, fields, 1..20usize).prop_map(|(stream, flags, fields, piece)| {
            let block = block(&fields);
            let (first, rest) = block.split_at(piece.min(block.len()));
            let last = frame(kind::CONTINUATION, flag::END_HEADERS, stream, rest);
            [frame(kind::HEADERS, flags, stream, first), last].concat()
        }),
        2 => (stream.clone(), value.clone()).prop_map(|(stream, value)| window_update(stream, value)),
        1 => (stream.clone(), value.clone()).prop_map(|(stream, value)| reset(stream, ErrorCode(value))),
        2 => (0..8u16, value.clone()).prop_map(|(id, value)| settings(&[(id, value)])),
        1 => any::<[u8; 8]>().prop_map(|payload| frame(kind::PING, 0, 0, &payload)),
        1 => (any::<u8>(), any::<u8>(), stream, payload)
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload)),
        1 => value.prop_map(|last| frame(kind::GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())),
    ]
}

fn dialogue() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any_frame(), 0..40).prop_map(|frames| frames.concat())
}

/// Either end, ready for a dialogue on streams 1, 3 and 5.
fn either(is_server: bool) -> Connection {
    if is_server {
        return Connection::server(Settings::server());
    }
    let mut client = Connection::client(Settings::client());
    for _ in 0..3 {
        client.open(&head()).expect("room for a stream");
    }
    client
}

fn hello(is_server: bool) -> Vec<u8> {
    [if is_server { &PREFACE[..] } else { &[] }, &settings(&[])].concat()
}

fn cut(bytes: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn slicing_changes_nothing(
        is_server in any::<bool>(),
        frames in dialogue(),
        sizes in prop::collection::vec(1..40usize, 1..10),
    ) {
        let bytes = [hello(is_server), frames].concat();
        let (mut whole, mut sliced) = (either(is_server), either(is_server));
        let (mut whole_seen, mut sliced_seen) = (Vec::new(), Vec::new());
        let whole_result = feed_into(&mut whole, &bytes, &mut whole_seen);
        let sliced_result =
            cut(&bytes, &sizes).iter().try_for_each(|piece| feed_into(&mut sliced, piece, &mut sliced_seen));
        prop_assert_eq!(whole_seen, sliced_seen);
        prop_assert_eq!(whole_result, sliced_result);
        prop_assert_eq!(whole.outgoing(), sliced.outgoing());
    }

    #[test]
    fn mutated_bytes_neither_panic_nor_grow(
        is_server in any::<bool>(),
        frames in dialogue(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        sizes in prop::collection::vec(1..200usize, 1..10),
        consumes in any::<bool>(),
    ) {
        let mut bytes = frames;
        for (index, byte) in flips {
            if !bytes.is_empty() {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
        }
        let mut connection = either(is_server);
        feed(&mut connection, &hello(is_server)).expect("a hello");
        for piece in cut(&bytes, &sizes) {
            let mut input = piece.as_slice();
            while let Ok(Some(event)) = connection.receive(&mut input) {
                match event {
                    Event::Data { stream, bytes, .. } if consumes => connection.consumed(stream, bytes.len()),
                    Event::Request { stream, .. } => {
                        let _ = connection.respond(stream, 200, &[], false);
                        connection.finish(stream);
                    }
                    _ => {}
                }
            }
            assert_bounded(&connection);
        }
    }

    #[test]
    fn random_bytes_neither_panic_nor_grow(is_server in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut connection = either(is_server);
        feed(&mut connection, &hello(is_server)).expect("a hello");
        let mut input = bytes.as_slice();
        while let Ok(Some(_)) = connection.receive(&mut input) {}
        assert_bounded(&connection);
    }
}

fn assert_bounded(connection: &Connection) {
    let list = connection.settings.max_header_list as usize + 261;
    assert!(connection.partial.capacity() <= 2 * list);
    assert!(connection.block.as_ref().is_none_or(|block| block.bytes.len() <= list));
    assert!(
        connection
            .block
            .as_ref()
            .is_none_or(|block| block.continuations <= MAX_CONTINUATIONS)
    );
    assert!(connection.outgoing().len() <= MAX_UNSENT_BYTES + 4096);
    assert!(connection.streams.len() <= 400);
}

/// One step of a schedule; numbers choose streams and amounts modulo what there is.
#[derive(Clone, Debug)]
enum Move {
    Open,
    Respond(usize),
    Send {
        by_client: bool,
        stream: usize,
        length: usize,
        end: bool,
    },
    /// Carry bytes over the wire and let the receiving application take `consumed` of what it was given.
    Carry {
        to_client: bool,
        length: usize,
        consumed: usize,
    },
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        1 => Just(Move::Open),
        2 => any::<usize>().prop_map(Move::Respond),
        6 => (any::<bool>(), any::<usize>(), 0..30_000usize, prop::bool::weighted(0.1))
            .prop_map(|(by_client, stream, length, end)| Move::Send { by_client, stream, length, end }),
        8 => (any::<bool>(), 1..40_000usize, 0..40_000usize)
            .prop_map(|(to_client, length, consumed)| Move::Carry { to_client, length, consumed }),
    ]
}

/// One end with its wire and what its applications have seen.
struct End {
    connection: Connection,
    /// Bytes on their way to the other end.
    wire: Vec<u8>,
    /// How many bytes were sent on each stream, and whether that was all.
    sent: HashMap<StreamId, (usize, bool)>,
    received: HashMap<StreamId, (usize, bool)>,
    held: HashMap<StreamId, usize>,
    waiting: Vec<StreamId>,
}

impl End {
    fn new(connection: Connection) -> Self {
        let nothing = HashMap::new;
        Self {
            connection,
            wire: Vec::new(),
            sent: nothing(),
            received: nothing(),
            held: HashMap::new(),
            waiting: Vec::new(),
        }
    }

    fn send(&mut self, stream: StreamId, length: usize, end: bool) {
        let (before, is_over) = self.sent.get(&stream).copied().unwrap_or_default();
        let length = length.min(self.connection.sendable(stream));
        if is_over || (length == 0 && !end) {
            return;
        }
        self.connection.take_outgoing(&mut self.wire);
        let Some(head) = self.connection.data_head(stream, length, end) else {
            return;
        };
        self.wire.extend(head);
        self.wire
            .extend((before..before + length).map(|position| position as u8));
        self.sent.insert(stream, (before + length, end));
    }

    fn take(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while let Some(event) = self.connection.receive(&mut input).expect("both ends keep the rules") {
            match event {
                Event::Request { stream, request, .. } => {
                    request.expect("a sound head");
                    self.waiting.push(stream);
                }
                Event::Data { stream, bytes, end } => {
                    let received = self.received.entry(stream).or_default();
                    assert!(!received.1, "bytes after the end");
                    for (offset, byte) in bytes.iter().enumerate() {
                        assert_eq!(*byte, (received.0 + offset) as u8, "bytes in order");
                    }
                    *received = (received.0 + bytes.len(), end);
                    *self.held.entry(stream).or_default() += bytes.len();
                }
                Event::Finished { stream } => self.received.entry(stream).or_default().1 = true,
                Event::Reset { stream, code } => panic!("{stream}: {code}"),
                _ => {}
            }
        }
    }

    fn consume(&mut self, mut count: usize) {
        for (stream, held) in &mut self.held {
            let part = count.min(*held);
            *held -= part;
            count -= part;
            self.connection.consumed(*stream, part);
        }
    }
}

/// Move up to `length` bytes from one end to the other; true if there were any.
fn carry(from: &mut End, to: &mut End, length: usize, consumed: usize) -> bool {
    from.connection.take_outgoing(&mut from.wire);
    let bytes: Vec<u8> = from.wire.drain(..length.min(from.wire.len())).collect();
    to.take(&bytes);
    to.consume(consumed);
    !bytes.is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn two_ends_carry_every_byte_in_order(
        moves in prop::collection::vec(any_move(), 1..200),
        initial_window in prop_oneof![1..100u32, 1000..200_000u32],
        connection_window in 65_535..300_000u32,
    ) {
        let small = |settings| Settings { initial_window, connection_window, max_frame_size: 20_000, ..settings };
        let mut client = End::new(Connection::client(small(Settings::client())));
        let mut server = End::new(Connection::server(small(Settings::server())));
        let mut streams = Vec::new();
        for step in moves {
            match step {
                Move::Open => streams.extend(client.connection.open(&head()).ok()),
                Move::Respond(index) if !server.waiting.is_empty() => {
                    let stream = server.waiting.swap_remove(index % server.waiting.len());
                    server.connection.respond(stream, 200, &[], false).expect("a waiting stream");
                }
                Move::Respond(_) => {}
                Move::Send { by_client, stream, length, end } if !streams.is_empty() => {
                    let stream = streams[stream % streams.len()];
                    if by_client { &mut client } else { &mut server }.send(stream, length, end);
                }
                Move::Send { .. } => {}
                Move::Carry { to_client: true, length, consumed } => {
                    carry(&mut server, &mut client, length, consumed);
                }
                Move::Carry { to_client: false, length, consumed } => {
                    carry(&mut client, &mut server, length, consumed);
                }
            }
        }
        finish(&mut client, &mut server, &streams);
        prop_assert_eq!(&client.sent, &server.received);
        prop_assert_eq!(&server.sent, &client.received);
        prop_assert_eq!((client.connection.streams.len(), server.connection.streams.len()), (0, 0));
    }
}

/// Answer, send a last piece on every stream, end them all and let everything arrive.
fn finish(client: &mut End, server: &mut End, streams: &[StreamId]) {
    while carry(client, server, usize::MAX, usize::MAX) | carry(server, client, usize::MAX, usize::MAX) {}
    for stream in server.waiting.drain(..) {
        server
            .connection
            .respond(stream, 200, &[], false)
            .expect("a waiting stream");
    }
    for &stream in streams {
        for end in [&mut *client, &mut *server] {
            assert!(
                end.sent.get(&stream).is_some_and(|sent| sent.1) || end.connection.sendable(stream) > 0,
                "no deadlock"
            );
            end.send(stream, 10, true);
        }
        while carry(client, server, usize::MAX, usize::MAX) | carry(server, client, usize::MAX, usize::MAX) {}
    }
}
