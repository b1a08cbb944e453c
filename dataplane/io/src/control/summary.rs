//! All names and versions that a client has, summed up in 128 bits (docs/decisions/0014).

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};

/// What controllers that understand a summary call themselves.
pub(super) const CONTROL_PLANE: &str = "ambit";
/// Stands among the versions in the place of all of them.
const NAME: &str = "ambit.dev/summary";

/// The summary as it stands among the versions: the sum of the first 16 bytes of SHA-256 of `name NUL version`, modulo 2^128,
/// in hexadecimal digits.
pub fn as_versions<'a>(versions: impl Iterator<Item = (&'a str, String)>) -> HashMap<String, String> {
    let sum = versions.fold(0u128, |sum, (name, version)| {
        sum.wrapping_add(sum_up_one(name, &version))
    });
    HashMap::from([(NAME.to_owned(), format!("{sum:032x}"))])
}

fn sum_up_one(name: &str, version: &str) -> u128 {
    let text = [name.as_bytes(), b"\0", version.as_bytes()].concat();
    let hash = digest(&SHA256, &text);
    hash.as_ref()[..16]
        .iter()
        .fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same texts as in tests/unit/controller/test_summaries.py.
    #[test]
    fn it_is_what_controllers_make_of_the_same() {
        let versions = [("demo/web", "1"), ("Kubernetes//Pod/demo/web-1", "0123456789abcdef")];
        let found = as_versions(versions.iter().map(|(name, version)| (*name, (*version).to_owned())));
        assert_eq!(found["ambit.dev/summary"], "1d2eb6a8596b4a3b8d7dfdcd2eff0c83");
        assert_eq!(as_versions(std::iter::empty())["ambit.dev/summary"], "0".repeat(32));
    }
}
