//! HPACK's Huffman code (RFC 7541 appendix B), decoding only.
//!
//! The code is canonical: codes of one length are consecutive and ordered by symbol, and longer codes are numerically
//! above shorter ones. So the symbols in code order and the number of codes per length define all of it, and a symbol
//! is found by comparing the next 32 bits with the upper bound of each length, shortest first. Texts in HBONE heads
//! are lower-case letters and digits, whose codes have 5 to 8 bits: three or four comparisons each.

use super::HpackError;

/// How many codes there are of each length in bits.
const CODES_OF_LENGTH: [(u32, u64); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 4),
];

/// The symbols in order of their codes. The one code after the last symbol is EOS, which must not occur in a text.
#[rustfmt::skip]
const SYMBOLS: [u8; 256] = [
    48, 49, 50, 97, 99, 101, 105, 111, 115, 116, 32, 37, 45, 46, 47, 51, 52, 53, 54, 55, 56, 57, 61, 65,
    95, 98, 100, 102, 103, 104, 108, 109, 110, 112, 114, 117, 58, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76,
    77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 89, 106, 107, 113, 118, 119, 120, 121, 122, 38, 42, 44, 59,
    88, 90, 33, 34, 40, 41, 63, 39, 43, 124, 35, 62, 0, 36, 64, 91, 93, 126, 94, 125, 60, 96, 123, 92,
    195, 208, 128, 130, 131, 162, 184, 194, 224, 226, 153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129,
    132, 133, 134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232,
    233, 1, 135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180, 182,
    183, 188, 191, 197, 231, 239, 9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237, 199, 207, 234, 235, 192, 193,
    200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255, 203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245,
    246, 247, 248, 250, 251, 252, 253, 254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20,
    21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 127, 220, 249, 10, 13, 22,
];

/// The codes of one length. Codes are left-aligned in 32 bits.
#[derive(Clone, Copy)]
struct Class {
    bits: u32,
    first_code: u64,
    /// One past the last code of this length.
    limit: u64,
    /// Where this length's symbols start in [`SYMBOLS`].
    first_symbol: usize,
}

static CLASSES: [Class; 21] = classes();

const fn classes() -> [Class; 21] {
    let mut classes = [Class {
        bits: 0,
        first_code: 0,
        limit: 0,
        first_symbol: 0,
    }; 21];
    let (mut code, mut symbol, mut i) = (0, 0, 0);
    while i < classes.len() {
        let (bits, count) = CODES_OF_LENGTH[i];
        let limit = code + (count << (32 - bits));
        classes[i] = Class {
            bits,
            first_code: code,
            limit,
            first_symbol: symbol,
        };
        code = limit;
        symbol += count as usize;
        i += 1;
    }
    classes
}

/// Append the decoded text to `out`: at most 8/5 of the coded length. Refuses EOS and padding that is longer than
/// seven bits or has a zero in it (RFC 7541 section 5.2).
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    let mut rest = coded.iter();
    // Unread bits, left-aligned; zeros follow them.
    let (mut bits, mut count) = (0u64, 0u32);
    loop {
        while count <= 56 {
            let Some(&byte) = rest.next() else { break };
            bits |= u64::from(byte) << (56 - count);
            count += 8;
        }
        let ahead = bits >> 32;
        // The last limit is 2^32, above whatever 32 bits can hold.
        let Some(class) = CLASSES.iter().find(|class| ahead < class.limit) else {
            return Err(HpackError::Huffman);
        };
        if class.bits > count {
            let is_padding = count < 8 && bits.leading_ones() == count;
            return if is_padding { Ok(()) } else { Err(HpackError::Huffman) };
        }
        let index = class.first_symbol + ((ahead - class.first_code) >> (32 - class.bits)) as usize;
        out.push(*SYMBOLS.get(index).ok_or(HpackError::Huffman)?);
        bits <<= class.bits;
        count -= class.bits;
    }
}
