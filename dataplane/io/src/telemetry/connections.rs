//! Each connection that is open, and what is told of it: when it opens, while it lasts, when it ends (ztunnel.md 8.3, 8.4).

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ambit_core::mesh_state::Workload;
use serde_json::{Value, json};
use slab::Slab;

use super::metrics::Series;
use super::{Addresses, Direction, Flag, Metrics, Peer, Pods, SecurityPolicy, TrafficLabels};
use crate::logging::{self, Fields, Level};

/// Bytes of a connection that were moved so far.
#[derive(Default)]
pub(crate) struct Moved {
    /// From the client to the server.
    pub(crate) forth: Cell<u64>,
    /// From the server to the client.
    pub(crate) back: Cell<u64>,
}

/// Those of one pod that one worker carries.
pub(crate) struct OpenConnections {
    metrics: Arc<Metrics>,
    open: RefCell<Slab<Rc<Connection>>>,
}

impl OpenConnections {
    /// None yet.
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Rc<Self> {
        Rc::new(Self {
            metrics: Arc::clone(metrics),
            open: RefCell::default(),
        })
    }

    /// Count what was moved since the last time: a connection may last for days. Called every few seconds.
    pub(crate) fn count_progress(&self) {
        let mut open = self.open.borrow_mut();
        open.iter()
            .for_each(|(_, connection)| connection.count_moved(Flag::None));
        open.shrink_to_fit();
    }

    /// For the configuration dump (ztunnel.md 8.1): those of each direction.
    pub(crate) fn dump(&self) -> (Vec<Value>, Vec<Value>) {
        let open = self.open.borrow();
        let of = |direction| {
            let fitting = open
                .iter()
                .filter(|(_, connection)| connection.direction() == direction);
            fitting.map(|(_, connection)| connection.dump()).collect()
        };
        (of(Direction::Inbound), of(Direction::Outbound))
    }
}

/// There are as many of these as open connections: what they have in common stands once, in the series.
struct Connection {
    ends: RefCell<Ends>,
    addresses: Addresses,
    /// CONNECT's authority, when there is a tunnel.
    authority: Option<Box<str>>,
    started: Instant,
    /// Absent until bytes can move.
    moved: OnceCell<Rc<Moved>>,
    /// What of it is in the metrics.
    counted_moved: Cell<(u64, u64)>,
    /// The metrics know that it opened.
    is_counted: Cell<bool>,
}

/// Who is at both ends, which may be learnt late.
struct Ends {
    series: Arc<Series>,
    pods: Pods,
}

impl Connection {
    fn direction(&self) -> Direction {
        self.ends.borrow().series.labels.direction
    }

    fn moved(&self) -> (u64, u64) {
        let moved = self.moved.get();
        moved.map_or((0, 0), |moved| (moved.forth.get(), moved.back.get()))
    }

    fn count_opened(&self) {
        if !self.is_counted.replace(true) {
            self.ends.borrow().series.opened();
            self.log(Level::Debug, "connection opened", None);
        }
    }

    fn count_moved(&self, flag: Flag) {
        let moved = self.moved();
        let counted = self.counted_moved.replace(moved);
        if moved != counted {
            self.ends
                .borrow()
                .series
                .moved(flag, moved.0 - counted.0, moved.1 - counted.1);
        }
    }

    fn log(&self, level: Level, message: &str, error: Option<&str>) {
        const SCOPE: &str = "access";
        if logging::is_enabled(level, SCOPE) {
            logging::write(level, SCOPE, message, &self.fields(error));
        }
    }

