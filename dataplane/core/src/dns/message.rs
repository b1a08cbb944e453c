//! The bytes of DNS: as much of RFC 1035 and RFC 6891 as a question of ours and its answer need.

use std::net::IpAddr;
use std::ops::Range;

/// RFC 1035, 4.1.1.
pub const HEADER_BYTES: usize = 12;
/// More addresses than this help no client; an answer over TCP stays far below 64 KiB.
pub const ADDRESS_LIMIT: usize = 1000;
/// What a client without EDNS takes over UDP (RFC 1035, 4.2.1), and the least that EDNS may announce (RFC 6891, 6.2.3).
const UDP_BYTES: usize = 512;
/// How we answer a larger announcement over UDP: what passes unfragmented nearly everywhere (dnsflagday.net, 2020).
const UDP_BYTES_MAX: usize = 1232;
/// How long clients may keep what we say (section 7).
const TTL_SECONDS: u32 = 30;
/// RFC 1035, 3.1.
pub(super) const NAME_BYTES_MAX: usize = 255;

pub(super) const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
pub(super) const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
pub(super) const CLASS_IN: u16 = 1;

const IS_RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const AUTHORITATIVE: u8 = 0x04;
pub(super) const TRUNCATED: u8 = 0x02;
pub(super) const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
const SERVER_FAILURE: u8 = 2;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryType {
    /// A
    V4,
    /// AAAA
    V6,
}

impl QueryType {
    /// Whether `ip` is such an address.
    pub fn fits(self, ip: &IpAddr) -> bool {
        ip.is_ipv6() == (self == Self::V6)
    }
}

/// A message from a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Perhaps ours to answer.
    Question(Query),
    /// Not ours: forward it.
    Other,
    /// No query at all: shorter than a header, or a response. Answering those could go on for ever.
    Ignored,
}

/// A question for addresses.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    /// In small letters, without the last dot.
    pub name: String,
    /// What is wanted.
    pub kind: QueryType,
    /// Where the question stands in the message.
    question: Range<usize>,
    edns: Option<Edns>,
}

/// What a client says of itself (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edns {
    payload_bytes: u16,
    dnssec_ok: bool,
}

/// Read what a client sent. What cannot be read exactly is not ours: the name servers judge it.
pub fn parse_query(message: &[u8]) -> Received {
    let Some(header) = message.get(..HEADER_BYTES) else {
        return Received::Ignored;
    };
    if header[2] & IS_RESPONSE != 0 {
        return Received::Ignored;
    }
    read_question(message).map_or(Received::Other, Received::Question)
}

fn read_question(message: &[u8]) -> Option<Query> {
    let [questions, answers, authorities, additionals] = counts(message)?;
    if message[2] & OPCODE != 0 || (questions, answers, authorities) != (1, 0, 0) {
        return None;
    }
    let (name, at) = read_name(message, HEADER_BYTES)?;
    let kind = match (number(message, at)?, number(message, at + 2)?) {
        (TYPE_A, CLASS_IN) => QueryType::V4,
        (TYPE_AAAA, CLASS_IN) => QueryType::V6,
        _ => return None,
    };
    let end = at + 4;
    let edns = match additionals {
        0 if end == message.len() => None,
        1 => Some(read_edns(message, end)?),
        // A signature, for example, which only the name server can check.
        _ => return None,
    };
    Some(Query {
        name,
        kind,
        question: HEADER_BYTES..end,
        edns,
    })
}

/// An OPT record that is the message's end, of the only version there is.
fn read_edns(message: &[u8], at: usize) -> Option<Edns> {
    let record = message.get(at..)?;
    let (&root, fixed) = record.split_first()?;
    let is_opt = root == 0 && number(fixed, 0)? == TYPE_OPT;
    let version = *fixed.get(5)?;
    let length = usize::from(number(fixed, 8)?);
    (is_opt && version == 0 && fixed.len() == 10 + length).then_some(())?;
    Some(Edns {
        payload_bytes: number(fixed, 2)?,
        dnssec_ok: fixed[6] & 0x80 != 0,
    })
}

/// A name without compression, and where it ends. Labels of a service's name are letters, digits, `-`, `_` and `*`.
fn read_name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let start = at;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return (!name.is_empty()).then_some((name, at));
        }
        let label = message.get(at..at + length).filter(|_| length < 64)?;
        at += length;
        if at - start >= NAME_BYTES_MAX {
            return None;
        }
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'*');
        if !label.iter().all(is_plain) {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
    }
}

/// The id of a message that has at least a header.
pub fn id_of(message: &[u8]) -> u16 {
    number(message, 0).unwrap_or_default()
}

/// The same message with another id.
pub fn with_id(message: &[u8], id: u16) -> Vec<u8> {
    let mut changed = message.to_vec();
    if let Some(place) = changed.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
    changed
}

/// Whether `reply`, which came from where `query` went, answers it: same id, opcode and question. A server that could not
/// read the question, or was sent a change (RFC 2136), may leave it out.
pub fn is_answer_to(query: &[u8], reply: &[u8]) -> bool {
    let (Some(asked), Some(answered)) = (counts(query), counts(reply)) else {
        return false;
    };
    let is_same = query[..2] == reply[..2] && reply[2] & IS_RESPONSE != 0 && (query[2] ^ reply[2]) & OPCODE == 0;
    if !is_same {
        return false;
    }
    let may_be_left_out = reply[3] & 0x0f != 0 || query[2] & OPCODE != 0;
    if answered[0] == 0 && (may_be_left_out || asked[0] == 0) {
        return true;
    }
    let Some(question) = question_bytes(query) else {
        // It has none that could be compared; its id and the server's address have to do.
        return true;
    };
    let echoed = reply.get(HEADER_BYTES..HEADER_BYTES + question.len());
    answered[0] == asked[0] && echoed.is_some_and(|echoed| echoed.eq_ignore_ascii_case(question))
}

