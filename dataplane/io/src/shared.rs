//! What all threads of a ztunnel share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ambit_core::mesh_state::{Applied, MeshSettings, MeshState, MeshWriter};
use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::certificates::{Certificates, Need};
use crate::demand::Demand;
use crate::dns::NameServers;
use crate::logging::Level;
use crate::readiness::Readiness;
use crate::settings::TrafficSettings;
use crate::telemetry::Metrics;
use crate::tls::TlsRules;

/// The state that connections are decided on, and what they report to.
pub struct Shared {
    /// Certificates of this node's identities.
    pub certificates: Arc<Certificates>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What the process still waits for.
    pub readiness: Readiness,
    /// How connections are carried.
    pub settings: Arc<TrafficSettings>,
    /// At which level the log tells of policies in dry run.
    pub(crate) dry_run_level: Level,
    /// What handshakes go by.
    pub(crate) tls: Arc<TlsRules>,
    /// Where what the mesh does not know is resolved.
    pub(crate) name_servers: NameServers,
    /// What the controller was asked for, when the mesh is discovered on demand.
    pub(crate) demand: Option<Demand>,
    mesh: ArcSwap<MeshState>,
    writer: Mutex<MeshWriter>,
    version: watch::Sender<u64>,
    draining: AtomicBool,
}

impl Shared {
    /// Begin with an empty mesh.
    pub(crate) fn new(
        mesh: MeshSettings,
        settings: TrafficSettings,
        dry_run_level: Level,
        certificates: Certificates,
        tls: Arc<TlsRules>,
        on_demand: bool,
    ) -> Arc<Self> {
        // A connection's worker that is woken on this processor would wait for the end of our time slice, 3 ms.
        let writer = MeshWriter::new(mesh).pausing(std::thread::yield_now);
        Arc::new(Self {
            certificates: Arc::new(certificates),
            metrics: Arc::new(Metrics::new(Arc::clone(&tls.counters))),
            readiness: Readiness::default(),
            settings: Arc::new(settings),
            dry_run_level,
            tls,
            name_servers: NameServers::default(),
            demand: on_demand.then(Demand::default),
            mesh: ArcSwap::from_pointee(writer.snapshot()),
            writer: Mutex::new(writer),
            version: watch::Sender::new(0),
            draining: AtomicBool::new(false),
        })
    }

    /// The mesh as it is now. A connection keeps the one it started with.
    pub fn mesh(&self) -> Arc<MeshState> {
        self.mesh.load_full()
    }

    /// Tells about every change of the mesh.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Read from the writer's side of the state.
    pub fn with_writer<T>(&self, read: impl FnOnce(&MeshWriter) -> T) -> T {
        read(&self.writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Change the state and publish it; ask for the certificates of identities that came, drop those of identities that went.
    pub fn update(&self, change: impl FnOnce(&mut MeshWriter) -> Applied) -> Applied {
        let applied = {
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let applied = change(&mut writer);
            if applied.is_changed {
                self.mesh.store(Arc::new(writer.snapshot()));
            }
            applied
        };
        if applied.is_changed {
            self.version.send_modify(|version| *version += 1);
        }
        for identity in &applied.wanted_identities {
            self.certificates.want(identity, Need::Pod);
        }
        for identity in &applied.forgotten_identities {
            self.certificates.forget(identity);
        }
        applied
    }

    /// Whether the process is ending.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The process is ending.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}
