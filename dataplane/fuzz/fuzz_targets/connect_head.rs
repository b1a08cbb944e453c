//! Any header block as a CONNECT, and what its texts mean.
#![no_main]

use ambit_core::framing::{ConnectHead, Connection, Event, Settings};
use ambit_core::hbone::{Authority, Baggage, TraceParent, parse_forwarded_host};
use libfuzzer_sys::fuzz_target;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("shorter than a frame")
        .to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fuzz_target!(|block: &[u8]| {
    let block = &block[..block.len().min(16_000)];
    let bytes = [
        PREFACE,
        &frame(SETTINGS, 0, 0, &[]),
        &frame(HEADERS, END_HEADERS, 1, block),
    ]
    .concat();
    let mut server = Connection::server(Settings::server());
    let mut input = &bytes[..];
    while let Ok(Some(event)) = server.receive(&mut input) {
        let Event::Request { request: Ok(head), .. } = event else {
            continue;
        };
        if let Ok(authority) = head.authority.parse::<Authority>() {
            assert_eq!(authority.to_string().parse::<Authority>(), Ok(authority));
        }
        let baggage = head.baggage.as_deref().map(Baggage::parse);
        let _ = head.forwarded.as_deref().and_then(parse_forwarded_host);
        let _ = head.traceparent.as_deref().and_then(TraceParent::parse);
        // What was understood can be said again, and is understood the same.
        let again = ConnectHead {
            authority: &head.authority,
            baggage: head.baggage.as_deref(),
            forwarded: head.forwarded.as_deref(),
            traceparent: head.traceparent.as_deref(),
            x_forwarded_network: head.x_forwarded_network.as_deref(),
        };
        let mut client = Connection::client(Settings::client());
        if client.open(&again).is_err() {
            continue;
        }
        let mut said = Vec::new();
        client.take_outgoing(&mut said);
        let (mut echo, mut input) = (Connection::server(Settings::server()), &said[..]);
        let mut heard = None;
        while let Ok(Some(event)) = echo.receive(&mut input) {
            if let Event::Request { request, .. } = event {
                heard = Some(request.expect("what we say is well-formed"));
            }
        }
        let heard = heard.expect("a request");
        assert_eq!((&heard.authority, &heard.baggage), (&head.authority, &head.baggage));
        assert_eq!(heard.baggage.as_deref().map(Baggage::parse), baggage);
    }
});
