//! Questions of our own: the addresses of an endpoint that has a name instead (facts/ztunnel.md section 2.3, 3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::message::{
    CLASS_IN, HEADER_BYTES, NAME_BYTES_MAX, QueryType, RECURSION_DESIRED, TRUNCATED, TYPE_A, TYPE_AAAA, append_name,
    counts, number,
};

/// How long an answer is believed at most, and at least: a name that changes within a second is asked for once a second.
const TTL_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// RFC 1035, 4.1.1.
const NAME_ERROR: u8 = 3;

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// It cannot be asked for.
    #[error("{0:?} is no DNS name")]
    NotAName(String),
    /// NXDOMAIN.
    #[error("the name does not exist")]
    UnknownName,
    /// Another response code.
    #[error("the name server answered with code {0}")]
    Failed(u8),
    /// Over UDP: ask by TCP.
    #[error("the answer was cut")]
    Truncated,
    /// What came does not parse.
    #[error("the answer does not parse")]
    Malformed,
}

/// What a name server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// In the order that it gave them; perhaps none.
    pub addresses: Vec<IpAddr>,
    /// How long they hold.
    pub ttl: Duration,
}

/// The query for `hostname`'s addresses of one kind, with id 0.
pub fn build_lookup(hostname: &str, kind: QueryType) -> Result<Vec<u8>, LookupError> {
    let name = hostname.strip_suffix('.').unwrap_or(hostname);
    let is_label = |label: &str| (1..64).contains(&label.len()) && label.is_ascii();
    if name.len() + 2 > NAME_BYTES_MAX || !name.split('.').all(is_label) {
        return Err(LookupError::NotAName(hostname.to_owned()));
    }
    let mut query = vec![0; HEADER_BYTES];
    query[2] = RECURSION_DESIRED;
    query[5] = 1;
    append_name(&mut query, name);
    query.extend(type_of(kind).to_be_bytes());
    query.extend(CLASS_IN.to_be_bytes());
    Ok(query)
}

/// The addresses of `kind` in a reply that was checked to answer the question (`is_answer_to`). Those behind a CNAME stand
/// in the same reply, as a name server that recurses puts them.
pub fn read_addresses(reply: &[u8], kind: QueryType) -> Result<Found, LookupError> {
    let [questions, answers, ..] = counts(reply).ok_or(LookupError::Malformed)?;
    match reply[3] & 0x0f {
        0 => {}
        NAME_ERROR => return Err(LookupError::UnknownName),
        code => return Err(LookupError::Failed(code)),
    }
    if reply[2] & TRUNCATED != 0 {
        return Err(LookupError::Truncated);
    }
    read_records(reply, questions, answers, kind).ok_or(LookupError::Malformed)
}

fn read_records(reply: &[u8], questions: u16, answers: u16, kind: QueryType) -> Option<Found> {
    let mut at = HEADER_BYTES;
    for _ in 0..questions {
        at = skip_name(reply, at)? + 4;
    }
    let (mut addresses, mut ttl) = (Vec::new(), TTL_BOUNDS.1);
    for _ in 0..answers {
        at = skip_name(reply, at)?;
        let (record_type, class) = (number(reply, at)?, number(reply, at + 2)?);
        let seconds = u32::from_be_bytes(reply.get(at + 4..at + 8)?.try_into().ok()?);
        let length = usize::from(number(reply, at + 8)?);
        let content = reply.get(at + 10..at + 10 + length)?;
        at += 10 + length;
        ttl = ttl.min(Duration::from_secs(seconds.into()));
        if record_type == type_of(kind) && class == CLASS_IN {
            addresses.push(read_address(content, kind)?);
        }
    }
    Some(Found {
        addresses,
        ttl: ttl.clamp(TTL_BOUNDS.0, TTL_BOUNDS.1),
    })
}

