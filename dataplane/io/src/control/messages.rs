//! gRPC messages out of the body of a response, left in the pieces that they came in.
//!
//! tonic's own reader joins a message in one buffer, which it keeps for the next one as long as the stream lives: after the
//! first response of a large mesh, 40 MiB for nothing.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use prost::Message;
use tonic::Status;
use tonic::body::Body;

/// A flag for compression, which we do not ask for, and the length.
const HEAD_BYTES: usize = 5;

/// Reads one message after the other.
pub(super) struct Messages {
    body: Body,
    received: Pieces,
    largest: usize,
}

impl Messages {
    /// Of messages of at most `largest` bytes.
    pub(super) fn new(body: Body, largest: usize) -> Self {
        Self {
            body,
            received: Pieces::default(),
            largest,
        }
    }

    /// The next message; `None` when the peer ended the call well. Errors when it did not, and for what is no message.
    /// Nothing is lost when this is dropped while it waits.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            match frame?.into_data() {
                Ok(data) => self.received.push(data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return match Status::from_header_map(&trailers) {
                        Some(status) if status.code() != tonic::Code::Ok => Err(status),
                        _ => Ok(None),
                    };
                }
            }
        }
    }

    /// A message that has come whole.
    fn take<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let Some(head) = self.received.first() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] != 0 {
            return Err(Status::unimplemented(
                "the controller compresses its messages, which was not asked for",
            ));
        }
        if length > self.largest {
            let text = format!("a message of {length} bytes; at most {} are taken", self.largest);
            return Err(Status::resource_exhausted(text));
        }
        if self.received.remaining() < HEAD_BYTES + length {
            return Ok(None);
        }
        self.received.advance(HEAD_BYTES);
        let message = M::decode((&mut self.received).take(length));
        message
            .map(Some)
            .map_err(|error| Status::internal(format!("a message does not parse: {error}")))
    }
}

/// Bytes in the pieces that they came in.
#[derive(Default)]
struct Pieces {
    pieces: VecDeque<Bytes>,
    length: usize,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// The next message's head.
    fn first(&self) -> Option<[u8; HEAD_BYTES]> {
        let mut bytes = self.pieces.iter().flatten().copied();
        let mut head = [0; HEAD_BYTES];
        for byte in &mut head {
            *byte = bytes.next()?;
        }
        Some(head)
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.length, "advanced past the end");
        self.length -= count;
        while let Some(first) = self.pieces.front_mut() {
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.pieces.pop_front();
        }
    }

    /// Of one piece they are a part; only what lies across pieces is copied.
    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        assert!(count <= self.length, "more than there is");
        if let Some(first) = self.pieces.front_mut()
            && count < first.len()
        {
            self.length -= count;
            return first.split_to(count);
        }
        let mut joined = BytesMut::with_capacity(count);
        while joined.len() < count {
            let part = self.chunk();
            let part = &part[..part.len().min(count - joined.len())];
            joined.extend_from_slice(part);
            let taken = part.len();
            self.advance(taken);
        }
        joined.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::discovery::{Any, DeltaDiscoveryResponse, Resource};

    fn response(count: usize) -> DeltaDiscoveryResponse {
        let resource = |number: usize| Resource {
            version: format!("version-{number}").into(),
            resource: Some(Any {
                value: vec![number as u8; 40].into(),
            }),
            name: format!("name-{number}").into(),
        };
        DeltaDiscoveryResponse {
            resources: (0..count).map(resource).collect(),
            type_url: "type".to_owned(),
            nonce: count.to_string(),
            removed_resources: vec!["gone".to_owned()],
            control_plane: None,
        }
    }

    fn framed(message: &DeltaDiscoveryResponse) -> Vec<u8> {
        let encoded = message.encode_to_vec();
        let length = u32::try_from(encoded.len()).expect("short").to_be_bytes();
        [&[0], &length[..], &encoded].concat()
    }

    fn reader(pieces: Vec<Vec<u8>>) -> Messages {
        let mut messages = Messages::new(Body::empty(), 1 << 20);
        pieces
            .into_iter()
            .for_each(|piece| messages.received.push(piece.into()));
        messages
    }

    #[test]
    fn messages_are_read_however_they_are_cut() {
        let sent = [response(30), response(0), response(1)];
        let bytes: Vec<u8> = sent.iter().flat_map(framed).collect();
        for size in [1, 2, 7, 64, 1000, bytes.len()] {
            let mut messages = reader(bytes.chunks(size).map(<[u8]>::to_vec).collect());
            for expected in &sent {
                assert_eq!(messages.take().expect("well-formed").as_ref(), Some(expected), "{size}");
            }
            assert_eq!(messages.take::<DeltaDiscoveryResponse>().expect("nothing"), None);
            assert_eq!(messages.received.remaining(), 0);
        }
    }

    #[test]
    fn what_has_not_come_whole_waits() {
        let bytes = framed(&response(3));
        let mut messages = reader(vec![bytes[..bytes.len() - 1].to_vec()]);
        assert_eq!(messages.take::<DeltaDiscoveryResponse>().expect("not yet"), None);
        messages.received.push(bytes[bytes.len() - 1..].to_vec().into());
        assert_eq!(messages.take().expect("whole"), Some(response(3)));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let code = |bytes: &[u8]| {
            let taken = reader(vec![bytes.to_vec()]).take::<DeltaDiscoveryResponse>();
            taken.expect_err("refused").code()
        };
        assert_eq!(code(&[1, 0, 0, 0, 0]), tonic::Code::Unimplemented);
        assert_eq!(code(&[0, 0xff, 0, 0, 0]), tonic::Code::ResourceExhausted);
        assert_eq!(code(&[0, 0, 0, 0, 2, 0xff, 0xff]), tonic::Code::Internal);
    }
}
