//! The versions of accepted resources, echoed to the controller after a reconnect (facts/ztunnel.md section 4.4).

use std::{collections::BTreeMap, sync::Arc};

/// A version fits here without an allocation: hashes in hexadecimal or decimal have at most 20 characters.
const INLINE_BYTES: usize = 22;

/// Version by resource name. Some 60 bytes each, as the names are shared with the resources.
#[derive(Debug, Default)]
pub(super) struct Versions(BTreeMap<Arc<str>, ShortText>);

impl Versions {
    pub(super) fn insert(&mut self, name: Arc<str>, version: &str) {
        self.0.insert(name, ShortText::new(version));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, version)| (&**name, version.as_str()))
    }
}

/// A text of 24 bytes, or a longer one behind a pointer.
#[derive(Debug)]
enum ShortText {
    Inline(u8, [u8; INLINE_BYTES]),
    Heap(Box<str>),
}

impl ShortText {
    fn new(text: &str) -> Self {
        let mut bytes = [0; INLINE_BYTES];
        match bytes.get_mut(..text.len()) {
            Some(head) => {
                head.copy_from_slice(text.as_bytes());
                Self::Inline(text.len() as u8, bytes)
            }
            None => Self::Heap(text.into()),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            // Copied from a str of exactly this length.
            Self::Inline(length, bytes) => std::str::from_utf8(&bytes[..usize::from(*length)]).unwrap_or_default(),
            Self::Heap(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_version_costs_24_bytes() {
        assert_eq!(size_of::<ShortText>(), 24);
    }

    proptest! {
        #[test]
        fn a_version_comes_back_as_it_was(text in ".{0,40}") {
            let kept = ShortText::new(&text);
            prop_assert_eq!(kept.as_str(), &text);
        }
    }
}
