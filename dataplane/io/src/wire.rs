//! Encoding of messages, for those above that should not need the protobuf library themselves.

use prost::{DecodeError, Message};

/// The message in `bytes`. Errors when they are not one.
pub fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, DecodeError> {
    M::decode(bytes)
}

/// The bytes of `message`.
pub fn encode<M: Message>(message: &M) -> Vec<u8> {
    message.encode_to_vec()
}
