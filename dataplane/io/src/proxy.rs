//! One pod's proxy on one worker: three listeners in the pod's namespace, and every connection that came through them.

mod listeners;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ambit_core::identity::Identity;
use ambit_core::mesh_state::{MeshState, Workload};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::handover::Share;
use crate::live::Live;
use crate::logging::{self, Fields, Level};
use crate::netns::Netns;
use crate::pool::{self, DialError, Pool};
use crate::shared::Shared;
use crate::signal::Signal;
use crate::sockets::Source;
use crate::telemetry::{Direction, Flag, OpenConnections, OpenSocket};
use crate::tunnel::Tunnel;
use crate::worker::PodConnections;
use crate::{dns, inbound, outbound, socks5};
pub(crate) use listeners::Accepted;
use listeners::Listeners;

/// Where redirected connections of the pod's applications arrive (ztunnel.md 1.1).
pub const OUTBOUND_PORT: u16 = 15001;
/// Where redirected plaintext connections to the pod arrive.
pub const INBOUND_PLAINTEXT_PORT: u16 = 15006;
/// Where tunnels to the pod arrive.
pub const HBONE_PORT: u16 = 15008;
/// How long a connection waits for discovery to bring its own pod (ztunnel.md 2.1).
const WORKLOAD_WAIT: Duration = Duration::from_secs(5);
/// After a failed accept. Stock ztunnel spins and floods its log when descriptors run out (ztunnel.md 12.1, 9).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A pod as the node agent named it.
pub struct Pod {
    /// Kubernetes' uid.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account's name.
    pub service_account: String,
    /// Where its sockets are.
    pub netns: Arc<Netns>,
    /// It is ztunnel itself: tunnels to these ports of it are taken, and nothing is captured (ztunnel.md 6.8).
    pub own_ports: Option<[u16; 2]>,
}

impl Pod {
    /// Whether it is ztunnel itself.
    pub(crate) fn is_own(&self) -> bool {
        self.own_ports.is_some()
    }
}

/// A pod that is served.
pub(crate) struct PodProxy {
    /// Shared by all threads.
    pub(crate) shared: Arc<Shared>,
    /// Whose proxy this is.
    pub(crate) pod: Arc<Pod>,
    /// Tunnels that the pod's applications share.
    pub(crate) pool: Rc<Pool>,
    /// Its DNS queries that wait.
    pub(crate) dns_places: dns::Places,
    listeners: RefCell<Vec<(Rc<dyn AsFd>, AbortHandle)>>,
    /// No more connections are accepted: what is being accepted still is asked to go elsewhere.
    draining: Cell<bool>,
    connections: RefCell<JoinSet<()>>,
    /// What is told of its connections.
    pub(crate) open: Rc<OpenConnections>,
    /// By what they were judged last.
    judged: RefCell<Option<Judged>>,
    /// Inbound connections that a changed policy may end.
    live: RefCell<Vec<Weak<Live>>>,
    /// Inbound tunnels.
    tunnels: RefCell<Vec<Weak<Tunnel>>>,
    ended: Signal,
    neighbours: Weak<Neighbours>,
}

/// What a verdict on a pod's connections depends on.
#[derive(Clone)]
struct Judged {
    policy_version: u64,
    workload: Option<Arc<Workload>>,
}

impl Judged {
    /// Workloads are compared by their addresses in memory, which nothing else can have while they are held here.
    fn is_same(&self, other: &Self) -> bool {
        let is_one = match (&self.workload, &other.workload) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        is_one && self.policy_version == other.policy_version
    }
}

/// The pods that one worker serves.
#[derive(Default)]
pub(crate) struct Neighbours {
    serving: RefCell<HashMap<String, Rc<PodProxy>>>,
    /// They take no more connections; those that they have are still judged.
    draining: RefCell<HashMap<String, Rc<PodProxy>>>,
}

impl Neighbours {
    /// Serve a pod. Errors as `PodProxy::start`.
    pub(crate) fn add(self: &Rc<Self>, shared: Arc<Shared>, pod: Arc<Pod>, share: Share) -> io::Result<()> {
        let uid = pod.uid.clone();
        let proxy = PodProxy::start(shared, pod, share, Rc::downgrade(self))?;
        self.serving.borrow_mut().insert(uid, proxy);
        Ok(())
    }