    /// `error` is that of a connection that has ended, empty when it ended well.
    fn fields(&self, error: Option<&str>) -> Fields {
        let ends = self.ends.borrow();
        let TrafficLabels {
            direction,
            source,
            destination,
            service,
            security,
        } = &ends.series.labels;
        let proved = |peer: &'_ Peer| match (security, &peer.principal) {
            (SecurityPolicy::MutualTls | SecurityPolicy::NodeLocal, Some(identity)) => identity.uri().to_owned(),
            _ => String::new(),
        };
        let name_of = |pod: &Option<Arc<Workload>>, peer: &Peer| match pod {
            Some(pod) if !pod.name().is_empty() => pod.name().to_owned(),
            _ => peer.canonical_name.to_string(),
        };
        let fields = Fields::default()
            .plain("src.addr", self.addresses.source)
            .text("src.workload", &name_of(&ends.pods.source, source))
            .text("src.namespace", &source.namespace)
            .text("src.identity", &proved(source))
            .text("src.cluster", &source.cluster)
            .plain("dst.addr", self.addresses.destination)
            .text("dst.hbone_addr", self.authority.as_deref().unwrap_or_default())
            .text("dst.service", service.as_ref().map_or("", |(key, _)| key.hostname()))
            .text("dst.workload", &name_of(&ends.pods.destination, destination))
            .text("dst.namespace", &destination.namespace)
            .text("dst.identity", &proved(destination))
            .text("dst.cluster", &destination.cluster)
            .text("direction", direction.name());
        let Some(error) = error else { return fields };
        // Each side's `sent` is what it sent: the client's agent towards the server, the server's agent back.
        let (forth, back) = self.moved();
        let (sent, received) = match direction {
            Direction::Outbound => (forth, back),
            Direction::Inbound => (back, forth),
        };
        fields
            .number("bytes_sent", sent)
            .number("bytes_recv", received)
            .text("duration", &format!("{}ms", self.started.elapsed().as_millis()))
            .text("error", error)
    }

    fn dump(&self) -> Value {
        let ends = self.ends.borrow();
        let TrafficLabels {
            direction,
            service,
            security,
            ..
        } = &ends.series.labels;
        let service = service.as_ref().map(|(key, _)| key.hostname());
        let (original, actual) = match direction {
            Direction::Outbound => (Some(self.addresses.asked.to_string()), self.addresses.destination),
            Direction::Inbound => (service.map(str::to_owned), self.addresses.asked),
        };
        let (forth, back) = self.moved();
        json!({
            "src": self.addresses.source,
            "originalDst": original,
            "actualDst": actual,
            "protocol": match security {
                SecurityPolicy::MutualTls => "HBONE",
                SecurityPolicy::NodeLocal => "NODE_LOCAL",
                SecurityPolicy::Unknown => "TCP",
            },
            // Stock ztunnel has none of these.
            "service": service,
            "ageMs": u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "bytesToServer": forth,
            "bytesToClient": back,
        })
    }
}

/// A connection that is being told about. Dropping it without `complete` reports an abort.
pub(crate) struct ConnectionReport {
    all: Rc<OpenConnections>,
    key: usize,
    connection: Rc<Connection>,
    is_complete: bool,
}

impl ConnectionReport {
    /// Count the connection as opened.
    pub(crate) fn opened(
        all: &Rc<OpenConnections>,
        labels: &TrafficLabels,
        pods: Pods,
        addresses: Addresses,
        authority: Option<String>,
        started: Instant,
    ) -> Self {
        let report = Self::pending(all, labels, pods, addresses, authority, started);
        report.connection.count_opened();
        report
    }

    /// A connection whose destination is still to be learnt; until then it is not counted.
    pub(crate) fn pending(
        all: &Rc<OpenConnections>,
        labels: &TrafficLabels,
        pods: Pods,
        addresses: Addresses,
        authority: Option<String>,
        started: Instant,
    ) -> Self {
        let series = all.metrics.series(labels);
        let connection = Rc::new(Connection {
            ends: RefCell::new(Ends { series, pods }),
            addresses,
            authority: authority.map(String::into_boxed_str),
            started,
            moved: OnceCell::new(),
            counted_moved: Cell::default(),
            is_counted: Cell::default(),
        });
        Self {
            key: all.open.borrow_mut().insert(Rc::clone(&connection)),
            all: Rc::clone(all),
            connection,
            is_complete: false,
        }
    }

    /// The destination of a pending connection said who it is: count it as opened.
    pub(crate) fn learn_destination(&self, destination: Peer) {
        {
            let mut ends = self.connection.ends.borrow_mut();
            let mut labels = ends.series.labels.clone();
            labels.destination = destination;
            ends.series = self.all.metrics.series(&labels);
            ends.pods.destination = None;
        }
        self.connection.count_opened();
    }

    /// Bytes are going to be counted in `moved`. Only the first call counts.
    pub(crate) fn count_in(&self, moved: &Rc<Moved>) {
        self.connection.moved.get_or_init(|| Rc::clone(moved));
    }

    /// Whether the client has got any byte from the server.
    pub(crate) fn is_answered(&self) -> bool {
        self.connection.moved().1 > 0
    }

    /// Write the log line and count the connection as closed.
    pub(crate) fn complete(mut self, failure: Option<(Flag, &str)>) {
        self.finish(failure);
    }

    fn finish(&mut self, failure: Option<(Flag, &str)>) {
        self.is_complete = true;
        let connection = &self.connection;
        connection.count_opened();
        let flag = failure.map_or(Flag::None, |(flag, _)| flag);
        connection.count_moved(flag);
        connection.ends.borrow().series.closed(flag, failure.is_some());
        self.all.metrics.count_closed();
        let level = if failure.is_some() { Level::Error } else { Level::Info };
        connection.log(
            level,
            "connection complete",
            Some(failure.map_or("", |(_, error)| error)),
        );
        self.all.open.borrow_mut().remove(self.key);
    }
}

impl Drop for ConnectionReport {
    fn drop(&mut self) {
        if !self.is_complete {
            let error = "the pod was removed from the mesh, or the proxy is ending";
            self.finish(Some((Flag::None, error)));
        }
    }
}
