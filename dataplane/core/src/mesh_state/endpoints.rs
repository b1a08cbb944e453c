//! The workloads that serve one service, and what was found out about them for the questions that come again and again.
//!
//! A node's pods all run in one place and dial a service's few ports, so that to choose among thousands of endpoints is
//! nearly always the same question. Its answer, a table to draw from, is kept with the endpoints until they or their
//! service change: then a connection costs a binary search instead of a walk. It is derived from what it is kept with, and
//! readers cannot tell whether it was.

mod members;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

pub(super) use members::Members;

use super::{Place, Workload};
use crate::balance::Purpose;

/// How many questions about one service are kept: a port or two, asked from here, perhaps by workloads on two networks.
const KEPT_QUESTIONS: usize = 4;

/// The endpoints of one service.
#[derive(Default)]
pub(crate) struct Endpoints {
    members: Members,
    tables: OnceLock<Box<[OnceLock<Table>; KEPT_QUESTIONS]>>,
}

/// What the choice among the endpoints of one service depends on.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) from: Arc<Place>,
    pub(crate) service_port: u16,
    pub(crate) purpose: Purpose,
}

/// The endpoints that may be chosen, in the order of their uids.
pub(crate) struct Table {
    question: Question,
    rows: Box<[Row]>,
}

/// One of them.
pub(crate) struct Row {
    /// The sum of the weights up to and with this one.
    pub(crate) up_to: u64,
    pub(crate) port: u16,
    pub(crate) workload: Arc<Workload>,
}

impl Endpoints {
    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    pub(super) fn insert(&mut self, workload: &Arc<Workload>) {
        self.forget_tables();
        self.members.insert(workload);
    }

    pub(super) fn remove(&mut self, uid: &str) {
        self.forget_tables();
        self.members.remove(uid);
    }

    /// To be called when the service changes.
    pub(super) fn forget_tables(&mut self) {
        self.tables.take();
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The answer to `question`, made by `build` unless it is known; `None` when too many others are kept.
    pub(crate) fn table(&self, question: &Question, build: impl Fn() -> Box<[Row]>) -> Option<&Table> {
        let slots = self.tables.get_or_init(Box::default);
        slots.iter().find_map(|slot| {
            let table = slot.get_or_init(|| Table {
                question: question.clone(),
                rows: build(),
            });
            table.question.is(question).then_some(table)
        })
    }
}

impl Table {
    /// The row that `sample`, uniform over all 64-bit numbers, falls on.
    pub(crate) fn pick(&self, sample: u64) -> Option<&Row> {
        let total = self.rows.last()?.up_to;
        let at = crate::balance::scale(sample, total);
        self.rows.get(self.rows.partition_point(|row| row.up_to <= at))
    }
}

impl Question {
    /// Places are kept once each, so the same one is at the same address.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.from, &other.from) && (self.service_port, self.purpose) == (other.service_port, other.purpose)
    }
}

impl Clone for Endpoints {
    /// The members. What was found out about them stays: a copy is made to be changed.
    fn clone(&self) -> Self {
        Self {
            members: self.members.clone(),
            tables: OnceLock::new(),
        }
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.members.fmt(f)
    }
}
