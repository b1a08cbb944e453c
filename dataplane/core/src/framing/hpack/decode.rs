//! The decoder: one header block in, its fields out.

use super::HpackError;
use super::huffman;
use super::table::DynamicTable;

/// Decodes the header blocks of one direction of one connection, in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: DynamicTable,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            table: DynamicTable::new(),
        }
    }

    /// Decode a complete block, handing every field's name and value to `field` in order.
    ///
    /// Work and memory are linear in the block's length. Bounding the *decoded* size is for `field`: one byte can
    /// name a table entry of 4 KiB, but handing that out costs nothing until it is copied.
    /// After an error the tables of both ends may differ, and the connection must end (RFC 9113 section 4.3).
    pub(crate) fn decode(&mut self, block: &[u8], field: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), HpackError> {
        let mut rest = block;
        let mut at_start = true;
        while let Some(&first) = rest.first() {
            if first & 0xe0 == 0x20 {
                if !at_start {
                    return Err(HpackError::TableSize);
                }
                let capacity = integer(&mut rest, 5)?;
                self.table.resize(capacity)?;
                continue;
            }
            at_start = false;
            if first & 0x80 != 0 {
                let (name, value) = self.table.get(integer(&mut rest, 7)?)?;
                field(name, value);
            } else {
                self.literal(first & 0x40 != 0, &mut rest, field)?;
            }
        }
        Ok(())
    }

    /// A literal field: with incremental indexing (prefix of 6 bits), without indexing or never indexed (4 bits).
    fn literal(
        &mut self,
        is_indexed: bool,
        rest: &mut &[u8],
        field: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let index = integer(rest, if is_indexed { 6 } else { 4 })?;
        let (mut name_text, mut value_text) = (Vec::new(), Vec::new());
        let name = if index == 0 {
            string(rest, &mut name_text)?
        } else {
            self.table.get(index)?.0
        };
        let value = string(rest, &mut value_text)?;
        field(name, value);
        if is_indexed {
            // The name may lie in an entry that the insertion evicts.
            let name = name.to_vec();
            self.table.insert(&name, value);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn table_size(&self) -> usize {
        self.table.size()
    }
}

/// An integer with a prefix of `bits` bits (RFC 7541 section 5.1). More than four further bytes are refused: no legal
/// block needs a number above 2^28, and below it nothing can overflow.
fn integer(rest: &mut &[u8], bits: u32) -> Result<usize, HpackError> {
    let prefix = (1usize << bits) - 1;
    let mut value = usize::from(byte(rest)?) & prefix;
    if value < prefix {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let next = byte(rest)?;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(HpackError::Integer)
}

/// A string (RFC 7541 section 5.2): a slice of the block, or decoded into `text` if it is Huffman-coded.
fn string<'t, 'b: 't>(rest: &mut &'b [u8], text: &'t mut Vec<u8>) -> Result<&'t [u8], HpackError> {
    let is_huffman = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(rest, 7)?;
    let (coded, after) = rest.split_at_checked(length).ok_or(HpackError::Truncated)?;
    *rest = after;
    if !is_huffman {
        return Ok(coded);
    }
    huffman::decode(coded, text)?;
    Ok(text)
}

fn byte(rest: &mut &[u8]) -> Result<u8, HpackError> {
    let (&first, after) = rest.split_first().ok_or(HpackError::Truncated)?;
    *rest = after;
    Ok(first)
}
