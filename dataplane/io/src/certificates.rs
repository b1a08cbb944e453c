//! The certificates that connections wait for. When to fetch one is decided in Python (`ztunnel.identities`); here is who
//! waits, what is valid, and the fetch itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ambit_core::identity::Identity;
use tokio::sync::{mpsc, watch};

use crate::tls::certificate::WorkloadCertificate;

/// How long a connection waits for its certificate before it is refused.
const WAIT: Duration = Duration::from_secs(10);

/// What is known of an identity's certificate.
#[derive(Clone)]
pub enum CertificateState {
    /// The first fetch is under way.
    Initializing,
    /// Usable until it expires.
    Available(Arc<WorkloadCertificate>),
    /// The last fetch failed, and there is no older certificate that is still valid.
    Unavailable(String),
}

/// Why a connection has no certificate.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CertificateMissing {
    /// The authority refused, or could not be reached.
    #[error("no certificate for {identity}: {why}; see the controller's log")]
    Unavailable {
        /// For whom.
        identity: Identity,
        /// The last attempt's error.
        why: String,
    },
    /// The authority has not answered yet.
    #[error("no certificate for {0} after 10 s; is the controller reachable?")]
    Timeout(Identity),
}

/// Who needs a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A pod of this node, which has no connection yet.
    Pod,
    /// A connection that waits.
    Traffic,
}

/// Something that Python's side has to know.
#[derive(Debug)]
pub enum CertificateEvent {
    /// A connection or a pod needs this identity's certificate, and there is none that is valid.
    Wanted(Identity, Need),
    /// A fetch succeeded: valid from, valid until.
    Fetched(Identity, SystemTime, SystemTime),
    /// A fetch failed, for this reason. Until when an older certificate is still valid.
    Failed(Identity, String, Option<SystemTime>),
    /// A fetch ended, or was not begun, because the identity has left this node.
    Discarded(Identity),
}

/// What is known of one identity.
struct Entry {
    state: watch::Sender<CertificateState>,
    /// What was announced since the last fetch ended: nothing is announced twice, so that connections during an outage
    /// cost one event a fetch and not one each.
    announced: Option<Need>,
}

/// All identities of this node.
pub struct Certificates {
    entries: Mutex<HashMap<Identity, Entry>>,
    events: mpsc::UnboundedSender<CertificateEvent>,
}

