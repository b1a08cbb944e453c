//! What the process still waits for before it is ready (ztunnel.md 8.2).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What has to be done in every ztunnel: all that discovery knows was received, and all pods of the node are served.
const TASKS: [&str; 2] = ["state manager", "workload proxy manager"];

/// Named tasks; the process is ready when each of them is.
pub struct Readiness {
    tasks: Mutex<BTreeMap<String, bool>>,
}

impl Default for Readiness {
    /// Not ready: whoever asks before the tasks have begun must not believe that there are none.
    fn default() -> Self {
        let tasks = TASKS.iter().map(|task| ((*task).to_owned(), false)).collect();
        Self {
            tasks: Mutex::new(tasks),
        }
    }
}

impl Readiness {
    /// Say whether `task` is done. It may become undone again.
    pub fn set(&self, task: &str, ready: bool) {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(task.to_owned(), ready);
    }

    /// The tasks that are not done, sorted. Empty when the process is ready.
    pub fn pending(&self) -> Vec<String> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks
            .iter()
            .filter(|(_, ready)| !**ready)
            .map(|(task, _)| task.clone())
            .collect()
    }
}