    /// Stop serving the pod, at once.
    pub(crate) fn remove(&self, uid: &str) {
        for pods in [&self.serving, &self.draining] {
            let removed = pods.borrow_mut().remove(uid);
            if let Some(proxy) = removed {
                proxy.stop();
            }
        }
    }

    /// Serve no pod any more; the connections that there are go on.
    pub(crate) fn start_draining(&self) -> Vec<Rc<PodProxy>> {
        self.draining.borrow_mut().extend(self.serving.borrow_mut().drain());
        self.draining.borrow().values().map(Rc::clone).collect()
    }

    /// Duplicates of the sockets that are listened on in a namespace.
    pub(crate) fn listeners(&self, netns: (u64, u64)) -> Vec<OwnedFd> {
        let proxies = self.serving.borrow();
        let there = proxies.values().filter(|proxy| proxy.pod.netns.identity() == netns);
        there.flat_map(|proxy| proxy.duplicate_listeners()).collect()
    }

    /// The open connections of each pod, for the configuration dump.
    pub(crate) fn connections(&self) -> Vec<PodConnections> {
        let pods = [self.serving.borrow(), self.draining.borrow()];
        let proxies = pods.iter().flat_map(|pods| pods.values());
        proxies
            .map(|proxy| (proxy.pod.uid.clone(), proxy.open.dump()))
            .collect()
    }

    /// Do something for each pod that has connections, or may have.
    pub(crate) fn for_each(&self, act: impl Fn(&PodProxy)) {
        for pods in [&self.serving, &self.draining] {
            pods.borrow().values().for_each(|proxy| act(proxy));
        }
    }

    /// The pod that `workload` is, if it is served here. Nodes have some hundred pods: they are looked through.
    fn find(&self, workload: &Workload) -> Option<Rc<PodProxy>> {
        let is_it = |pod: &Pod| pod.name == workload.name() && pod.namespace == workload.namespace() && !pod.is_own();
        let proxies = self.serving.borrow();
        proxies.values().find(|proxy| is_it(&proxy.pod)).map(Rc::clone)
    }
}

impl PodProxy {
    /// Open the listeners and serve them. Errors when a port is taken or the namespace cannot be entered.
    fn start(shared: Arc<Shared>, pod: Arc<Pod>, share: Share, neighbours: Weak<Neighbours>) -> io::Result<Rc<Self>> {
        let settings = &shared.settings.sockets;
        let socks5 = shared.settings.socks5;
        let Share {
            mut inherited,
            serves_dns,
        } = share;
        let listeners = pod
            .netns
            .within(|| Listeners::open(settings, pod.is_own(), socks5, &mut inherited))?;
        let dns = shared.settings.dns.as_ref().filter(|_| serves_dns && !pod.is_own());
        let dns = dns.map(|dns| {
            let inherited = dns::Listeners::inherited(inherited.take(dns.address.port()));
            let open = || dns::Listeners::open(settings, dns.address);
            inherited.map_or_else(|| pod.netns.within(open), Ok)
        });
        let dns = dns.transpose()?;
        let pool = Pool::new(
            Arc::clone(&shared.certificates),
            Arc::clone(&shared.settings),
            Arc::clone(&pod.netns),
        );
        let open = OpenConnections::new(&shared.metrics);
        let proxy = Rc::new(Self {
            shared,
            pod,
            pool,
            dns_places: dns::Places::default(),
            listeners: RefCell::default(),
            draining: Cell::new(false),
            connections: RefCell::default(),
            open,
            judged: RefCell::default(),
            live: RefCell::default(),
            tunnels: RefCell::default(),
            ended: Signal::default(),
            neighbours,
        });
        let Listeners {
            hbone,
            captured,
            socks5,
        } = listeners;
        proxy.accept_on(hbone, Direction::Inbound, inbound::serve_hbone)?;
        if let Some((outbound, plaintext)) = captured {
            proxy.accept_on(outbound, Direction::Outbound, outbound::serve)?;
            proxy.accept_on(plaintext, Direction::Inbound, inbound::serve_plaintext)?;
        }
        if let Some(socks5) = socks5 {
            proxy.accept_on(socks5, Direction::Outbound, socks5::serve)?;
        }
        if let Some(dns) = dns {
            proxy.serve_dns(dns)?;
        }
        Ok(proxy)
    }