/// The first question: any name, type and class.
fn question_bytes(message: &[u8]) -> Option<&[u8]> {
    let [questions, ..] = counts(message)?;
    let mut at = HEADER_BYTES;
    if questions == 0 {
        return None;
    }
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1 + length;
        if length >= 64 || at - HEADER_BYTES > NAME_BYTES_MAX {
            return None;
        }
        if length == 0 {
            return message.get(HEADER_BYTES..at + 4);
        }
    }
}

/// What a query asks for, for labels: a few well-known types, so that no client can make series.
pub fn type_label(message: &[u8]) -> &'static str {
    let kind = question_bytes(message).and_then(|question| number(question, question.len() - 4));
    match kind {
        Some(1) => "A",
        Some(2) => "NS",
        Some(5) => "CNAME",
        Some(6) => "SOA",
        Some(12) => "PTR",
        Some(15) => "MX",
        Some(16) => "TXT",
        Some(28) => "AAAA",
        Some(33) => "SRV",
        Some(64) => "SVCB",
        Some(65) => "HTTPS",
        Some(255) => "ANY",
        _ => "other",
    }
}

/// The answer to `query`, which `message` holds: `addresses` under the name that was asked for, or under `canonical` and a
/// CNAME that leads there. `over_udp`: cut to what the client takes, and marked so.
pub fn build_reply(
    message: &[u8],
    query: &Query,
    canonical: Option<&str>,
    addresses: &[IpAddr],
    over_udp: bool,
) -> Vec<u8> {
    let room = query.edns.map_or(UDP_BYTES, |edns| {
        usize::from(edns.payload_bytes).clamp(UDP_BYTES, UDP_BYTES_MAX)
    });
    let room = if over_udp { room } else { usize::from(u16::MAX) };
    let room = room - query.edns.map_or(0, |_| 11);
    let mut reply = begin_reply(message, &message[query.question.clone()]);
    reply[2] |= AUTHORITATIVE;
    let mut records: u16 = 0;
    let mut owner = HEADER_BYTES;
    if let Some(canonical) = canonical {
        append_head(&mut reply, owner, TYPE_CNAME);
        let length = canonical.len() + 2;
        reply.extend((u16::try_from(length).unwrap_or(u16::MAX)).to_be_bytes());
        owner = reply.len();
        append_name(&mut reply, canonical);
        records += 1;
    }
    for address in addresses.iter().take(ADDRESS_LIMIT) {
        let start = reply.len();
        append_address(&mut reply, owner, *address);
        if reply.len() > room {
            reply.truncate(start);
            reply[2] |= TRUNCATED;
            break;
        }
        records += 1;
    }
    reply[6..8].copy_from_slice(&records.to_be_bytes());
    if let Some(edns) = query.edns {
        append_edns(&mut reply, edns);
    }
    reply
}

/// SERVFAIL, with the question as far as there is one.
pub fn build_failure(message: &[u8]) -> Vec<u8> {
    let mut reply = begin_reply(message, question_bytes(message).unwrap_or_default());
    reply[3] |= SERVER_FAILURE;
    reply
}

fn begin_reply(message: &[u8], question: &[u8]) -> Vec<u8> {
    let mut reply = vec![0; HEADER_BYTES];
    reply[..2].copy_from_slice(&id_of(message).to_be_bytes());
    reply[2] = IS_RESPONSE | (message.get(2).copied().unwrap_or_default() & (OPCODE | RECURSION_DESIRED));
    reply[3] = RECURSION_AVAILABLE;
    reply[5] = u8::from(!question.is_empty());
    reply.extend(question);
    reply
}

/// Name (a pointer to `owner`), type, class and TTL.
fn append_head(reply: &mut Vec<u8>, owner: usize, kind: u16) {
    // It stands within the first 600 bytes: question and CNAME.
    reply.extend((0xc000 | u16::try_from(owner).unwrap_or_default()).to_be_bytes());
    reply.extend(kind.to_be_bytes());
    reply.extend(CLASS_IN.to_be_bytes());
    reply.extend(TTL_SECONDS.to_be_bytes());
}

fn append_address(reply: &mut Vec<u8>, owner: usize, address: IpAddr) {
    match address {
        IpAddr::V4(ip) => {
            append_head(reply, owner, TYPE_A);
            reply.extend([0, 4]);
            reply.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            append_head(reply, owner, TYPE_AAAA);
            reply.extend([0, 16]);
            reply.extend(ip.octets());
        }
    }
}

/// `name` is part of one that was read, so each of its labels has 1 to 63 bytes.
pub(super) fn append_name(reply: &mut Vec<u8>, name: &str) {
    for label in name.split('.') {
        reply.push(u8::try_from(label.len()).unwrap_or_default());
        reply.extend(label.as_bytes());
    }
    reply.push(0);
}

fn append_edns(reply: &mut Vec<u8>, edns: Edns) {
    reply.push(0);
    reply.extend(TYPE_OPT.to_be_bytes());
    reply.extend(edns.payload_bytes.max(512).to_be_bytes());
    reply.extend([0, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    reply[11] = 1;
}

/// How many questions, answers, authorities and additional records the header says there are.
pub(super) fn counts(message: &[u8]) -> Option<[u16; 4]> {
    Some([
        number(message, 4)?,
        number(message, 6)?,
        number(message, 8)?,
        number(message, 10)?,
    ])
}

pub(super) fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}
