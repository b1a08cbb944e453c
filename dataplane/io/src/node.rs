//! What this node serves: its pods, and the workers that carry their connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use crate::proxy::Pod;
use crate::shared::Shared;
use crate::worker::WorkerHandle;

/// The parts that outlive any request about them.
pub(crate) struct Node {
    pub(crate) shared: Arc<Shared>,
    pub(crate) workers: Vec<WorkerHandle>,
    pods: Mutex<HashMap<String, Arc<Pod>>>,
}

impl Node {
    /// No pods yet.
    pub(crate) fn new(shared: Arc<Shared>, workers: Vec<WorkerHandle>) -> Self {
        Self {
            shared,
            workers,
            pods: Mutex::default(),
        }
    }

    /// The pods that are served, by uid.
    pub(crate) fn pods(&self) -> MutexGuard<'_, HashMap<String, Arc<Pod>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each pod with its open connections (`workloadState`, ztunnel.md 8.1).
    pub(crate) async fn dump(&self) -> Value {
        let mut connections = HashMap::<String, [Vec<Value>; 2]>::new();
        for worker in &self.workers {
            for (uid, (inbound, outbound)) in worker.connections().await {
                let all = connections.entry(uid).or_default();
                all[0].extend(inbound);
                all[1].extend(outbound);
            }
        }
        let pods = self.pods();
        let states = pods.values().map(|pod| {
            let [inbound, outbound] = connections.remove(&pod.uid).unwrap_or_default();
            let state = json!({
                "state": "Up",
                "info": {
                    "name": pod.name,
                    "namespace": pod.namespace,
                    "serviceAccount": pod.service_account,
                },
                "connections": { "inbound": inbound, "outbound": outbound },
            });
            (pod.uid.clone(), state)
        });
        states.collect::<Map<_, _>>().into()
    }
}