    fn serve_dns(self: &Rc<Self>, listeners: dns::Listeners) -> io::Result<()> {
        for socket in listeners.udp {
            let socket = Rc::new(UdpSocket::from_std(socket)?);
            let task = tokio::task::spawn_local(dns::serve_udp(Rc::clone(self), Rc::clone(&socket)));
            self.listeners.borrow_mut().push((socket, task.abort_handle()));
        }
        self.accept_on(listeners.tcp, Direction::Outbound, dns::serve_tcp)
    }

    fn accept_on<F>(
        self: &Rc<Self>,
        listeners: Vec<std::net::TcpListener>,
        direction: Direction,
        serve: fn(Rc<Self>, Accepted) -> F,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + 'static,
    {
        for listener in listeners {
            self.accept_from(Rc::new(TcpListener::from_std(listener)?), direction, serve);
        }
        Ok(())
    }

    fn accept_from<F>(
        self: &Rc<Self>,
        listener: Rc<TcpListener>,
        direction: Direction,
        serve: fn(Rc<Self>, Accepted) -> F,
    ) where
        F: Future<Output = ()> + 'static,
    {
        let (proxy, kept) = (Rc::clone(self), Rc::clone(&listener));
        let task = tokio::task::spawn_local(async move {
            loop {
                match listener.accept().await {
                    Ok(accepted) => {
                        let open = OpenSocket::count(&proxy.shared.metrics, direction);
                        proxy.spawn(serve(Rc::clone(&proxy), Accepted::new(accepted, open)));
                    }
                    Err(error) => {
                        let fields = Fields::default()
                            .text("pod", &proxy.pod.name)
                            .text("error", &error.to_string());
                        logging::write(Level::Warn, "proxy", "accept failed", &fields);
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
        self.listeners.borrow_mut().push((kept, task.abort_handle()));
    }

    /// Duplicates of the sockets that are listened on; those that cannot be had are left out.
    fn duplicate_listeners(&self) -> Vec<OwnedFd> {
        let listeners = self.listeners.borrow();
        let duplicate = |(listener, _): &(Rc<dyn AsFd>, AbortHandle)| listener.as_fd().try_clone_to_owned().ok();
        listeners.iter().filter_map(duplicate).collect()
    }

    /// Run a connection's task; it ends with the proxy.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut connections = self.connections.borrow_mut();
        while connections.try_join_next().is_some() {}
        connections.spawn_local(task);
    }

    /// The pod as discovery knows it. Waits a little for a pod that is new.
    pub(crate) async fn workload(&self) -> Result<Arc<Workload>, String> {
        match self.known_workload() {
            Some(workload) => Ok(workload),
            None => Box::pin(self.wait_for_workload()).await,
        }
    }

    fn known_workload(&self) -> Option<Arc<Workload>> {
        self.workload_in(&self.shared.mesh()).map(Arc::clone)
    }

    fn workload_in<'a>(&self, mesh: &'a MeshState) -> Option<&'a Arc<Workload>> {
        let Pod {
            name,
            namespace,
            service_account,
            ..
        } = &*self.pod;
        mesh.local_workload(namespace, name, service_account)
    }

    async fn wait_for_workload(&self) -> Result<Arc<Workload>, String> {
        let mut changes = self.shared.changes();
        let found = timeout(WORKLOAD_WAIT, async {
            loop {
                changes.borrow_and_update();
                if let Some(workload) = self.known_workload() {
                    return Some(workload);
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        });
        found.await.ok().flatten().ok_or_else(|| {
            let Pod { name, namespace, .. } = &*self.pod;
            format!("the controller has not told of pod {namespace}/{name} in 5 s; is it connected and does it know the pod?")
        })
    }

    /// The identity that `workload`, this proxy's pod, proves to others.
    pub(crate) fn identity(&self, workload: &Workload) -> Result<Identity, String> {
        workload.identity().cloned().ok_or_else(|| {
            format!(
                "pod {}/{} has no valid identity; check its service account's name",
                self.pod.namespace, self.pod.name
            )
        })
    }

    /// Connect to `target` from inside the pod.
    pub(crate) async fn connect(&self, target: SocketAddr, source: Source) -> Result<TcpStream, DialError> {
        // Boxed: a connection that stands keeps no room for how it came about.
        Box::pin(pool::connect(
            &self.shared.settings.sockets,
            &self.pod.netns,
            target,
            source,
        ))
        .await
    }

    /// The pod of this node that `workload` is, if this worker serves it.
    pub(crate) fn neighbour(&self, workload: &Workload) -> Option<Rc<Self>> {
        self.neighbours.upgrade()?.find(workload)
    }

    /// Keep an eye on an inbound connection while policies change.
    pub(crate) fn track(&self, live: &Rc<Live>) {
        self.live.borrow_mut().push(Rc::downgrade(live));
    }

    /// Remember an inbound tunnel, to say goodbye to its client when draining.
    pub(crate) fn track_tunnel(&self, tunnel: &Rc<Tunnel>) {
        if self.draining.get() {
            // Its handshake was under way when the listeners closed.
            tunnel.retire();
        }
        self.tunnels.borrow_mut().push(Rc::downgrade(tunnel));
    }

    /// End the inbound connections that `mesh` no longer permits. Most changes of a mesh are about other pods: then there is
    /// nothing to judge anew.
    pub(crate) fn re_evaluate(&self, mesh: &MeshState) {
        let now = Judged {
            policy_version: mesh.policy_version(),
            workload: self.workload_in(mesh).cloned(),
        };
        let last = self.judged.replace(Some(now.clone()));
        if last.is_some_and(|last| last.is_same(&now)) {
            return;
        }
        let all: Vec<_> = self.live.borrow().iter().filter_map(Weak::upgrade).collect();
        for live in all {
            live.re_evaluate(mesh);
        }
    }

    /// Close tunnels that nobody needs, and forget what has ended. Called every few seconds.
    pub(crate) fn release_unused(&self) {
        self.open.count_progress();
        self.pool.release_unused();
        forget_ended(&mut self.live.borrow_mut());
        forget_ended(&mut self.tunnels.borrow_mut());
        let mut connections = self.connections.borrow_mut();
        while connections.try_join_next().is_some() {}
    }

    /// Close the listeners; ask clients to take new connections elsewhere.
    pub(crate) fn stop_accepting(&self) {
        self.draining.set(true);
        for (_, accepting) in self.listeners.borrow_mut().drain(..) {
            accepting.abort();
        }
        for tunnel in self.tunnels.borrow_mut().drain(..) {
            if let Some(tunnel) = tunnel.upgrade() {
                tunnel.retire();
            }
        }
    }

    /// Wait until all connections have ended.
    pub(crate) async fn finished(&self) {
        loop {
            let none = {
                let mut connections = self.connections.borrow_mut();
                while connections.try_join_next().is_some() {}
                connections.is_empty()
            };
            if none {
                self.pool.close(false);
                return;
            }
            // Connections end at their own pace; a tenth of a second more does not matter to a process that is ending.
            let _ = timeout(Duration::from_millis(100), self.ended.wait()).await;
        }
    }

    /// End everything now.
    pub(crate) fn stop(&self) {
        self.stop_accepting();
        for live in self.live.borrow_mut().drain(..).filter_map(|live| live.upgrade()) {
            live.end(Flag::None, "the pod was removed from the mesh".to_owned());
        }
        self.connections.borrow_mut().abort_all();
        self.pool.close(true);
        self.ended.raise();
        self.shared.metrics.proxies_stopped.fetch_add(1, Relaxed);
    }
}

/// Drop the references to what is gone: each keeps its memory.
fn forget_ended<T>(all: &mut Vec<Weak<T>>) {
    all.retain(|one| one.strong_count() > 0);
    all.shrink_to_fit();
}
