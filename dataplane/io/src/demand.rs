//! Discovery on demand: which keys the controller was asked for, and who waits for its answer (ztunnel.md 4.3).
//!
//! Workers decide, and ask for what their decision lacked (`ambit_core::demand`); the discovery stream carries the question
//! and tells of each response. A question without an answer refuses the connection: what the mesh may know of a destination
//! is who may reach it and how, and nothing of that may be left out.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::control::discovery::DeltaDiscoveryRequest;

/// How long a connection waits for the controller, as it does for the state of its own pod.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keys that we follow. Past it those that led to nothing are given up: a pod that scans the Internet has millions.
const MOST_KEYS: usize = 16 * 1024;

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Not there yet, or given under another name: then the state has it.
    Awaited,
    /// The controller named it: what there is of it is in the state.
    Known,
    /// There is nothing.
    Nothing,
}

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("the controller has not said in 5 s what {0:?} is, and the mesh is discovered on demand; is it connected?")]
    Late(String),
    #[error("{MOST_KEYS} destinations are followed on demand already, so {0:?} is not asked for")]
    TooMany(String),
}

/// What is followed on demand.
#[derive(Default)]
pub(crate) struct Demand {
    asked: Mutex<Asked>,
    /// Grows with every response that may be an answer.
    answers: watch::Sender<u64>,
}

#[derive(Default)]
struct Asked {
    keys: HashMap<String, Answer>,
    /// The stream that stands.
    requests: Option<mpsc::Sender<DeltaDiscoveryRequest>>,
}

impl Demand {
    /// Decide, ask for what that lacked, and decide again, until nothing is lacking or the controller has nothing more.
    ///
    /// `decide` returns the decision and the key that it lacked.
    pub(crate) async fn complete<T>(&self, decide: impl Fn() -> (T, Option<String>)) -> Result<T, Unanswered> {
        let mut answers = self.answers.subscribe();
        let deadline = Instant::now() + PATIENCE;
        loop {
            answers.borrow_and_update();
            let (decided, missing) = decide();
            let Some(key) = missing else {
                return Ok(decided);
            };
            if self.ask(&key)? != Answer::Awaited {
                return Ok(decided);
            }
            if timeout_at(deadline, answers.changed()).await.is_err() {
                return Err(Unanswered::Late(key));
            }
        }
    }

    /// Follow `key`, if it is not followed yet; returns what is known of it.
    fn ask(&self, key: &str) -> Result<Answer, Unanswered> {
        let mut asked = self.asked();
        if let Some(answer) = asked.keys.get(key) {
            return Ok(*answer);
        }
        if asked.keys.len() >= MOST_KEYS {
            asked.give_up_nothings();
            if asked.keys.len() >= MOST_KEYS {
                return Err(Unanswered::TooMany(key.to_owned()));
            }
        }
        if asked.send(subscribe(vec![key.to_owned()])) {
            asked.keys.insert(key.to_owned(), Answer::Awaited);
        }
        Ok(Answer::Awaited)
    }

    /// A new stream stands, by which to ask: for all keys at first, since its other end knows of none.
    pub(crate) fn connected(&self, requests: mpsc::Sender<DeltaDiscoveryRequest>) {
        let mut asked = self.asked();
        asked.requests = Some(requests);
        if !asked.keys.is_empty() {
            asked.send(subscribe(asked.keys.keys().cloned().collect()));
        }
    }

    /// A response was applied that had these names, and said of others that there is nothing.
    pub(crate) fn answered<'a>(&self, names: impl Iterator<Item = &'a str>, nothing: &[String]) {
        {
            let mut asked = self.asked();
            for name in names {
                if let Some(answer) = asked.keys.get_mut(name) {
                    *answer = Answer::Known;
                }
            }
            for name in nothing {
                if let Some(answer) = asked.keys.get_mut(name) {
                    *answer = Answer::Nothing;
                }
            }
        }
        self.answers.send_modify(|count| *count += 1);
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    fn give_up_nothings(&mut self) {
        let names: Vec<_> = self
            .keys
            .extract_if(|_, answer| *answer == Answer::Nothing)
            .map(|(key, _)| key)
            .collect();
        if names.is_empty() {
            return;
        }
        self.send(DeltaDiscoveryRequest {
            resource_names_unsubscribe: names,
            ..DeltaDiscoveryRequest::default()
        });
    }

    /// Returns false when the stream takes no more just now. That there is none is no failure: the next one begins with all
    /// keys.
    fn send(&self, request: DeltaDiscoveryRequest) -> bool {
        let Some(requests) = &self.requests else { return true };
        let request = DeltaDiscoveryRequest {
            type_url: crate::ztunnel::ADDRESS_TYPE.to_owned(),
            ..request
        };
        !matches!(requests.try_send(request), Err(TrySendError::Full(_)))
    }
}

fn subscribe(keys: Vec<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: keys,
        ..DeltaDiscoveryRequest::default()
    }
}

#[cfg(test)]
mod tests;
