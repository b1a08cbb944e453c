//! Which certificates their issuers have taken back: the file of revocation lists (ztunnel.md 1.4).
//!
//! A list counts once its signature verifies under an issuer that we trust: a root that came with a certificate of ours, or
//! an intermediate under one. What comes out is a set of links, hashes of issuer and serial number; a tunnel keeps those
//! of its peer's chain, 16 bytes each, and none when no file is set. Whether a list has expired does not matter: a
//! certificate that was taken back stays so.
//!
//! Nothing fails open. A file that cannot be read at the start refuses every handshake until it can, where stock ztunnel goes
//! on without (docs/decisions/0007). One that is there and becomes unreadable, or vanishes, leaves what was read before in
//! force. A file that is not there yet revokes nothing, because that is how the setting is shipped.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use tokio::sync::watch;
use x509_parser::prelude::{CertificateRevocationList, FromDer, ReasonCode, X509Certificate};

use super::der;
use crate::logging::{self, Fields, Level};

/// How often the file is looked at. One `stat` costs a microsecond, and unlike a watch it follows Kubernetes' chain of
/// symbolic links by itself. A change is taken when two looks in a row agree, so that a file is not read half-written.
const LOOK_INTERVAL: Duration = Duration::from_millis(400);
/// Some 500,000 revoked certificates.
const MAX_FILE: u64 = 32 << 20;
/// Issuers whose lists can count. A mesh has one or two, and a few intermediates.
const MAX_ISSUERS: usize = 256;

/// One certificate, as lists name it: a hash of its issuer's name and its serial number.
pub(crate) type Link = u128;

/// Why a certificate is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RevocationRefusal {
    /// Its issuer took it, or one of the authorities above it, back.
    #[error("the certificate is revoked")]
    Revoked,
    /// Whether it did cannot be known.
    #[error("no certificate is accepted, because the revocation lists cannot be used: {0}")]
    ListsUnusable(Arc<str>),
}

/// The revocation lists in force, and the issuers who may have written them.
#[derive(Debug)]
pub(crate) struct Revocations {
    path: Option<PathBuf>,
    sources: Mutex<Sources>,
    current: ArcSwap<InForce>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Sources {
    lists: Vec<CertificateRevocationListDer<'static>>,
    issuers: Vec<Issuer>,
}

#[derive(Debug, Default)]
struct InForce {
    revoked: HashSet<Link>,
    defect: Option<Arc<str>>,
}

/// A key that may sign lists and certificates under a name.
#[derive(Debug, PartialEq, Eq)]
struct Issuer {
    name: Vec<u8>,
    key: Vec<u8>,
}

/// Which file a look found: it is another one when any of these differs.
type Look = Option<(u64, u64, i64, i64, u64)>;

impl Revocations {
    /// Read the file at `path`, if one is set.
    pub(crate) fn new(path: Option<PathBuf>) -> Arc<Self> {
        let revocations = Self {
            path,
            sources: Mutex::default(),
            current: ArcSwap::default(),
            version: watch::Sender::new(0),
        };
        if let Err(why) = revocations.reload() {
            warn("revocation lists cannot be used; no certificate is accepted", &why);
            revocations.current.store(Arc::new(InForce {
                defect: Some(Arc::from(why)),
                ..InForce::default()
            }));
        }
        Arc::new(revocations)
    }

    /// Tells of every change of what is revoked.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Read the file again whenever it changes, for ever.
    pub(crate) async fn watch(&self) {
        let Some(path) = &self.path else { return };
        let mut read = look(path);
        let mut last = read;
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let seen = look(path);
            if seen == last && seen != read {
                read = seen;
                match self.reload() {
                    Ok(true) => self.note_reload(),
                    Ok(false) => {}
                    Err(why) => warn(
                        "revocation lists cannot be read; what was read before stays in force",
                        &why,
                    ),
                }
            }
            last = seen;
        }
    }

    fn note_reload(&self) {
        let fields = Fields::default().number("revoked", self.current.load().revoked.len() as u64);
        logging::write(Level::Info, "revocation", "revocation lists read", &fields);
    }

    /// Read the file; returns whether it is there. One that is not changes nothing.
    fn reload(&self) -> Result<bool, String> {
        let Some(path) = &self.path else { return Ok(false) };
        let Some(lists) = read_lists(path)? else {
            return Ok(false);
        };
        let mut sources = self.lock();
        sources.lists = lists;
        self.publish(&sources);
        Ok(true)
    }

