//! RFC 7541 appendix C, and what no decoder may accept.

use proptest::prelude::*;

use super::{Decoder, Encoder, HpackError, huffman};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, HpackError> {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    decoder.decode(block, &mut |name, value| fields.push((text(name), text(value))))?;
    Ok(fields)
}

/// A block, its fields, and the size of the table after it.
type Block<'a> = (&'a str, &'a [(&'a str, &'a str)], usize);

fn assert_blocks(blocks: &[Block<'_>], limit: Option<&str>) {
    let mut decoder = Decoder::new();
    if let Some(update) = limit {
        decode(&mut decoder, &hex(update)).expect("a size update");
    }
    for (block, fields, table_size) in blocks {
        let decoded = decode(&mut decoder, &hex(block)).expect("a legal block");
        let decoded: Vec<_> = decoded
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(decoded, *fields);
        assert_eq!(decoder.table_size(), *table_size);
    }
}

#[test]
fn literals_of_appendix_c2() {
    let custom = [("custom-key", "custom-header")];
    assert_blocks(
        &[(
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            &custom,
            55,
        )],
        None,
    );
    assert_blocks(
        &[("040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], 0)],
        None,
    );
    assert_blocks(
        &[(
            "1008 7061 7373 776f 7264 0673 6563 7265 74",
            &[("password", "secret")],
            0,
        )],
        None,
    );
    assert_blocks(&[("82", &[(":method", "GET")], 0)], None);
}

const REQUESTS: [&[(&str, &str)]; 3] = [
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
    ],
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ],
    &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ],
];

#[test]
fn requests_of_appendix_c3() {
    assert_blocks(
        &[
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", REQUESTS[0], 57),
            ("8286 84be 5808 6e6f 2d63 6163 6865", REQUESTS[1], 110),
            (
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                REQUESTS[2],
                164,
            ),
        ],
        None,
    );
}

#[test]
fn huffman_requests_of_appendix_c4() {
    assert_blocks(
        &[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUESTS[0], 57),
            ("8286 84be 5886 a8eb 1064 9cbf", REQUESTS[1], 110),
            (
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
                REQUESTS[2],
                164,
            ),
        ],
        None,
    );
}

const RESPONSES: [&[(&str, &str)]; 3] = [
    &[
        (":status", "302"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ],
    &[
        (":status", "307"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ],
    &[
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
];

#[test]
fn responses_with_eviction_of_appendix_c5() {
    assert_blocks(
        &[
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
                 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                RESPONSES[0],
                222,
            ),
            ("4803 3330 37c1 c0bf", RESPONSES[1], 222),
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 \
                 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 \
                 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
                RESPONSES[2],
                215,
            ),
        ],
        Some("3fe1 01"),
    );
}

#[test]
fn huffman_responses_with_eviction_of_appendix_c6() {
    assert_blocks(
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
                 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                RESPONSES[0],
                222,
            ),
            ("4883 640e ffc1 c0bf", RESPONSES[1], 222),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
                 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                RESPONSES[2],
                215,
            ),
        ],
        Some("3fe1 01"),
    );
}

#[test]
fn broken_blocks_are_refused() {
    let cases = [
        ("truncated string", "000561", HpackError::Truncated),
        ("missing value", "0001 61", HpackError::Truncated),
        (
            "unending integer",
            "ff ff ff ff ff ff ff ff ff ff 01",
            HpackError::Integer,
        ),
        ("padded integer", "ff 80 80 80 80 80 00", HpackError::Integer),
        ("index 0", "80", HpackError::Index),
        ("index beyond both tables", "be", HpackError::Index),
        ("name beyond both tables", "7e 01 61", HpackError::Index),
        ("table above the limit", "3f e2 1f", HpackError::TableSize),
        ("late table size", "82 20", HpackError::TableSize),
        ("EOS", "0001 61 84 ff ff ff ff", HpackError::Huffman),
        ("padding of eight bits", "0001 61 82 1f ff", HpackError::Huffman),
        ("padding with a zero", "0001 61 81 18", HpackError::Huffman),
    ];
    for (name, block, error) in cases {
        assert_eq!(decode(&mut Decoder::new(), &hex(block)), Err(error), "{name}");
    }
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::new();
    decode(&mut decoder, &hex("40 01 61 01 62")).expect("an indexed literal");
    assert_eq!(decoder.table_size(), 34);
    let mut block = hex("40 01 61 7f e1 1f");
    block.extend([b'x'; 127 + 0xfe1]);
    assert_eq!(decode(&mut decoder, &block).map(|fields| fields.len()), Ok(1));
    assert_eq!(decoder.table_size(), 0);
}

#[test]
fn a_name_may_lie_in_the_entry_that_its_field_evicts() {
    let mut decoder = Decoder::new();
    decode(&mut decoder, &hex("3f 09 40 02 6161 01 62")).expect("a table of 40 bytes holds one entry");
    let fields = decode(&mut decoder, &hex("7e 03 636363")).expect("the name of the only entry");
    assert_eq!(fields, [("aa".to_owned(), "ccc".to_owned())]);
    assert_eq!(decoder.table_size(), 37);
}

#[test]
fn the_encoder_closes_its_table_first() {
    let mut encoder = Encoder::new();
    assert_eq!(encoder.encode([(":status", "200")]), hex("20 88"));
    assert_eq!(
        encoder.encode([(":status", "503"), ("baggage", "")]),
        hex("08 03 353033 00 07 62616767616765 00")
    );
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        lists in prop::collection::vec(prop::collection::vec(("[:a-z-]{0,40}", "[ -~]{0,300}"), 0..8), 1..4),
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for list in lists {
            let block = encoder.encode(list.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            prop_assert_eq!(decode(&mut decoder, &block), Ok(list));
        }
    }

    #[test]
    fn any_bytes_are_survived_within_the_table(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8)) {
        let mut decoder = Decoder::new();
        for block in blocks {
            let _ = decode(&mut decoder, &block);
            prop_assert!(decoder.table_size() <= super::table::DYNAMIC_TABLE_BYTES);
        }
    }

    #[test]
    fn huffman_expands_by_at_most_eight_fifths(coded in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut text = Vec::new();
        let _ = huffman::decode(&coded, &mut text);
        prop_assert!(text.len() <= coded.len() * 8 / 5);
    }
}
