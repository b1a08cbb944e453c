//! The certificates that connections wait for. When to fetch one is decided in Python (`ztunnel.identities`); here is who
//! waits, what is valid, and the fetch itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
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

/// Something that Python's side has to know.
pub enum CertificateEvent {
    /// A connection or a pod needs this identity's certificate, and there is none.
    Wanted(Identity),
    /// A fetch succeeded: valid from, valid until.
    Fetched(Identity, SystemTime, SystemTime),
    /// A fetch failed, for this reason.
    Failed(Identity, String),
}

/// All identities of this node.
pub struct Certificates {
    states: Mutex<HashMap<Identity, watch::Sender<CertificateState>>>,
    events: mpsc::UnboundedSender<CertificateEvent>,
}

impl Certificates {
    /// The store, and where its events come out.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<CertificateEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (
            Self {
                states: Mutex::default(),
                events,
            },
            receiver,
        )
    }

    /// The certificate of `identity`; asks for one and waits when there is none.
    pub async fn get(&self, identity: &Identity) -> Result<Arc<WorkloadCertificate>, CertificateMissing> {
        let mut state = self.want(identity);
        let settled = tokio::time::timeout(
            WAIT,
            state.wait_for(|state| !matches!(state, CertificateState::Initializing)),
        );
        let found = match settled.await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => CertificateState::Unavailable("the identity is no longer on this node".to_owned()),
            Err(_) => return Err(CertificateMissing::Timeout(identity.clone())),
        };
        match found {
            CertificateState::Available(certificate) if certificate.not_after > SystemTime::now() => Ok(certificate),
            CertificateState::Available(_) => Err(CertificateMissing::Unavailable {
                identity: identity.clone(),
                why: "the certificate has expired".to_owned(),
            }),
            CertificateState::Unavailable(why) => Err(CertificateMissing::Unavailable {
                identity: identity.clone(),
                why,
            }),
            CertificateState::Initializing => Err(CertificateMissing::Timeout(identity.clone())),
        }
    }

    /// Make sure that `identity` has a certificate or gets one; returns where to watch it.
    pub fn want(&self, identity: &Identity) -> watch::Receiver<CertificateState> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = states.get(identity) {
            return state.subscribe();
        }
        let (sender, receiver) = watch::channel(CertificateState::Initializing);
        states.insert(identity.clone(), sender);
        self.announce(CertificateEvent::Wanted(identity.clone()));
        receiver
    }

    /// Whether anybody on this node still needs the identity.
    pub(crate) fn is_wanted(&self, identity: &Identity) -> bool {
        self.states
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(identity)
    }

    /// Take a fetch's result. A failure leaves a certificate that is still valid in place. Nothing is said of an identity
    /// that was dropped meanwhile, so that it is not renewed for ever.
    pub(crate) fn fetched(&self, identity: &Identity, result: Result<WorkloadCertificate, String>) {
        let event = match &result {
            Ok(certificate) => {
                CertificateEvent::Fetched(identity.clone(), certificate.not_before, certificate.not_after)
            }
            Err(why) => CertificateEvent::Failed(identity.clone(), why.clone()),
        };
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = states.get(identity) else { return };
        state.send_modify(|state| match (result, &*state) {
            (Ok(certificate), _) => *state = CertificateState::Available(Arc::new(certificate)),
            (Err(_), CertificateState::Available(old)) if old.not_after > SystemTime::now() => {}
            (Err(why), _) => *state = CertificateState::Unavailable(why),
        });
        self.announce(event);
    }

    /// Drop an identity that no pod of this node has any more.
    pub fn forget(&self, identity: &Identity) {
        self.states
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(identity);
    }

    /// Every identity with its state, sorted, for the configuration dump.
    pub fn all(&self) -> Vec<(Identity, CertificateState)> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = states
            .iter()
            .map(|(identity, state)| (identity.clone(), state.borrow().clone()))
            .collect();
        all.sort_by_key(|(identity, _)| identity.to_string());
        all
    }

    fn announce(&self, event: CertificateEvent) {
        // The receiver is gone only when the process is ending.
        let _ = self.events.send(event);
    }
}
