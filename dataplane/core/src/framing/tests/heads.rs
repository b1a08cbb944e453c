//! Heads in both directions: what is said at the start, what a request tells, what answers it.

use super::super::frame::{PREFACE, flag, kind, setting};
use super::super::*;
use super::support::*;

#[test]
fn a_client_says_hello_with_its_settings() {
    let mut client = Connection::client(Settings::client());
    assert!(client.outgoing().starts_with(PREFACE));
    client.consume_outgoing(PREFACE.len());
    let frames = sent(&mut client);
    let entries = [(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, 4 << 20)];
    let entries = [
        &entries[..],
        &[
            (setting::MAX_FRAME_SIZE, 1 << 20),
            (setting::MAX_HEADER_LIST_SIZE, 16_384),
        ],
    ];
    assert_eq!(
        frames[0],
        (kind::SETTINGS, 0, 0, settings(&entries.concat())[9..].to_vec())
    );
    let increment: u32 = (16 << 20) - 65_535;
    assert_eq!(frames[1], (kind::WINDOW_UPDATE, 0, 0, increment.to_be_bytes().to_vec()));
    assert_eq!(frames.len(), 2);
}

#[test]
fn a_server_announces_its_stream_limit() {
    let entries = [
        (setting::MAX_CONCURRENT_STREAMS, 200),
        (setting::INITIAL_WINDOW_SIZE, 4 << 20),
        (setting::MAX_FRAME_SIZE, 1 << 20),
        (setting::MAX_HEADER_LIST_SIZE, 65_536),
    ];
    let frames = sent(&mut Connection::server(Settings::server()));
    assert_eq!(frames[0], (kind::SETTINGS, 0, 0, settings(&entries)[9..].to_vec()));
}

#[test]
fn a_tunnel_opens_carries_bytes_and_ends() {
    let mut server = server();
    assert_eq!(
        feed(&mut server, &request(1)),
        Ok(vec![Seen::Request {
            stream: 1,
            problem: None
        }])
    );
    assert_eq!(server.sendable(id(1)), 0, "no data before the response");
    assert_eq!(server.respond(id(1), 200, &[("baggage", "")], false), Ok(()));
    assert_eq!(
        server.respond(id(1), 200, &[], false),
        Err(StreamGone),
        "one response only"
    );
    let events = feed(&mut server, &data(1, flag::END_STREAM, b"hello"));
    assert_eq!(
        events,
        Ok(vec![Seen::Data {
            stream: 1,
            bytes: b"hello".to_vec(),
            end: true
        }])
    );
    assert_eq!(server.sendable(id(1)), 16_384);
    let head = server.data_head(id(1), 3, false);
    assert_eq!(head, Some([0, 0, 3, kind::DATA, 0, 0, 0, 0, 1]));
    server.finish(id(1));
    assert_eq!(server.active_streams(), 0);
    assert!(server.has_stream(id(1)), "five bytes are held");
    server.consumed(id(1), 5);
    assert!(!server.has_stream(id(1)));
    assert_eq!(
        sent(&mut server).last(),
        Some(&(kind::DATA, flag::END_STREAM, 1, vec![]))
    );
}

#[test]
fn a_request_tells_what_hbone_needs() {
    let fields = [
        (":method", "CONNECT"),
        (":authority", "[2001:db8::1]:80"),
        ("baggage", "a=b"),
        ("user-agent", "other"),
        ("baggage", "c=d"),
        ("forwarded", "for=x"),
        ("traceparent", "t"),
        ("x-forwarded-network", "n"),
    ];
    let bytes = headers(1, flag::END_STREAM, &fields);
    let mut server = server();
    let event = server.receive(&mut bytes.as_slice());
    let request = Ok(RequestHead {
        authority: "[2001:db8::1]:80".into(),
        baggage: Some("a=b,c=d".into()),
        forwarded: Some("for=x".into()),
        traceparent: Some("t".into()),
        x_forwarded_network: Some("n".into()),
    });
    assert_eq!(
        event,
        Ok(Some(Event::Request {
            stream: id(1),
            request,
            end: true
        }))
    );
}

/// A name, a header list, what is wrong with it, and the status for it.
type BadRequest<'a> = (&'a str, &'a [(&'a str, &'a str)], MalformedRequest, u16);

