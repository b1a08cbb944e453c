//! The versions of accepted resources, echoed to the controller after a reconnect (facts/ztunnel.md section 4.4).
//!
//! A version lives in the value that it is the version of: a map by name beside 100,000 values would take 5 MiB. Only what
//! does not fit that is in a map.

use std::{collections::BTreeMap, sync::Arc};

/// How controllers that hash their resources write a version: this many lower-case hexadecimal digits.
const HASH_DIGITS: usize = 16;

/// The version of one value; empty when it is kept elsewhere. 16 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Hash(u64),
    Text(Arc<str>),
}

impl Default for Version {
    fn default() -> Self {
        Self::Hash(0)
    }
}

impl Version {
    /// `intern` keeps equal texts once: controllers that do not hash give one version to all that they send together.
    pub(super) fn new(text: &str, intern: impl FnOnce(&str) -> Arc<str>) -> Self {
        let is_hash = text.len() == HASH_DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match u64::from_str_radix(text, 16) {
            Ok(hash) if is_hash && hash != 0 => Self::Hash(hash),
            _ => Self::Text(intern(text)),
        }
    }

    /// As the controller wrote it, unless it is kept elsewhere.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Hash(0) => None,
            Self::Hash(hash) => Some(format!("{hash:0HASH_DIGITS$x}")),
            Self::Text(text) => Some(text.to_string()),
        }
    }
}

/// Versions by resource name: of policies, and of what has another name than its key, or another version than the value
/// that it did not change.
#[derive(Debug, Default)]
pub(super) struct Versions(BTreeMap<Arc<str>, Box<str>>);

impl Versions {
    pub(super) fn insert(&mut self, name: &str, version: &str) {
        self.0.insert(name.into(), version.into());
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().map(|(name, version)| (&**name, version.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_version_costs_16_bytes() {
        assert_eq!(size_of::<Version>(), 16);
    }

    proptest! {
        #[test]
        fn a_version_comes_back_as_it_was(text in "[0-9a-f]{16}|0{15}[01]|[0-9A-F]{16}|.{0,40}") {
            let kept = Version::new(&text, |text| text.into());
            prop_assert_eq!(kept.text(), Some(text));
        }
    }
}