impl Certificates {
    /// The store, and where its events come out.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<CertificateEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (
            Self {
                entries: Mutex::default(),
                events,
            },
            receiver,
        )
    }

    /// The certificate of `identity`; asks for one and waits when there is none. While fetches fail, it fails at once, and
    /// asks for the next one to come soon.
    pub async fn get(&self, identity: &Identity) -> Result<Arc<WorkloadCertificate>, CertificateMissing> {
        let mut state = self.want(identity, Need::Traffic);
        let settled = tokio::time::timeout(
            WAIT,
            state.wait_for(|state| !matches!(state, CertificateState::Initializing)),
        );
        let unavailable = |why: String| CertificateMissing::Unavailable {
            identity: identity.clone(),
            why,
        };
        match settled.await {
            Ok(Ok(state)) => match &*state {
                CertificateState::Available(certificate) => Ok(Arc::clone(certificate)),
                CertificateState::Unavailable(why) => Err(unavailable(why.clone())),
                CertificateState::Initializing => Err(CertificateMissing::Timeout(identity.clone())),
            },
            Ok(Err(_)) => Err(unavailable("the identity is no longer on this node".to_owned())),
            Err(_) => Err(CertificateMissing::Timeout(identity.clone())),
        }
    }

    /// Make sure that `identity` has a valid certificate or gets one; returns where to watch it.
    pub fn want(&self, identity: &Identity, need: Need) -> watch::Receiver<CertificateState> {
        let mut entries = self.lock();
        let entry = entries.entry(identity.clone()).or_insert_with(|| Entry {
            state: watch::Sender::new(CertificateState::Initializing),
            announced: None,
        });
        let is_valid = match &*entry.state.borrow() {
            CertificateState::Available(certificate) => Some(certificate.not_after > SystemTime::now()),
            _ => None,
        };
        if is_valid == Some(false) {
            // It expired: whoever comes waits for the next one.
            entry.state.send_replace(CertificateState::Initializing);
        }
        if is_valid != Some(true) && entry.announced < Some(need) {
            entry.announced = Some(need);
            self.announce(CertificateEvent::Wanted(identity.clone(), need));
        }
        entry.state.subscribe()
    }

    /// Whether anybody on this node still needs the identity. When not, that is announced.
    pub(crate) fn is_wanted(&self, identity: &Identity) -> bool {
        let is_wanted = self.lock().contains_key(identity);
        if !is_wanted {
            self.announce(CertificateEvent::Discarded(identity.clone()));
        }
        is_wanted
    }

    /// Take a fetch's result. A failure leaves a certificate that is still valid in place. The result for an identity that
    /// was dropped meanwhile is discarded.
    pub(crate) fn fetched(&self, identity: &Identity, result: Result<WorkloadCertificate, String>) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(identity) else {
            return self.announce(CertificateEvent::Discarded(identity.clone()));
        };
        entry.announced = None;
        let kept = match &*entry.state.borrow() {
            CertificateState::Available(old) if old.not_after > SystemTime::now() => Some(old.not_after),
            _ => None,
        };
        let event = match result {
            Ok(certificate) => {
                let (from, until) = (certificate.not_before, certificate.not_after);
                entry
                    .state
                    .send_replace(CertificateState::Available(Arc::new(certificate)));
                CertificateEvent::Fetched(identity.clone(), from, until)
            }
            Err(why) => {
                if kept.is_none() {
                    entry.state.send_replace(CertificateState::Unavailable(why.clone()));
                }
                CertificateEvent::Failed(identity.clone(), why, kept)
            }
        };
        self.announce(event);
    }

    /// Drop an identity that no pod of this node has any more. Whoever waits for its certificate hears so.
    pub fn forget(&self, identity: &Identity) {
        self.lock().remove(identity);
    }

    /// Every identity with its state, sorted, for the configuration dump.
    pub fn all(&self) -> Vec<(Identity, CertificateState)> {
        let entries = self.lock();
        let mut all: Vec<_> = entries
            .iter()
            .map(|(identity, entry)| (identity.clone(), entry.state.borrow().clone()))
            .collect();
        all.sort_by_key(|(identity, _)| identity.to_string());
        all
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, event: CertificateEvent) {
        // The receiver is gone only when the process is ending.
        let _ = self.events.send(event);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CertificateEvent, CertificateMissing, Certificates, Need};
    use crate::tls::tests::{Authority, CLIENT, identity};

    fn certificates() -> (Certificates, impl FnMut() -> Option<CertificateEvent>) {
        let (certificates, mut events) = Certificates::new();
        (certificates, move || events.try_recv().ok())
    }

    fn ok() -> Result<crate::tls::certificate::WorkloadCertificate, String> {
        Authority::new()
            .certify(CLIENT, &[CLIENT])
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_wanted_is_announced_once_and_again_when_traffic_needs_it() {
        let (certificates, mut next) = certificates();
        let needs = [Need::Pod, Need::Pod, Need::Traffic, Need::Traffic, Need::Pod];
        for need in needs {
            certificates.want(&identity(CLIENT), need);
        }
        assert!(matches!(next(), Some(CertificateEvent::Wanted(_, Need::Pod))));
        assert!(matches!(next(), Some(CertificateEvent::Wanted(_, Need::Traffic))));
        assert!(next().is_none());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn traffic_in_an_outage_fails_at_once_and_asks_once_a_fetch() {
        let (certificates, mut next) = certificates();
        let who = identity(CLIENT);
        certificates.want(&who, Need::Pod);
        next();
        for _ in 0..2 {
            certificates.fetched(&who, Err("the authority is away".to_owned()));
            assert!(matches!(next(), Some(CertificateEvent::Failed(_, _, None))));
            for _ in 0..3 {
                let error = certificates.get(&who).await.err().expect("no certificate");
                assert!(error.to_string().contains("the authority is away"), "{error}");
            }
            assert!(matches!(next(), Some(CertificateEvent::Wanted(_, Need::Traffic))));
            assert!(next().is_none());
        }
        certificates.fetched(&who, ok());
        assert!(certificates.get(&who).await.is_ok());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_valid_certificate_stays_when_its_renewal_fails() {
        let (certificates, mut next) = certificates();
        let who = identity(CLIENT);
        certificates.want(&who, Need::Pod);
        certificates.fetched(&who, ok());
        certificates.fetched(&who, Err("refused".to_owned()));
        assert!(certificates.get(&who).await.is_ok());
        while let Some(event) = next() {
            assert!(
                !matches!(event, CertificateEvent::Failed(_, _, None)),
                "its end is told"
            );
            assert!(!matches!(event, CertificateEvent::Wanted(_, Need::Traffic)));
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_waits_for_a_forgotten_identity_hears_so_and_its_result_is_discarded() {
        let (certificates, mut next) = certificates();
        let who = identity(CLIENT);
        let forget = async {
            tokio::task::yield_now().await;
            certificates.forget(&who);
        };
        let waiting = tokio::time::timeout(Duration::from_secs(5), certificates.get(&who));
        let (result, ()) = tokio::join!(waiting, forget);
        let error = result.expect("no timeout").err().expect("no certificate");
        assert!(matches!(error, CertificateMissing::Unavailable { .. }), "{error}");
        certificates.fetched(&who, ok());
        assert!(matches!(next(), Some(CertificateEvent::Wanted(..))));
        assert!(matches!(next(), Some(CertificateEvent::Discarded(_))));
        assert!(certificates.all().is_empty());
        assert!(!certificates.is_wanted(&who));
    }
}
