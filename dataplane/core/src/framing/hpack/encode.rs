//! The encoder: the static table and literals, nothing remembered, nothing Huffman-coded.
//!
//! A tunnel sends one head of some 400 bytes and then DATA, so a dynamic table would save little and cost both ends
//! 4 KiB a connection. Every decoder must accept this form. The first block closes the table (a size update to 0):
//! from then on no limit that the peer announces can ask us for another update (RFC 7541 section 4.2).

use super::table::STATIC_TABLE;

/// Encodes the header blocks of one direction of one connection.
#[derive(Debug)]
pub(crate) struct Encoder {
    table_closed: bool,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { table_closed: false }
    }

    /// Encode one block; pseudo-header fields come first, as the caller orders them.
    pub(crate) fn encode<'f>(&mut self, fields: impl IntoIterator<Item = (&'f str, &'f str)>) -> Vec<u8> {
        let mut block = Vec::with_capacity(512);
        if !self.table_closed {
            integer(&mut block, 0x20, 5, 0);
            self.table_closed = true;
        }
        for (name, value) in fields {
            encode_field(&mut block, name, value);
        }
        block
    }
}

fn encode_field(block: &mut Vec<u8>, name: &str, value: &str) {
    if let Some(index) = STATIC_TABLE.iter().position(|&entry| entry == (name, value)) {
        return integer(block, 0x80, 7, index + 1);
    }
    match STATIC_TABLE.iter().position(|entry| entry.0 == name) {
        Some(index) => integer(block, 0, 4, index + 1),
        None => {
            block.push(0);
            string(block, name);
        }
    }
    string(block, value);
}

fn string(block: &mut Vec<u8>, text: &str) {
    integer(block, 0, 7, text.len());
    block.extend_from_slice(text.as_bytes());
}

/// An integer with a prefix of `bits` bits (RFC 7541 section 5.1); `pattern` fills the bits above the prefix.
fn integer(block: &mut Vec<u8>, pattern: u8, bits: u32, value: usize) {
    let prefix = (1usize << bits) - 1;
    if value < prefix {
        block.push(pattern | value as u8);
        return;
    }
    block.push(pattern | prefix as u8);
    let mut rest = value - prefix;
    while rest >= 0x80 {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}
