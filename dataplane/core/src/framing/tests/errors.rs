//! Broken rules of RFC 9113, and what they end: the connection or one stream.

use super::super::frame::{PREFACE, flag, kind, setting};
use super::super::*;
use super::support::*;

#[test]
fn connection_errors_of_a_client() {
    let long = vec![0; (1 << 20) + 1];
    let open = request(1);
    let after_open = |bytes: Vec<u8>| [open.clone(), bytes].concat();
    let cases = [
        ("frame too long", data(1, 0, &long), ErrorCode::FRAME_SIZE_ERROR),
        ("data on stream 0", data(0, 0, b"x"), ErrorCode::PROTOCOL_ERROR),
        ("data on an idle stream", data(1, 0, b"x"), ErrorCode::PROTOCOL_ERROR),
        (
            "data on an even stream",
            after_open(data(2, 0, b"x")),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "headers on stream 0",
            headers(0, 0, &CONNECT),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "headers on an even stream",
            headers(2, 0, &CONNECT),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "reset of an idle stream",
            reset(1, ErrorCode::CANCEL),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "reset of stream 0",
            reset(0, ErrorCode::CANCEL),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "reset of three bytes",
            after_open(frame(kind::RST_STREAM, 0, 1, b"abc")),
            ErrorCode::FRAME_SIZE_ERROR,
        ),
        (
            "window of an idle stream",
            window_update(1, 1),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "connection window by nothing",
            window_update(0, 0),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "connection window too large",
            window_update(0, (1 << 31) - 1),
            ErrorCode::FLOW_CONTROL_ERROR,
        ),
        (
            "window update of five bytes",
            frame(kind::WINDOW_UPDATE, 0, 0, b"abcde"),
            ErrorCode::FRAME_SIZE_ERROR,
        ),
        (
            "settings on a stream",
            frame(kind::SETTINGS, 0, 1, &[]),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "settings of five bytes",
            frame(kind::SETTINGS, 0, 0, b"abcde"),
            ErrorCode::FRAME_SIZE_ERROR,
        ),
        (
            "settings ack with payload",
            frame(kind::SETTINGS, flag::ACK, 0, b"abcdef"),
            ErrorCode::FRAME_SIZE_ERROR,
        ),
        (
            "push neither on nor off",
            settings(&[(setting::ENABLE_PUSH, 2)]),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "frame size too small",
            settings(&[(setting::MAX_FRAME_SIZE, 16_383)]),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "frame size too large",
            settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)]),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "window too large",
            settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]),
            ErrorCode::FLOW_CONTROL_ERROR,
        ),
        (
            "initial window lifts a stream's window too high",
            after_open(
                [
                    window_update(1, 1 << 30),
                    settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 30)]),
                ]
                .concat(),
            ),
            ErrorCode::FLOW_CONTROL_ERROR,
        ),
        (
            "ping of seven bytes",
            frame(kind::PING, 0, 0, b"1234567"),
            ErrorCode::FRAME_SIZE_ERROR,
        ),
        (
            "ping on a stream",
            frame(kind::PING, 0, 1, b"12345678"),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "goaway of seven bytes",
            frame(kind::GOAWAY, 0, 0, b"1234567"),
            ErrorCode::FRAME_SIZE_ERROR,
        ),
        (
            "goaway on a stream",
            frame(kind::GOAWAY, 0, 1, b"12345678"),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "priority of four bytes",
            frame(kind::PRIORITY, 0, 1, b"1234"),
            ErrorCode::FRAME_SIZE_ERROR,
        ),
        (
            "priority on stream 0",
            frame(kind::PRIORITY, 0, 0, b"12345"),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "push",
            frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, b"1234"),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "continuation of nothing",
            frame(kind::CONTINUATION, 0, 1, b""),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "ping inside a header block",
            [frame(kind::HEADERS, 0, 1, b""), frame(kind::PING, 0, 0, b"12345678")].concat(),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "continuation of another stream",
            [frame(kind::HEADERS, 0, 1, b""), frame(kind::CONTINUATION, 0, 3, b"")].concat(),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "bad compression",
            frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x80"),
            ErrorCode::COMPRESSION_ERROR,
        ),
        (
            "headers shorter than their padding",
            frame(kind::HEADERS, flag::END_HEADERS | flag::PADDED, 1, b"\x02\x88"),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "headers shorter than their priority",
            frame(kind::HEADERS, flag::END_HEADERS | flag::PRIORITY, 1, b"1234"),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "padding longer than data",
            after_open(data(1, flag::PADDED, b"\x02x")),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "padded data of no length",
            after_open(data(1, flag::PADDED, b"")),
            ErrorCode::FRAME_SIZE_ERROR,
        ),
    ];
    for (name, bytes, code) in cases {
        let mut server = server();
        let error = feed(&mut server, &bytes).expect_err(name);
        assert_eq!(error.code, code, "{name}: {error}");
        let goaway = sent(&mut server).pop().expect(name);
        assert_eq!(
            (goaway.0, &goaway.3[4..]),
            (kind::GOAWAY, &code.0.to_be_bytes()[..]),
            "{name}"
        );
        assert_eq!(feed(&mut server, b"x"), Err(error), "{name}: stays failed");
        assert!(server.is_closed(), "{name}");
    }
}

