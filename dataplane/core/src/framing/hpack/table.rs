//! The two tables that header fields are looked up in (RFC 7541 section 2.3).

use std::collections::VecDeque;

use super::HpackError;

/// The dynamic table's bound in accounted bytes: HTTP/2's default (RFC 9113 section 6.5.2). We never announce another
/// one: it is what a peer may use before it has seen our SETTINGS anyway, and 4 KiB hold the few fields of HBONE heads.
pub(super) const DYNAMIC_TABLE_BYTES: usize = 4096;

/// What an entry costs beyond its text (RFC 7541 section 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// RFC 7541 appendix A; the first entry has index 1.
#[rustfmt::skip]
pub(super) const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

/// Name and value of one entry in one allocation.
#[derive(Debug)]
struct Entry {
    text: Box<[u8]>,
    name_length: usize,
}

impl Entry {
    fn size(&self) -> usize {
        self.text.len() + ENTRY_OVERHEAD
    }
}

/// The entries that the peer's encoder asked us to remember, newest first, bounded by [`DYNAMIC_TABLE_BYTES`].
#[derive(Debug)]
pub(super) struct DynamicTable {
    entries: VecDeque<Entry>,
    size: usize,
    capacity: usize,
}

impl DynamicTable {
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            capacity: DYNAMIC_TABLE_BYTES,
        }
    }

    /// Name and value at an HPACK index, whichever table it points into.
    pub(super) fn get(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        let index = index.checked_sub(1).ok_or(HpackError::Index)?;
        if let Some((name, value)) = STATIC_TABLE.get(index) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(index - STATIC_TABLE.len()).ok_or(HpackError::Index)?;
        Ok(entry.text.split_at(entry.name_length))
    }

    /// Insert an entry, evicting old ones; one that is larger than the table just empties it (RFC 7541 section 4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let entry = Entry {
            text: [name, value].concat().into_boxed_slice(),
            name_length: name.len(),
        };
        let size = entry.size();
        self.evict_to(self.capacity.saturating_sub(size));
        if size <= self.capacity {
            self.size += size;
            self.entries.push_front(entry);
        }
    }

    /// Follow the encoder's choice of a capacity.
    pub(super) fn resize(&mut self, capacity: usize) -> Result<(), HpackError> {
        if capacity > DYNAMIC_TABLE_BYTES {
            return Err(HpackError::TableSize);
        }
        self.capacity = capacity;
        self.evict_to(capacity);
        Ok(())
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.entries.pop_back() else { break };
            self.size -= oldest.size();
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }
}
