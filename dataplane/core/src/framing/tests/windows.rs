//! Flow control: who may send how much, and when credit returns.

use super::super::frame::{PREFACE, flag, kind, setting};
use super::super::*;
use super::support::*;

#[test]
fn padding_is_removed_and_credited() {
    let mut server = server_with(Settings {
        initial_window: 65_535,
        connection_window: 65_535,
        ..Settings::server()
    });
    feed(&mut server, &request(1)).expect("a request");
    let padded = [&[255][..], b"abc", &[0; 255]].concat();
    for _ in 0..1000 {
        let events = feed(&mut server, &data(1, flag::PADDED, &padded)).expect("within the windows");
        assert_eq!(
            events,
            [Seen::Data {
                stream: 1,
                bytes: b"abc".to_vec(),
                end: false
            }]
        );
        server.consumed(id(1), 3);
        server.take_outgoing(&mut Vec::new());
    }
    let all = [&[4][..], &[0; 4]].concat();
    assert_eq!(
        feed(&mut server, &data(1, flag::PADDED | flag::END_STREAM, &all)),
        Ok(vec![finished(1)])
    );
}

#[test]
fn more_than_a_streams_window_resets_it() {
    let mut server = server_with(Settings {
        initial_window: 10,
        ..Settings::server()
    });
    let bytes = [request(1), data(1, 0, b"0123456789"), data(1, 0, b"x")].concat();
    let events = feed(&mut server, &bytes).expect("a stream error at most");
    assert_eq!(
        events[2..],
        [Seen::Reset {
            stream: 1,
            code: ErrorCode::FLOW_CONTROL_ERROR
        }]
    );
}

#[test]
fn more_than_the_connections_window_ends_the_connection() {
    let mut server = server_with(Settings {
        connection_window: 65_535,
        ..Settings::server()
    });
    feed(&mut server, &[request(1), data(1, 0, &[0; 65_535])].concat()).expect("just the window");
    assert_eq!(
        code_of(feed(&mut server, &data(1, 0, b"x"))),
        ErrorCode::FLOW_CONTROL_ERROR
    );
}

#[test]
fn a_small_initial_window_holds_once_it_is_acknowledged() {
    let mut server = Connection::server(Settings {
        initial_window: 10,
        ..Settings::server()
    });
    let hello = [PREFACE.to_vec(), settings(&[]), request(1), data(1, 0, &[0; 1000])].concat();
    assert_eq!(
        feed(&mut server, &hello).map(|events| events.len()),
        Ok(3),
        "the protocol's window until then"
    );
    let late = [frame(kind::SETTINGS, flag::ACK, 0, &[]), data(1, 0, b"x")].concat();
    let reset = Seen::Reset {
        stream: 1,
        code: ErrorCode::FLOW_CONTROL_ERROR,
    };
    assert_eq!(feed(&mut server, &late), Ok(vec![reset]));
}

#[test]
fn an_empty_frame_needs_no_room_in_a_negative_window() {
    let mut server = Connection::server(Settings {
        initial_window: 1,
        ..Settings::server()
    });
    let early = [
        PREFACE.to_vec(),
        settings(&[]),
        request(1),
        data(1, 0, b"more than one byte"),
    ]
    .concat();
    let late = [frame(kind::SETTINGS, flag::ACK, 0, &[]), data(1, flag::END_STREAM, b"")].concat();
    feed(&mut server, &early).expect("the protocol's window");
    assert_eq!(feed(&mut server, &late), Ok(vec![finished(1)]));
}

#[test]
fn lowering_the_initial_window_makes_windows_negative() {
    let (mut client, stream) = tunnel();
    assert!(client.data_head(stream, 1000, false).is_some());
    feed(&mut client, &settings(&[(setting::INITIAL_WINDOW_SIZE, 10)])).expect("settings");
    assert_eq!(client.sendable(stream), 0);
    assert_eq!(client.data_head(stream, 1, false), None);
    assert_eq!(feed(&mut client, &window_update(1, 990)), Ok(vec![]), "still shut");
    let opened = other("WindowOpened { stream: Some(StreamId(1)) }");
    assert_eq!(feed(&mut client, &window_update(1, 5)), Ok(vec![opened]));
    assert_eq!(client.sendable(stream), 5);
    let events = feed(&mut client, &settings(&[(setting::INITIAL_WINDOW_SIZE, 5)]));
    assert_eq!(events, Ok(vec![other("SettingsReceived")]));
    let events = feed(&mut client, &settings(&[(setting::INITIAL_WINDOW_SIZE, 6)]));
    assert_eq!(
        events,
        Ok(vec![other("SettingsReceived"), other("WindowOpened { stream: None }")])
    );
}

#[test]
fn the_connection_window_bounds_all_streams() {
    let (mut client, first) = tunnel();
    let second = client.open(&head()).expect("room for a stream");
    feed(&mut client, &settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 20)])).expect("settings");
    for _ in 0..3 {
        assert!(client.data_head(first, 16_384, false).is_some());
    }
    assert_eq!(client.sendable(second), 65_535 - 3 * 16_384);
    assert!(client.data_head(second, 65_535 - 3 * 16_384, false).is_some());
    assert_eq!((client.sendable(first), client.sendable(second)), (0, 0));
    assert_eq!(
        feed(&mut client, &window_update(0, 7)),
        Ok(vec![other("WindowOpened { stream: None }")])
    );
    assert_eq!((client.sendable(first), client.sendable(second)), (7, 7));
}

#[test]
fn data_of_closed_streams_is_credited() {
    let mut server = server_with(Settings {
        connection_window: 65_535,
        ..Settings::server()
    });
    feed(&mut server, &[request(1), data(1, 0, &[0; 1000])].concat()).expect("data");
    server.reset(id(1), ErrorCode::CANCEL);
    for _ in 0..100 {
        assert_eq!(feed(&mut server, &data(1, 0, &[0; 16_000])), Ok(vec![]));
    }
    let credited: u32 = sent(&mut server)
        .iter()
        .filter(|frame| frame.0 == kind::WINDOW_UPDATE && frame.2 == 0)
        .map(|frame| u32::from_be_bytes(frame.3[..].try_into().expect("four bytes")))
        .sum();
    assert!(credited > 1_600_000 - 65_535 / 4, "{credited}");
}

#[test]
fn a_reset_inside_a_data_frame_drops_the_rest() {
    let mut server = server();
    let bytes = [request(1), data(1, 0, b"0123456789"), request(3)].concat();
    let middle = request(1).len() + 9 + 4;
    assert_eq!(feed(&mut server, &bytes[..middle]).map(|events| events.len()), Ok(2));
    server.reset(id(1), ErrorCode::CANCEL);
    let events = feed(&mut server, &bytes[middle..]);
    assert_eq!(
        events,
        Ok(vec![Seen::Request {
            stream: 3,
            problem: None
        }])
    );
}
