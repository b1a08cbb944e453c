//! gRPC's framing of messages, and its status text, as the server's side needs them (gRPC, "PROTOCOL-HTTP2").
//!
//! A message is one byte that says whether it is compressed, its length in four bytes, and its bytes; DATA frames cut it
//! anywhere. Nothing here is compressed: a client that compresses is told so.

use std::fmt::Write as _;

use bytes::{Buf, Bytes, BytesMut};

/// Of the flag and the length.
pub const PREFIX_BYTES: usize = 5;
/// A peer's length is no reason to reserve so much: room grows with what has come.
const FIRST_RESERVE: usize = 16 * 1024;

/// What a call ends with (gRPC, "Status codes"), as far as the transport itself says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// Success.
    Ok = 0,
    /// A message is larger than is taken.
    ResourceExhausted = 8,
    /// No such method, or a message in a form that is not read.
    Unimplemented = 12,
    /// What came is no gRPC.
    Internal = 13,
}

/// Why a stream of messages cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Compression was never agreed on.
    #[error("a message is compressed, and no compression is spoken here")]
    Compressed,
    /// Neither 0 nor 1.
    #[error("a message's first byte is {0}, and neither 0 nor 1")]
    Flag(u8),
    /// More than the bound.
    #[error("a message of {length} bytes; at most {limit} are taken")]
    TooLarge {
        /// What it says.
        length: usize,
        /// What is taken.
        limit: usize,
    },
    /// END_STREAM came too early.
    #[error("the stream ends within a message")]
    Truncated,
}

impl FramingError {
    /// What the call ends with.
    pub fn code(self) -> Code {
        match self {
            Self::Compressed => Code::Unimplemented,
            Self::TooLarge { .. } => Code::ResourceExhausted,
            Self::Flag(_) | Self::Truncated => Code::Internal,
        }
    }
}

/// Puts messages together from the bytes of DATA frames.
#[derive(Debug)]
pub struct Deframer {
    limit: usize,
    gathered: BytesMut,
    /// Of the message that is being gathered, once its prefix was read.
    length: Option<usize>,
}

impl Deframer {
    /// One that takes messages of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            gathered: BytesMut::new(),
            length: None,
        }
    }

    /// Take what came.
    pub fn push(&mut self, data: &[u8]) {
        if self.gathered.capacity() == 0 {
            let wanted = data.len().min(FIRST_RESERVE);
            self.gathered.reserve(wanted);
        }
        self.gathered.extend_from_slice(data);
    }

    /// The next whole message, if it is there.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FramingError> {
        let length = match self.length {
            Some(length) => length,
            None => {
                let Some(length) = self.take_prefix()? else {
                    return Ok(None);
                };
                self.length = Some(length);
                length
            }
        };
        if self.gathered.len() < length {
            return Ok(None);
        }
        self.length = None;
        let message = self.gathered.split_to(length).freeze();
        if self.gathered.is_empty() {
            // An idle stream keeps no room.
            self.gathered = BytesMut::new();
        }
        Ok(Some(message))
    }

    /// The client has ended its side.
    pub fn finish(&self) -> Result<(), FramingError> {
        if self.gathered.is_empty() && self.length.is_none() {
            Ok(())
        } else {
            Err(FramingError::Truncated)
        }
    }

    fn take_prefix(&mut self) -> Result<Option<usize>, FramingError> {
        if self.gathered.len() < PREFIX_BYTES {
            return Ok(None);
        }
        match self.gathered.get_u8() {
            0 => {}
            1 => return Err(FramingError::Compressed),
            flag => return Err(FramingError::Flag(flag)),
        }
        // Four bytes fit into a usize on every platform that we build for.
        let length = self.gathered.get_u32() as usize;
        let limit = self.limit;
        if length > limit {
            return Err(FramingError::TooLarge { length, limit });
        }
        Ok(Some(length))
    }
}

/// The prefix of a message of `length` bytes. None where its length does not fit into four bytes.
pub fn prefix(length: usize) -> Option<[u8; PREFIX_BYTES]> {
    let [a, b, c, d] = u32::try_from(length).ok()?.to_be_bytes();
    Some([0, a, b, c, d])
}

/// `grpc-message` as a header carries it: percent-encoded, except what is printable ASCII and no percent sign.
pub fn encode_message(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(message: &[u8]) -> Vec<u8> {
        let mut framed = prefix(message.len()).expect("short").to_vec();
        framed.extend_from_slice(message);
        framed
    }

    fn read_all(deframer: &mut Deframer) -> Vec<Bytes> {
        std::iter::from_fn(|| deframer.next_message().expect("well formed")).collect()
    }

    proptest! {
        #[test]
        fn messages_come_out_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
            cut in 1_usize..400,
        ) {
            let wire: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
            let mut deframer = Deframer::new(300);
            let mut found = Vec::new();
            for piece in wire.chunks(cut) {
                deframer.push(piece);
                found.extend(read_all(&mut deframer));
            }
            prop_assert_eq!(found, messages);
            prop_assert_eq!(deframer.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_are_messages_or_an_error(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let mut deframer = Deframer::new(64);
            for piece in pieces {
                deframer.push(&piece);
                while let Ok(Some(message)) = deframer.next_message() {
                    prop_assert!(message.len() <= 64);
                }
            }
        }
    }

    #[test]
    fn an_empty_message_is_a_message() {
        let mut deframer = Deframer::new(10);
        deframer.push(&frame(b""));
        assert_eq!(deframer.next_message(), Ok(Some(Bytes::new())));
        assert_eq!(deframer.next_message(), Ok(None));
    }

    #[test]
    fn a_stream_that_ends_within_a_message_is_truncated() {
        let whole = frame(b"abc");
        for end in 1..whole.len() {
            let mut deframer = Deframer::new(10);
            deframer.push(&whole[..end]);
            assert_eq!(deframer.next_message(), Ok(None));
            assert_eq!(deframer.finish(), Err(FramingError::Truncated), "{end}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused_by_its_prefix() {
        let mut deframer = Deframer::new(10);
        deframer.push(&[0, 0, 0, 0, 11]);
        let error = deframer.next_message().expect_err("too large");
        assert_eq!(error, FramingError::TooLarge { length: 11, limit: 10 });
        assert_eq!(error.code(), Code::ResourceExhausted);
    }

    #[test]
    fn a_large_length_reserves_nothing() {
        let mut deframer = Deframer::new(usize::MAX);
        deframer.push(&[0, 0xFF, 0xFF, 0xFF, 0xFF, 1]);
        assert_eq!(deframer.next_message(), Ok(None));
        assert!(deframer.gathered.capacity() <= FIRST_RESERVE);
    }

    #[test]
    fn compressed_messages_and_other_flags_are_refused() {
        for (flag, code) in [(1, Code::Unimplemented), (2, Code::Internal), (255, Code::Internal)] {
            let mut deframer = Deframer::new(10);
            deframer.push(&[flag, 0, 0, 0, 0]);
            assert_eq!(deframer.next_message().expect_err("refused").code(), code);
        }
    }

    #[test]
    fn text_is_percent_encoded() {
        assert_eq!(encode_message("50% of \"é\"\n"), "50%25 of \"%C3%A9\"%0A");
    }
}