#[test]
fn malformed_requests_are_reported_with_their_status() {
    use MalformedRequest::*;
    let method = (":method", "CONNECT");
    let authority = (":authority", "a:1");
    let long = "x".repeat(40_000);
    let cases: [BadRequest<'_>; 12] = [
        ("get", &[(":method", "GET"), (":path", "/"), authority], NotConnect, 400),
        ("no method", &[authority], NotConnect, 400),
        (
            "scheme",
            &[method, (":scheme", "https"), authority],
            ForbiddenPseudoField,
            400,
        ),
        ("path", &[method, authority, (":path", "/")], ForbiddenPseudoField, 400),
        (
            "protocol",
            &[method, (":protocol", "websocket"), authority],
            ForbiddenPseudoField,
            400,
        ),
        (
            "status",
            &[method, authority, (":status", "200")],
            ForbiddenPseudoField,
            400,
        ),
        ("no authority", &[method], MissingAuthority, 400),
        (
            "foreign authority",
            &[method, (":authority", "ö:1")],
            MissingAuthority,
            400,
        ),
        ("upper case", &[method, authority, ("X-a", "b")], ForbiddenField, 400),
        ("late pseudo", &[method, ("a", "b"), authority], ForbiddenField, 400),
        (
            "connection",
            &[method, authority, ("connection", "close")],
            ForbiddenField,
            400,
        ),
        (
            "too large",
            &[method, authority, ("a", &long), ("b", &long[..25_400])],
            HeadTooLarge,
            431,
        ),
    ];
    for (name, fields, problem, status) in cases {
        let mut server = server();
        let events = feed(&mut server, &headers(1, 0, fields));
        assert_eq!(
            events,
            Ok(vec![Seen::Request {
                stream: 1,
                problem: Some(problem)
            }]),
            "{name}"
        );
        assert_eq!(problem.status(), status, "{name}");
        assert_eq!(server.respond(id(1), status, &[], true), Ok(()), "{name}");
        assert!(!server.has_stream(id(1)), "{name}");
        let kinds: Vec<u8> = sent(&mut server).iter().map(|frame| frame.0).collect();
        assert_eq!(kinds, [kind::HEADERS, kind::RST_STREAM], "{name}");
    }
}

#[test]
fn illegible_baggage_counts_as_absent() {
    let fields = [
        CONNECT[0],
        CONNECT[1],
        ("baggage", "a=b"),
        ("baggage", "ö"),
        ("forwarded", "ö"),
    ];
    let mut server = server();
    match server.receive(&mut headers(1, 0, &fields).as_slice()) {
        Ok(Some(Event::Request { request: Ok(head), .. })) => {
            assert_eq!((head.baggage, head.forwarded), (None, None));
        }
        event => panic!("{event:?}"),
    }
}

#[test]
fn a_refusal_of_a_finished_client_needs_no_reset() {
    let mut server = server();
    feed(&mut server, &headers(1, flag::END_STREAM, &CONNECT)).expect("a request");
    server.respond(id(1), 503, &[], true).expect("open");
    let frames = sent(&mut server);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].1, flag::END_STREAM | flag::END_HEADERS);
}

#[test]
fn informational_responses_are_skipped() {
    let mut client = client();
    let stream = client.open(&head()).expect("room for a stream");
    let bytes = [
        headers(1, 0, &[(":status", "103")]),
        headers(1, 0, &[(":status", "200"), ("baggage", "a=b")]),
    ]
    .concat();
    let response = Event::Response {
        stream,
        status: 200,
        baggage: Some("a=b".into()),
        refusal: None,
        end: false,
    };
    assert_eq!(client.receive(&mut bytes.as_slice()), Ok(Some(response)));
}

#[test]
fn responses_that_are_none_reset_the_stream() {
    let cases: [(&str, Vec<u8>); 6] = [
        ("data before the response", data(1, 0, b"x")),
        ("no status", headers(1, 0, &[("a", "b")])),
        ("no number", headers(1, 0, &[(":status", "+20")])),
        (
            "a request",
            headers(1, 0, &[(":status", "200"), (":method", "CONNECT")]),
        ),
        (
            "an end without a response",
            headers(1, flag::END_STREAM, &[(":status", "100")]),
        ),
        (
            "too many fields",
            headers(1, 0, &[(":status", "200"), ("a", &"x".repeat(16_320))]),
        ),
    ];
    for (name, bytes) in cases {
        let mut client = client();
        client.open(&head()).expect("room for a stream");
        let reset = Seen::Reset {
            stream: 1,
            code: ErrorCode::PROTOCOL_ERROR,
        };
        assert_eq!(feed(&mut client, &bytes), Ok(vec![reset]), "{name}");
    }
}

#[test]
fn trailers_end_a_stream() {
    let (mut client, _) = tunnel();
    assert_eq!(
        feed(&mut client, &headers(1, flag::END_STREAM, &[("a", "b")])),
        Ok(vec![finished(1)])
    );
}

#[test]
fn heads_longer_than_a_frame_continue() {
    let mut client = client();
    let long = "x".repeat(40_000);
    client
        .open(&ConnectHead {
            baggage: Some(&long),
            ..head()
        })
        .expect("no limit is known");
    let mut bytes = Vec::new();
    client.take_outgoing(&mut bytes);
    let mut server = server();
    assert_eq!(
        feed(&mut server, &bytes),
        Ok(vec![Seen::Request {
            stream: 1,
            problem: None
        }])
    );
    feed(&mut client, &settings(&[(setting::MAX_HEADER_LIST_SIZE, 40_000)])).expect("settings");
    let refused = client.open(&ConnectHead {
        baggage: Some(&long),
        ..head()
    });
    assert_eq!(refused, Err(OpenError::HeadTooLarge));
}
