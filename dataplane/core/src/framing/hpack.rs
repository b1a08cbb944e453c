//! HPACK (RFC 7541): a full decoder, and an encoder that uses as little of it as a correct one may.
//!
//! `table.rs` holds both tables, `huffman.rs` the code of appendix B, `decode.rs` and `encode.rs` the two directions.

mod decode;
mod encode;
mod huffman;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use decode::Decoder;
pub(crate) use encode::Encoder;

/// Why a header block cannot be decoded. All of them end the connection with COMPRESSION_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HpackError {
    /// The block ends inside a field.
    Truncated,
    /// An integer is longer or larger than any legal one.
    Integer,
    /// An index points at no entry.
    Index,
    /// EOS inside a text, or illegal padding.
    Huffman,
    /// A table size above our limit, or an update after the first field.
    TableSize,
}

impl HpackError {
    /// What the peer did, for the error that it ends in.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::Truncated => "a header block that ends inside a field",
            Self::Integer => "an integer out of range in a header block",
            Self::Index => "a header block that names no table entry",
            Self::Huffman => "a malformed Huffman code in a header block",
            Self::TableSize => "an illegal table size update in a header block",
        }
    }
}
