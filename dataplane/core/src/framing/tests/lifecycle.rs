//! Limits on streams, pings, and the ends of streams and connections.

use super::super::frame::{flag, kind, setting};
use super::super::*;
use super::support::*;

#[test]
fn pings_are_answered_and_answers_reported() {
    let mut client = client();
    assert_eq!(feed(&mut client, &frame(kind::PING, 0, 0, b"12345678")), Ok(vec![]));
    assert_eq!(sent(&mut client), [(kind::PING, flag::ACK, 0, b"12345678".to_vec())]);
    client.ping(*b"abcdefgh");
    assert_eq!(sent(&mut client), [(kind::PING, 0, 0, b"abcdefgh".to_vec())]);
    let ack = frame(kind::PING, flag::ACK, 0, b"abcdefgh");
    assert_eq!(
        client.receive(&mut ack.as_slice()),
        Ok(Some(Event::PingAck { payload: *b"abcdefgh" }))
    );
}

#[test]
fn streams_above_the_limit_are_refused() {
    let mut server = server_with(Settings {
        max_concurrent_streams: Some(2),
        ..Settings::server()
    });
    feed(&mut server, &[request(1), request(3)].concat()).expect("two streams");
    assert_eq!(feed(&mut server, &request(5)), Ok(vec![]));
    let refused = ErrorCode::REFUSED_STREAM.0.to_be_bytes().to_vec();
    assert_eq!(sent(&mut server), [(kind::RST_STREAM, 0, 5, refused)]);
    feed(&mut server, &reset(1, ErrorCode::CANCEL)).expect("a reset");
    assert_eq!(feed(&mut server, &request(7)).map(|events| events.len()), Ok(1));
}

#[test]
fn a_client_keeps_to_both_limits() {
    let mut client = Connection::client(Settings::client());
    for _ in 0..100 {
        client.open(&head()).expect("100 are assumed");
    }
    assert_eq!(client.open(&head()), Err(OpenError::TooManyStreams));
    feed(&mut client, &settings(&[(setting::MAX_CONCURRENT_STREAMS, 1000)])).expect("settings");
    assert!(!client.can_open(), "our own limit");
    feed(&mut client, &settings(&[(setting::MAX_CONCURRENT_STREAMS, 2)])).expect("settings");
    for stream in (1..198).step_by(2) {
        client.reset(StreamId(stream), ErrorCode::CANCEL);
        assert_eq!(client.can_open(), client.active_streams() < 2);
    }
}

#[test]
fn a_goaway_refuses_what_it_does_not_cover() {
    let mut client = client();
    for _ in 0..3 {
        client.open(&head()).expect("room for a stream");
    }
    let debug = [&3u32.to_be_bytes()[..], &[0; 4], b"bye"].concat();
    let events = feed(&mut client, &frame(kind::GOAWAY, 0, 0, &debug));
    let goaway = other("GoAway { last_stream: StreamId(3), code: NO_ERROR }");
    assert_eq!(
        events,
        Ok(vec![
            goaway,
            Seen::Reset {
                stream: 5,
                code: ErrorCode::REFUSED_STREAM
            }
        ])
    );
    assert_eq!(client.open(&head()), Err(OpenError::Draining));
    assert!(client.is_draining() && !client.is_closed());
    client.reset(id(1), ErrorCode::CANCEL);
    client.reset(id(3), ErrorCode::CANCEL);
    assert!(client.is_closed());
}

#[test]
fn draining_takes_what_is_under_way_and_then_no_more() {
    let mut server = server();
    feed(&mut server, &request(1)).expect("a request");
    server.drain();
    assert_eq!(feed(&mut server, &request(3)).map(|events| events.len()), Ok(1));
    server.go_away(ErrorCode::NO_ERROR);
    let last: Vec<Vec<u8>> = sent(&mut server)
        .into_iter()
        .map(|frame| frame.3[..4].to_vec())
        .collect();
    assert_eq!(
        last,
        [0x7fff_ffff_u32.to_be_bytes().to_vec(), 3u32.to_be_bytes().to_vec()]
    );
    assert_eq!(feed(&mut server, &[request(5), data(5, 0, b"x")].concat()), Ok(vec![]));
    assert!(sent(&mut server).is_empty());
    assert!(!server.is_closed());
    server.reset(id(1), ErrorCode::CANCEL);
    server.reset(id(3), ErrorCode::CANCEL);
    assert!(server.is_closed());
}

#[test]
fn held_bytes_outlive_a_reset_of_an_ended_stream() {
    let mut server = server();
    feed(&mut server, &[request(1), data(1, flag::END_STREAM, b"abc")].concat()).expect("data");
    server.respond(id(1), 200, &[], false).expect("open");
    server.finish(id(1));
    assert_eq!(feed(&mut server, &reset(1, ErrorCode::NO_ERROR)), Ok(vec![]));
    assert!(server.has_stream(id(1)));
    server.consumed(id(1), 3);
    assert!(!server.has_stream(id(1)));
}

#[test]
fn stream_ids_run_out() {
    let mut client = client();
    client.next_id = (1 << 31) - 1;
    assert!(client.open(&head()).is_ok());
    assert_eq!(client.open(&head()), Err(OpenError::Draining));
}