    fn publish(&self, sources: &Sources) {
        let revoked = sources
            .lists
            .iter()
            .flat_map(|list| links_of_list(list, &sources.issuers));
        self.current.store(Arc::new(InForce {
            revoked: revoked.collect(),
            defect: None,
        }));
        self.version.send_modify(|version| *version += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Trust `roots` to say what is revoked.
    pub(crate) fn learn_roots(&self, roots: &[CertificateDer<'_>]) {
        if self.path.is_some() {
            self.learn(roots, |_, _| true);
        }
    }

    /// The same for authorities that a peer presented, as far as a known issuer vouches for them.
    fn learn_intermediates(&self, intermediates: &[CertificateDer<'_>]) {
        // Those nearest to the root come last and vouch for the others.
        for intermediate in intermediates.iter().rev() {
            self.learn(std::slice::from_ref(intermediate), |issuers, certificate| {
                let parent = certificate.issuer().as_raw();
                let signed = |issuer: &Issuer| issuer.name == parent && issuer.signed(certificate.as_raw());
                certificate.is_ca() && issuers.iter().any(signed)
            });
        }
    }

    fn learn(&self, certificates: &[CertificateDer<'_>], trusts: impl Fn(&[Issuer], &X509Certificate<'_>) -> bool) {
        let mut sources = self.lock();
        let known = sources.issuers.len();
        for certificate in certificates {
            let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
                continue;
            };
            let issuer = Issuer {
                name: parsed.subject().as_raw().to_vec(),
                key: parsed.public_key().raw.to_vec(),
            };
            if sources.issuers.contains(&issuer) || sources.issuers.len() >= MAX_ISSUERS {
                continue;
            }
            if trusts(&sources.issuers, &parsed) {
                sources.issuers.push(issuer);
            }
        }
        if sources.issuers.len() > known && self.current.load().defect.is_none() {
            self.publish(&sources);
        }
    }

    /// Judge a chain that leads to our roots.
    pub(crate) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), RevocationRefusal> {
        if self.path.is_none() {
            return Ok(());
        }
        self.learn_intermediates(intermediates);
        let current = self.current.load();
        if let Some(defect) = &current.defect {
            return Err(RevocationRefusal::ListsUnusable(Arc::clone(defect)));
        }
        let mut chain = std::iter::once(leaf).chain(intermediates);
        match chain.any(|certificate| link_of(certificate).is_none_or(|link| current.revoked.contains(&link))) {
            true => Err(RevocationRefusal::Revoked),
            false => Ok(()),
        }
    }

    /// What to keep of a peer's chain, to judge it again later; nothing where no file is set.
    pub(crate) fn links(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Box<[Link]> {
        match self.path {
            Some(_) => std::iter::once(leaf).chain(intermediates).filter_map(link_of).collect(),
            None => Box::default(),
        }
    }

    /// Whether one of a chain's certificates is revoked now.
    pub(crate) fn revokes(&self, links: &[Link]) -> bool {
        let current = self.current.load();
        links.iter().any(|link| current.revoked.contains(link))
    }
}

fn warn(message: &str, why: &str) {
    logging::write(
        Level::Warn,
        "revocation",
        message,
        &Fields::default().text("error", why),
    );
}

fn look(path: &Path) -> Look {
    let found = fs::metadata(path).ok()?;
    Some((
        found.dev(),
        found.ino(),
        found.mtime(),
        found.mtime_nsec(),
        found.size(),
    ))
}

/// The lists in the file at `path`; `None` when there is none.
fn read_lists(path: &Path) -> Result<Option<Vec<CertificateRevocationListDer<'static>>>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}; check CRL_PATH", path.display());
    let size = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    if size > MAX_FILE {
        return Err(failed(&format_args!("{size} bytes are more than {MAX_FILE}")));
    }
    let bytes = fs::read(path).map_err(|error| failed(&error))?;
    parse_lists(&bytes).map(Some).map_err(|why| failed(&why))
}

/// One list in DER, or any number in PEM; other PEM blocks are skipped.
fn parse_lists(bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let lists: Vec<CertificateRevocationListDer<'static>> = match bytes.first() {
        Some(&der::SEQUENCE) => vec![bytes.to_vec().into()],
        _ if bytes.trim_ascii().is_empty() => Vec::new(),
        _ if !bytes.windows(11).any(|window| window == b"-----BEGIN ") => {
            return Err("it is neither PEM nor DER".to_owned());
        }
        _ => CertificateRevocationListDer::pem_slice_iter(bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?,
    };
    for list in &lists {
        let is_whole = CertificateRevocationList::from_der(list).is_ok_and(|(rest, _)| rest.is_empty());
        if !is_whole || der::signed_parts(list).is_none() {
            return Err("a list in it does not parse".to_owned());
        }
    }
    Ok(lists)
}

/// What `list` revokes, if one of `issuers` signed it.
fn links_of_list(list: &CertificateRevocationListDer<'_>, issuers: &[Issuer]) -> Vec<Link> {
    let Ok((_, parsed)) = CertificateRevocationList::from_der(list) else {
        return Vec::new();
    };
    let name = parsed.issuer().as_raw();
    if !issuers.iter().any(|issuer| issuer.name == name && issuer.signed(list)) {
        return Vec::new();
    }
    let revoked = parsed
        .iter_revoked_certificates()
        .filter(|entry| !matches!(entry.reason_code(), Some((_, ReasonCode::RemoveFromCRL))));
    revoked.map(|entry| link(name, entry.raw_serial())).collect()
}

fn link_of(certificate: &CertificateDer<'_>) -> Option<Link> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(link(parsed.issuer().as_raw(), parsed.raw_serial()))
}

fn link(issuer: &[u8], serial: &[u8]) -> Link {
    let significant = serial.iter().position(|byte| *byte != 0).unwrap_or(serial.len());
    // A name is DER and says its own length, so that the two cannot run into each other.
    let hash = digest(&SHA256, &[issuer, &serial[significant..]].concat());
    let half = hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
    Link::from_be_bytes(*half)
}

impl Issuer {
    /// Whether `signed`, a certificate or a list, has a signature by this key.
    fn signed(&self, signed: &[u8]) -> bool {
        let WebPkiSupportedAlgorithms { all, .. } = super::algorithms();
        let (Some(parts), Some((algorithm, key))) = (der::signed_parts(signed), der::public_key(&self.key)) else {
            return false;
        };
        all.iter()
            .filter(|one| one.public_key_alg_id().as_ref() == algorithm)
            .filter(|one| one.signature_alg_id().as_ref() == parts.algorithm)
            .any(|one| one.verify_signature(key, parts.message, parts.signature).is_ok())
    }
}

#[cfg(test)]
mod tests;