#[test]
fn the_connection_begins_with_the_preface_and_settings() {
    let ping = frame(kind::PING, 0, 0, b"12345678");
    let ack = frame(kind::SETTINGS, flag::ACK, 0, &[]);
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        [PREFACE.to_vec(), ping].concat(),
        [PREFACE.to_vec(), ack].concat(),
    ] {
        let mut server = Connection::server(Settings::server());
        assert_eq!(code_of(feed(&mut server, &bytes)), ErrorCode::PROTOCOL_ERROR);
    }
    let mut client = Connection::client(Settings::client());
    assert_eq!(
        code_of(feed(&mut client, b"HTTP/1.1 400 Bad Request\r\n")),
        ErrorCode::FRAME_SIZE_ERROR
    );
}

#[test]
fn connection_errors_of_a_server() {
    let cases = [
        ("headers on an idle stream", headers(3, 0, &[(":status", "200")])),
        ("headers on an even stream", headers(2, 0, &[(":status", "200")])),
        ("push allowed", settings(&[(setting::ENABLE_PUSH, 1)])),
        ("data on an idle stream", data(3, 0, b"x")),
    ];
    for (name, bytes) in cases {
        let (mut client, _) = tunnel();
        assert_eq!(code_of(feed(&mut client, &bytes)), ErrorCode::PROTOCOL_ERROR, "{name}");
    }
}

#[test]
fn stream_errors_reset_the_stream_only() {
    let open = request(1);
    let done = headers(1, flag::END_STREAM, &CONNECT);
    let cases = [
        (
            "data after the end",
            [done.clone(), data(1, 0, b"x")].concat(),
            ErrorCode::STREAM_CLOSED,
        ),
        (
            "trailers after the end",
            [done, headers(1, flag::END_STREAM, &[])].concat(),
            ErrorCode::STREAM_CLOSED,
        ),
        (
            "trailers that end nothing",
            [open.clone(), headers(1, 0, &[])].concat(),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "window by nothing",
            [open.clone(), window_update(1, 0)].concat(),
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            "window too large",
            [open, window_update(1, (1 << 31) - 1)].concat(),
            ErrorCode::FLOW_CONTROL_ERROR,
        ),
    ];
    for (name, bytes, code) in cases {
        let mut server = server();
        let events = feed(&mut server, &bytes).expect(name);
        assert_eq!(events[1..], [Seen::Reset { stream: 1, code }], "{name}");
        assert_eq!(
            sent(&mut server),
            [(kind::RST_STREAM, 0, 1, code.0.to_be_bytes().to_vec())],
            "{name}"
        );
        assert_eq!(server.active_streams(), 0, "{name}");
        assert_eq!(
            feed(&mut server, &request(3)).map(|events| events.len()),
            Ok(1),
            "{name}: others go on"
        );
    }
}

#[test]
fn unknown_frames_priorities_and_unknown_settings_are_ignored() {
    let mut server = server();
    let priority = [&[0, 0, 0, 0, 1][..], &block(&CONNECT)].concat();
    let padded = [&[3][..], &priority, &[0; 3]].concat();
    let bytes = [
        frame(0x42, 0xff, 7, b"anything"),
        frame(kind::PRIORITY, 0, 9, b"12345"),
        settings(&[(0x4242, 7)]),
        frame(
            kind::HEADERS,
            flag::END_HEADERS | flag::PRIORITY | flag::PADDED,
            1,
            &padded,
        ),
    ];
    let events = feed(&mut server, &bytes.concat());
    assert_eq!(
        events,
        Ok(vec![
            other("SettingsReceived"),
            Seen::Request {
                stream: 1,
                problem: None
            }
        ])
    );
}
