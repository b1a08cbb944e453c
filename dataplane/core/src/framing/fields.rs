//! The fields of one header list: which of them mean something, and whether the list is well-formed
//! (RFC 9113 sections 8.2, 8.3 and 8.5).

use super::types::{MalformedRequest, RequestHead};

/// Tells a client of ours which policy refused it. Others look at the status only (facts/ztunnel.md section 1.6).
pub const REFUSAL_HEADER: &str = "x-ambit-refusal";

/// What a field costs beyond its text in a list's size (RFC 9113 section 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// Fields about a connection between two HTTP/1 neighbours, which HTTP/2 forbids (RFC 9113 section 8.2.2). `te` may
/// say `trailers`.
const CONNECTION_SPECIFIC: [&[u8]; 5] = [
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"transfer-encoding",
    b"upgrade",
];

/// Collects a header list, field by field, keeping only what tunnels use.
#[derive(Debug)]
pub(super) struct Fields {
    room: usize,
    is_too_large: bool,
    /// Pseudo-header fields must come first.
    has_regular: bool,
    problem: Option<MalformedRequest>,
    is_connect: Option<bool>,
    has_authority: bool,
    status: Option<u16>,
    has_illegible_baggage: bool,
    refusal: Option<String>,
    head: RequestHead,
}

/// What an answer to a CONNECT says.
pub(super) struct ResponseHead {
    pub(super) status: u16,
    pub(super) baggage: Option<String>,
    pub(super) refusal: Option<String>,
}

impl Fields {
    /// Take at most `limit` bytes of decoded fields.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            room: limit,
            is_too_large: false,
            has_regular: false,
            problem: None,
            is_connect: None,
            has_authority: false,
            status: None,
            has_illegible_baggage: false,
            refusal: None,
            head: RequestHead::default(),
        }
    }

    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        match self.room.checked_sub(name.len() + value.len() + FIELD_OVERHEAD) {
            Some(room) if !self.is_too_large => self.room = room,
            _ => {
                self.is_too_large = true;
                return;
            }
        }
        let result = match name.strip_prefix(b":") {
            Some(name) => self.add_pseudo(name, value),
            None => self.add_regular(name, value),
        };
        if let Err(problem) = result {
            self.problem.get_or_insert(problem);
        }
    }

    fn add_pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), MalformedRequest> {
        let is_repeated = match name {
            b"method" => self.is_connect.replace(value == b"CONNECT").is_some(),
            b"authority" => {
                self.head.authority = legible(value).ok_or(MalformedRequest::MissingAuthority)?;
                std::mem::replace(&mut self.has_authority, true)
            }
            b"status" => {
                let status = parse_status(value).ok_or(MalformedRequest::ForbiddenField)?;
                self.status.replace(status).is_some()
            }
            _ => return Err(MalformedRequest::ForbiddenPseudoField),
        };
        if is_repeated || self.has_regular {
            Err(MalformedRequest::ForbiddenField)
        } else {
            Ok(())
        }
    }

    fn add_regular(&mut self, name: &[u8], value: &[u8]) -> Result<(), MalformedRequest> {
        self.has_regular = true;
        let is_te = name == b"te" && value != b"trailers";
        if !is_name(name) || !is_value(value) || CONNECTION_SPECIFIC.contains(&name) || is_te {
            return Err(MalformedRequest::ForbiddenField);
        }
        match name {
            b"baggage" => self.add_baggage(value),
            b"forwarded" => keep_first(&mut self.head.forwarded, value),
            b"traceparent" => keep_first(&mut self.head.traceparent, value),
            name if name == REFUSAL_HEADER.as_bytes() => keep_first(&mut self.refusal, value),
            b"x-forwarded-network" => keep_first(&mut self.head.x_forwarded_network, value),
            _ => {}
        }
        Ok(())
    }

    fn add_baggage(&mut self, value: &[u8]) {
        match (legible(value), &mut self.head.baggage) {
            (None, _) => self.has_illegible_baggage = true,
            (Some(line), Some(joined)) => {
                joined.push(',');
                joined.push_str(&line);
            }
            (Some(line), none) => *none = Some(line),
        }
    }

    pub(super) fn into_request(mut self) -> Result<RequestHead, MalformedRequest> {
        if self.is_too_large {
            return Err(MalformedRequest::HeadTooLarge);
        }
        if self.is_connect != Some(true) {
            return Err(MalformedRequest::NotConnect);
        }
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        if self.status.is_some() {
            return Err(MalformedRequest::ForbiddenPseudoField);
        }
        if self.head.authority.is_empty() {
            return Err(MalformedRequest::MissingAuthority);
        }
        self.head.baggage = self.legible_baggage();
        Ok(self.head)
    }

    /// `None` if the list is no response.
    pub(super) fn into_response(mut self) -> Option<ResponseHead> {
        let is_sound = !self.is_too_large && self.problem.is_none();
        let is_request = self.is_connect.is_some() || self.has_authority;
        let status = self.status.filter(|_| is_sound && !is_request)?;
        Some(ResponseHead {
            status,
            baggage: self.legible_baggage(),
            refusal: self.refusal,
        })
    }

    /// One illegible line makes all of the baggage worthless (facts/ztunnel.md section 1.5).
    fn legible_baggage(&mut self) -> Option<String> {
        self.head.baggage.take().filter(|_| !self.has_illegible_baggage)
    }
}

fn keep_first(target: &mut Option<String>, value: &[u8]) {
    if target.is_none() {
        *target = legible(value);
    }
}

/// Text of visible ASCII, spaces and tabs.
fn legible(value: &[u8]) -> Option<String> {
    let is_legible = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    std::str::from_utf8(value)
        .ok()
        .filter(|_| is_legible)
        .map(str::to_owned)
}

/// Three digits, the first of them not 0 (RFC 9110 section 15).
fn parse_status(value: &[u8]) -> Option<u16> {
    let &[b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] = value else {
        return None;
    };
    Some(
        value
            .iter()
            .fold(0, |status, digit| status * 10 + u16::from(digit - b'0')),
    )
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| matches!(byte, b'!'..=b'~') && *byte != b':' && !byte.is_ascii_uppercase())
}

fn is_value(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) && !is_blank(value.first()) && !is_blank(value.last())
}
