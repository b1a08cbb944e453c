//! Frames by hand, and events in a form that can be kept and compared.

use super::super::frame::{FrameHead, PREFACE, flag, kind};
use super::super::hpack::Encoder;
use super::super::*;

pub(super) const CONNECT: [(&str, &str); 2] = [(":method", "CONNECT"), (":authority", "192.0.2.1:80")];

/// An event with its bytes copied; neighbouring `Data` of one stream are joined by [`feed`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen {
    Data {
        stream: u32,
        bytes: Vec<u8>,
        end: bool,
    },
    Reset {
        stream: u32,
        code: ErrorCode,
    },
    Request {
        stream: u32,
        problem: Option<MalformedRequest>,
    },
    Other(String),
}

impl Seen {
    fn of(event: &Event<'_>) -> Self {
        match event {
            Event::Data { stream, bytes, end } => Self::Data {
                stream: stream.get(),
                bytes: bytes.to_vec(),
                end: *end,
            },
            Event::Reset { stream, code } => Self::Reset {
                stream: stream.get(),
                code: *code,
            },
            Event::Request { stream, request, .. } => Self::Request {
                stream: stream.get(),
                problem: request.as_ref().err().copied(),
            },
            other => Self::Other(format!("{other:?}")),
        }
    }
}

pub(super) fn other(text: &str) -> Seen {
    Seen::Other(text.to_owned())
}

/// Feed one slice; events before an error are lost to the caller but not to `seen`.
pub(super) fn feed_into(
    connection: &mut Connection,
    mut input: &[u8],
    seen: &mut Vec<Seen>,
) -> Result<(), ConnectionError> {
    while let Some(event) = connection.receive(&mut input)? {
        let event = Seen::of(&event);
        match (seen.last_mut(), event) {
            (
                Some(Seen::Data {
                    stream: before,
                    bytes: joined,
                    end: ended,
                }),
                Seen::Data { stream, bytes, end },
            ) if *before == stream => {
                joined.extend(bytes);
                *ended = end;
            }
            (_, event) => seen.push(event),
        }
    }
    assert!(input.is_empty());
    Ok(())
}

pub(super) fn feed(connection: &mut Connection, input: &[u8]) -> Result<Vec<Seen>, ConnectionError> {
    let mut seen = Vec::new();
    feed_into(connection, input, &mut seen)?;
    Ok(seen)
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = FrameHead {
        length: payload.len() as u32,
        kind,
        flags,
        stream,
    }
    .bytes()
    .to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

pub(super) fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = entries
        .iter()
        .flat_map(|(id, value)| [id.to_be_bytes().to_vec(), value.to_be_bytes().to_vec()].concat())
        .collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    Encoder::new().encode(fields.iter().copied())
}

pub(super) fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, flags | flag::END_HEADERS, stream, &block(fields))
}

pub(super) fn request(stream: u32) -> Vec<u8> {
    headers(stream, 0, &CONNECT)
}

pub(super) fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, stream, payload)
}

pub(super) fn reset(stream: u32, code: ErrorCode) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

pub(super) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// A server whose client has said hello, with nothing left to send.
pub(super) fn server_with(settings_of_server: Settings) -> Connection {
    let mut server = Connection::server(settings_of_server);
    let hello = [
        PREFACE.to_vec(),
        settings(&[]),
        frame(kind::SETTINGS, flag::ACK, 0, &[]),
    ]
    .concat();
    assert_eq!(feed(&mut server, &hello), Ok(vec![other("SettingsReceived")]));
    server.take_outgoing(&mut Vec::new());
    server
}

pub(super) fn server() -> Connection {
    server_with(Settings::server())
}

/// A client whose server has said hello, with nothing left to send.
pub(super) fn client() -> Connection {
    let mut client = Connection::client(Settings::client());
    let hello = [settings(&[]), frame(kind::SETTINGS, flag::ACK, 0, &[])].concat();
    assert_eq!(feed(&mut client, &hello), Ok(vec![other("SettingsReceived")]));
    client.take_outgoing(&mut Vec::new());
    client
}

/// A client with one stream that the server has accepted.
pub(super) fn tunnel() -> (Connection, StreamId) {
    let mut client = client();
    let stream = client.open(&head()).expect("room for a stream");
    feed(&mut client, &headers(stream.get(), 0, &[(":status", "200")])).expect("a response");
    client.take_outgoing(&mut Vec::new());
    (client, stream)
}

pub(super) fn head() -> ConnectHead<'static> {
    ConnectHead {
        authority: "192.0.2.1:80",
        ..ConnectHead::default()
    }
}

/// What waits to be sent, as (kind, flags, stream, payload).
pub(super) fn sent(connection: &mut Connection) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut bytes = Vec::new();
    connection.take_outgoing(&mut bytes);
    let mut rest = bytes.as_slice();
    let mut frames = Vec::new();
    while let Some((head, after)) = rest.split_first_chunk() {
        let head = FrameHead::parse(head);
        let (payload, after) = after.split_at(head.length as usize);
        frames.push((head.kind, head.flags, head.stream, payload.to_vec()));
        rest = after;
    }
    frames
}

pub(super) fn code_of<T: std::fmt::Debug>(result: Result<T, ConnectionError>) -> ErrorCode {
    result.expect_err("a connection error").code
}

pub(super) fn id(stream: u32) -> StreamId {
    StreamId(stream)
}

pub(super) fn finished(stream: u32) -> Seen {
    other(&format!("Finished {{ stream: StreamId({stream}) }}"))
}