fn read_address(content: &[u8], kind: QueryType) -> Option<IpAddr> {
    match kind {
        QueryType::V4 => <[u8; 4]>::try_from(content).ok().map(|b| Ipv4Addr::from(b).into()),
        QueryType::V6 => <[u8; 16]>::try_from(content).ok().map(|b| Ipv6Addr::from(b).into()),
    }
}

/// Where a name ends: after its root label, or after a pointer to where it goes on (RFC 1035, 4.1.4).
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=0x3f => at += 1 + usize::from(length),
            0xc0.. => return message.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

fn type_of(kind: QueryType) -> u16 {
    match kind {
        QueryType::V4 => TYPE_A,
        QueryType::V6 => TYPE_AAAA,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Received, is_answer_to, parse_query};
    use proptest::prelude::*;

    /// A reply to the query: a CNAME and then addresses, as dnsmasq and unbound write them.
    fn reply(query: &[u8], records: &[(u16, u32, &[u8])]) -> Vec<u8> {
        let mut reply = query.to_vec();
        reply[2] |= 0x80;
        reply[7] = records.len() as u8;
        for (kind, ttl, content) in records {
            reply.extend([0xc0, 12]);
            reply.extend(kind.to_be_bytes());
            reply.extend([0, 1]);
            reply.extend(ttl.to_be_bytes());
            reply.extend((content.len() as u16).to_be_bytes());
            reply.extend(*content);
        }
        reply
    }

    #[test]
    fn a_lookup_is_a_query_and_its_reply_gives_addresses() {
        let query = build_lookup("Api.example.com.", QueryType::V4).unwrap();
        let Received::Question(question) = parse_query(&query) else {
            panic!("a question")
        };
        assert_eq!(
            (question.name.as_str(), question.kind),
            ("api.example.com", QueryType::V4)
        );
        let reply = reply(
            &query,
            &[
                (5, 300, b"\x03web\xc0\x10"),
                (1, 60, &[192, 0, 2, 1]),
                (28, 60, &[0; 16]),
                (1, 90, &[192, 0, 2, 2]),
            ],
        );
        assert!(is_answer_to(&query, &reply));
        let found = read_addresses(&reply, QueryType::V4).unwrap();
        assert_eq!(
            found.addresses,
            ["192.0.2.1".parse::<IpAddr>().unwrap(), "192.0.2.2".parse().unwrap()]
        );
        assert_eq!(found.ttl, Duration::from_secs(60));
    }

    #[test]
    fn what_is_no_address_says_why() {
        let query = build_lookup("api.example.com", QueryType::V6).unwrap();
        let with = |byte: usize, bits: u8| {
            let mut changed = reply(&query, &[]);
            changed[byte] |= bits;
            read_addresses(&changed, QueryType::V6)
        };
        assert_eq!(with(3, 3), Err(LookupError::UnknownName));
        assert_eq!(with(3, 2), Err(LookupError::Failed(2)));
        assert_eq!(with(2, 2), Err(LookupError::Truncated));
        assert_eq!(with(7, 1), Err(LookupError::Malformed));
        assert!(with(4, 0).unwrap().addresses.is_empty());
        // Also the other kind's length: found by fuzzing.
        for content in [&[1, 2, 3][..], &[192, 0, 2, 1]] {
            let odd = reply(&query, &[(28, 1, content)]);
            assert_eq!(read_addresses(&odd, QueryType::V6), Err(LookupError::Malformed));
        }
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        let long = "a".repeat(64);
        let longer = vec!["a".repeat(60); 5].join(".");
        for name in ["", ".", "a..b", long.as_str(), longer.as_str(), "grüße.example"] {
            assert!(
                matches!(build_lookup(name, QueryType::V4), Err(LookupError::NotAName(_))),
                "{name:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_addresses_or_an_error(reply in proptest::collection::vec(any::<u8>(), 0..600)) {
            for kind in [QueryType::V4, QueryType::V6] {
                if let Ok(found) = read_addresses(&reply, kind) {
                    prop_assert!(found.addresses.len() <= reply.len() / 4);
                }
            }
        }
    }
}
