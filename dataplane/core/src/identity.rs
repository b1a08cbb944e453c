//! SPIFFE identities as the mesh writes them: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
//!
//! The same rule as `mesh/identity.py`: five segments exactly, no empty part, only the characters of SPIFFE-ID 1.0.

use std::{fmt, str::FromStr, sync::Arc};

/// SPIFFE-ID 1.0, section 2.3: implementations support URIs of up to 2048 bytes.
pub const MAX_IDENTITY_BYTES: usize = 2048;
/// What an empty trust domain in a resource stands for (facts/ztunnel.md section 0, 30).
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// What an empty service account in a resource stands for.
pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";

const SCHEME: &str = "spiffe://";

/// Who a workload is. One shared text: cloning is counting, comparing is comparing URIs, and no part is ever copied.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    uri: Arc<str>,
    /// Where the parts end. 16 bits are enough for [`MAX_IDENTITY_BYTES`].
    trust_domain_end: u16,
    namespace_end: u16,
}

/// A text, or three parts, that are no identity of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Longer than [`MAX_IDENTITY_BYTES`].
    #[error("an identity of {0} bytes: at most {MAX_IDENTITY_BYTES} are allowed")]
    TooLong(usize),
    /// Another scheme, or other segments.
    #[error("{0:?} is no identity of the mesh: expected spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
    Form(String),
    /// A part is empty or has a character that SPIFFE-ID 1.0 (sections 2.1, 2.2) excludes.
    #[error("{value:?} cannot be the {part} of an identity: letters, digits, '.', '-', '_' only")]
    Part {
        /// Which of the three.
        part: &'static str,
        /// What it was.
        value: String,
    },
}

impl Identity {
    /// Make the identity of these three parts.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, IdentityError> {
        check_part("trust domain", trust_domain, |b| !b.is_ascii_uppercase())?;
        check_part("namespace", namespace, |_| true)?;
        check_part("service account", service_account, |_| true)?;
        let uri = format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}");
        if uri.len() > MAX_IDENTITY_BYTES {
            return Err(IdentityError::TooLong(uri.len()));
        }
        let trust_domain_end = SCHEME.len() + trust_domain.len();
        let namespace_end = trust_domain_end + "/ns/".len() + namespace.len();
        Ok(Self {
            uri: uri.into(),
            trust_domain_end: trust_domain_end as u16,
            namespace_end: namespace_end as u16,
        })
    }

    /// Parse `uri` exactly: no other scheme, no empty or extra segment, no trailing slash, no percent-encoding.
    pub fn parse(uri: &str) -> Result<Self, IdentityError> {
        if uri.len() > MAX_IDENTITY_BYTES {
            return Err(IdentityError::TooLong(uri.len()));
        }
        let path = uri
            .strip_prefix(SCHEME)
            .ok_or_else(|| IdentityError::Form(uri.to_owned()))?;
        let mut parts = path.split('/');
        match std::array::from_fn(|_| parts.next()) {
            [
                Some(trust_domain),
                Some("ns"),
                Some(namespace),
                Some("sa"),
                Some(service_account),
                None,
            ] => Self::new(trust_domain, namespace, service_account),
            _ => Err(IdentityError::Form(uri.to_owned())),
        }
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.uri[SCHEME.len()..self.trust_domain_end as usize]
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.uri[self.trust_domain_end as usize + "/ns/".len()..self.namespace_end as usize]
    }

    /// The service account's name.
    pub fn service_account(&self) -> &str {
        &self.uri[self.namespace_end as usize + "/sa/".len()..]
    }

    /// The whole URI.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The identity as policies write it: the URI without `spiffe://`.
    pub fn principal(&self) -> &str {
        &self.uri[SCHEME.len()..]
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, Self::Err> {
        Self::parse(uri)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.uri)
    }
}

fn check_part(part: &'static str, value: &str, also: impl Fn(u8) -> bool) -> Result<(), IdentityError> {
    let is_allowed = |b: u8| (b.is_ascii_alphanumeric() || b".-_".contains(&b)) && also(b);
    if value.is_empty() || value == "." || value == ".." || !value.bytes().all(is_allowed) {
        return Err(IdentityError::Part {
            part,
            value: value.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_come_back_from_the_uri() {
        let identity = Identity::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        assert_eq!(identity, Identity::new("cluster.local", "shop", "web").unwrap());
        assert_eq!(
            (
                identity.trust_domain(),
                identity.namespace(),
                identity.service_account()
            ),
            ("cluster.local", "shop", "web")
        );
        assert_eq!(identity.principal(), "cluster.local/ns/shop/sa/web");
        assert_eq!(identity.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
    }

    #[test]
    fn whatever_is_not_exactly_the_form_is_refused() {
        for (id, uri) in [
            ("empty", ""),
            ("other scheme", "https://td/ns/a/sa/b"),
            ("upper-case scheme", "SPIFFE://td/ns/a/sa/b"),
            ("trailing slash", "spiffe://td/ns/a/sa/b/"),
            ("extra segment", "spiffe://td/ns/a/sa/b/c"),
            ("missing segment", "spiffe://td/ns/a/sa"),
            ("other keyword", "spiffe://td/namespace/a/sa/b"),
            ("keywords swapped", "spiffe://td/sa/a/ns/b"),
            ("empty trust domain", "spiffe:///ns/a/sa/b"),
            ("empty namespace", "spiffe://td/ns//sa/b"),
            ("empty service account", "spiffe://td/ns/a/sa/"),
            ("percent-encoding", "spiffe://td/ns/a%2Fb/sa/c"),
            ("dot segment", "spiffe://td/ns/../sa/c"),
            ("upper-case trust domain", "spiffe://TD/ns/a/sa/c"),
            ("query", "spiffe://td/ns/a/sa/c?x=y"),
            ("leading space", " spiffe://td/ns/a/sa/c"),
        ] {
            assert!(Identity::parse(uri).is_err(), "{id}");
        }
        let long = format!("spiffe://td/ns/a/sa/{}", "b".repeat(MAX_IDENTITY_BYTES));
        assert_eq!(Identity::parse(&long), Err(IdentityError::TooLong(long.len())));
    }

    proptest! {
        #[test]
        fn parsing_is_the_inverse_of_display(td in "[a-z0-9._-]{2,20}x", ns in "[a-zA-Z0-9._-]{2,20}x", sa in "[a-zA-Z0-9._-]{2,20}x") {
            let identity = Identity::new(&td, &ns, &sa).unwrap();
            prop_assert_eq!(Identity::parse(identity.uri()).unwrap(), identity);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*", tail in "spiffe://.*") {
            let _ = Identity::parse(&text);
            let _ = Identity::parse(&tail);
        }
    }
}
