//! The whole data plane of a node: workers, control thread, state. What the border hands to Python.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_core::identity::Identity;
use ambit_core::mesh_state::{MeshSettings, Resource, ResourceType};
use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use tokio::sync::{mpsc, watch};

use crate::admin::{self, AdminPorts, Server};
use crate::certificates::{CertificateEvent, Certificates};
use crate::control::discovery::{self, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryStream, RpcStatus};
use crate::control::summary;
use crate::control::{ControlError, ControlPlane, signing};
use crate::handover::{Inherited, Share};
use crate::memory;
use crate::netns::Netns;
use crate::node::Node;
use crate::proxy::Pod;
use crate::settings::{SecuritySettings, TrafficSettings};
use crate::shared::Shared;
use crate::tls::TlsRules;
use crate::worker::WorkerHandle;

/// Discovery's two types (ztunnel.md 0.21).
pub const ADDRESS_TYPE: &str = "type.googleapis.com/istio.workload.Address";
/// Policies.
pub const AUTHORIZATION_TYPE: &str = "type.googleapis.com/istio.security.Authorization";

/// Stands for ztunnel's own pod among those of a worker. It is no pod's: those are UUIDs.
const OWN_UID: &str = "own";

/// What the data plane is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node; workloads on it are local.
    pub node_name: String,
    /// Its cluster.
    pub cluster_id: String,
    /// Its network.
    pub network: String,
    /// How discovery names us.
    pub node_id: String,
    /// What discovery is told of us.
    pub node_metadata: HashMap<String, String>,
    /// Where discovery is.
    pub discovery: ControlPlane,
    /// Ask it for what connections need, beside what this node's own pods are; otherwise for the whole mesh.
    pub on_demand: bool,
    /// Where certificates come from.
    pub authority: ControlPlane,
    /// Threads that carry connections.
    pub workers: usize,
    /// How connections are carried.
    pub traffic: TrafficSettings,
    /// How identities are proved and policies are reported.
    pub security: SecuritySettings,
    /// Ports of the servers around the data path.
    pub ports: AdminPorts,
}

/// One node's data plane.
pub struct Ztunnel {
    settings: Settings,
    node: Arc<Node>,
    control: tokio::runtime::Handle,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<CertificateEvent>>,
    ending: watch::Sender<bool>,
    servers: Mutex<Vec<Server>>,
    /// From a predecessor, for our own namespace.
    inherited: Mutex<Inherited>,
}

impl Ztunnel {
    /// Start the threads and servers. Errors when a port is taken or a thread cannot be had.
    pub fn start(settings: Settings, mut inherited: Inherited) -> io::Result<Self> {
        memory::return_large_blocks();
        let (certificates, events) = Certificates::new();
        let node_name = (!settings.node_name.is_empty()).then(|| Arc::from(settings.node_name.as_str()));
        let mesh = MeshSettings {
            network: Arc::from(settings.network.as_str()),
            node_name,
            socks5: settings.traffic.socks5,
        };
        let security = &settings.security;
        let tls = TlsRules::new(security.key_exchange, security.revocation_lists.clone());
        let shared = Shared::new(
            mesh,
            settings.traffic.clone(),
            security.dry_run_level,
            certificates,
            tls,
            settings.on_demand,
        );
        let workers = (0..settings.workers.max(1))
            .map(|index| WorkerHandle::start(index, Arc::clone(&shared)))
            .collect::<io::Result<_>>()?;
        let node = Arc::new(Node::new(Arc::clone(&shared), workers));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let control = runtime.handle().clone();
        let ending = watch::Sender::new(false);
        let servers = {
            let _inside = runtime.enter();
            let tls = Arc::clone(&shared.tls);
            tokio::spawn(async move { tls.revocations.watch().await });
            admin::start(&node, settings.ports, &mut inherited)?
        };
        if shared.settings.dns.is_some() {
            // Its sockets are opened with each pod's; nothing else has to come up first.
            shared.readiness.set("dns proxy", true);
        }
        let mut ended = ending.subscribe();
        std::thread::Builder::new()
            .name("control".to_owned())
            .stack_size(1024 * 1024)
            .spawn(move || {
                runtime.block_on(async move {
                    // The sender is dropped with the data plane; both mean the end.
                    let _ = ended.wait_for(|ending| *ending).await;
                });
            })?;
        let events = tokio::sync::Mutex::new(events);
        Ok(Self {
            settings,
            node,
            control,
            events,
            ending,
            servers: Mutex::new(servers),
            inherited: Mutex::new(inherited),
        })
    }

    /// State and counters.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.node.shared
    }

    // ---- pods

    /// Serve a pod on every worker; one that is served from the same namespace is left as it is.
    pub fn add_pod(&self, pod: Pod, inherited: Inherited) -> io::Result<()> {
        let previous = self.node.pods().get(&pod.uid).cloned();
        if let Some(previous) = previous {
            if previous.netns.identity() == pod.netns.identity() {
                return Ok(());
            }
            self.remove_pod(&pod.uid);
        }
        let pod = Arc::new(pod);
        for (worker, share) in self.node.workers.iter().zip(self.share(inherited, Some(&pod.uid))) {
            if let Err(error) = worker.add(Arc::clone(&pod), share) {
                self.node.workers.iter().for_each(|worker| worker.remove(&pod.uid));
                return Err(error);
            }
        }
        let mut pods = self.node.pods();
        pods.insert(pod.uid.clone(), pod);
        self.node.shared.metrics.proxies_started.fetch_add(1, Relaxed);
        self.node
            .shared
            .metrics
            .active_proxies
            .store(i64::try_from(pods.len()).unwrap_or(i64::MAX), Relaxed);
        Ok(())
    }

    /// Take tunnels to ztunnel itself, a pod of these names, so that its metrics can be scraped through the mesh
    /// (ztunnel.md 6.8). Errors when something else is on port 15008 of its namespace.
    pub fn serve_own(&self, namespace: String, name: String, service_account: String) -> io::Result<()> {
        let pod = Arc::new(Pod {
            uid: OWN_UID.to_owned(),
            name,
            namespace,
            service_account,
            netns: Arc::new(Netns::own()?),
            own_ports: Some([self.settings.ports.stats, self.settings.ports.readiness]),
        });
        let inherited = std::mem::take(&mut *self.inherited.lock().unwrap_or_else(PoisonError::into_inner));
        let mut workers = self.node.workers.iter().zip(self.share(inherited, None));
        workers.try_for_each(|(worker, share)| worker.add(Arc::clone(&pod), share))
    }

    /// What each worker gets of a pod's sockets; `uid` of one whose DNS is served.
    fn share(&self, mut inherited: Inherited, uid: Option<&str>) -> Vec<Share> {
        let count = self.node.workers.len();
        let dns_port = self.node.shared.settings.dns.as_ref().map(|dns| dns.address.port());
        let dns_sockets = dns_port.map(|port| inherited.take(port)).unwrap_or_default();
        let dns_worker = uid.map(|uid| dns_worker(uid, count));
        let mut shares = inherited.deal(count);
        if let Some(share) = dns_worker.and_then(|index| shares.get_mut(index)) {
            share.serves_dns = true;
            share.inherited.put(dns_sockets);
        }
        shares
    }

    /// For a successor: duplicates of the sockets that are listened on in a namespace, given by inode and device. In our
    /// own those of our servers are among them, which stop: two processes cannot share what each tells of itself.
    pub fn hand_over(&self, netns: (u64, u64)) -> Vec<OwnedFd> {
        let mut found: Vec<_> = self
            .node
            .workers
            .iter()
            .flat_map(|worker| worker.listeners(netns))
            .collect();
        if Netns::own().is_ok_and(|own| own.identity() == netns) {
            let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
            found.extend(servers.drain(..).filter_map(Server::hand_over));
        }
        found
    }

    /// The successor went away before it took our place: be the one that serves again. Errors when a port is taken.
    pub fn resume(&self) -> io::Result<()> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.is_empty() {
            let _inside = self.control.enter();
            *servers = admin::start(&self.node, self.settings.ports, &mut Inherited::default())?;
        }
        Ok(())
    }

    /// Stop serving a pod.
    pub fn remove_pod(&self, uid: &str) {
        {
            let mut pods = self.node.pods();
            pods.remove(uid);
            self.node
                .shared
                .metrics
                .active_proxies
                .store(i64::try_from(pods.len()).unwrap_or(i64::MAX), Relaxed);
        }
        for worker in &self.node.workers {
            worker.remove(uid);
        }
    }

    /// The uids of all pods that are served.
    pub fn pods(&self) -> Vec<String> {
        self.node.pods().keys().cloned().collect()
    }

    // ---- certificates

    /// The next event, or `None` after `patience`.
    pub fn next_certificate_event(&self, patience: Duration) -> Option<CertificateEvent> {
        self.control.block_on(async {
            let mut events = self.events.lock().await;
            tokio::time::timeout(patience, events.recv()).await.ok().flatten()
        })
    }

    /// Begin to fetch a certificate; the outcome is an event. Nothing happens for an identity that left this node.
    pub fn fetch_certificate(&self, identity: Identity) {
        let (authority, certificates) = (
            self.settings.authority.clone(),
            Arc::clone(&self.node.shared.certificates),
        );
        let (lifetime, rules) = (
            self.settings.security.certificate_lifetime,
            Arc::clone(&self.node.shared.tls),
        );
        if !certificates.is_wanted(&identity) {
            return;
        }
        self.control.spawn(async move {
            let result = signing::fetch(&authority, &identity, lifetime, &rules).await;
            certificates.fetched(&identity, result);
        });
    }

    // ---- discovery

    /// Subscribe to everything of `types`, in this order.
    pub fn open_discovery(&self, types: &[String], by_summary: bool) -> Result<Discovery, ControlError> {
        let first = types
            .iter()
            .map(|type_url| self.first_request(type_url, by_summary))
            .collect();
        let opening = DiscoveryStream::open(&self.settings.discovery, first);
        let stream = self.control.block_on(opening);
        let stream = stream.inspect_err(|error| self.node.shared.metrics.xds.terminated(error.termination()))?;
        if let Some(demand) = &self.node.shared.demand {
            demand.connected(stream.requests());
        }
        Ok(Discovery {
            stream: tokio::sync::Mutex::new(stream),
            requests: self.ending.subscribe(),
            closed: watch::Sender::new(false),
            shared: Arc::clone(&self.node.shared),
            control: self.control.clone(),
            address: self.settings.discovery.address.clone(),
        })
    }

    fn first_request(&self, type_url: &str, by_summary: bool) -> DeltaDiscoveryRequest {
        let text = |value: &String| Value {
            kind: Some(Kind::StringValue(value.clone())),
        };
        let fields = self
            .settings
            .node_metadata
            .iter()
            .map(|(key, value)| (key.clone(), text(value)))
            .collect();
        let node = discovery::Node {
            id: self.settings.node_id.clone(),
            metadata: Some(Struct { fields }),
        };
        // Everything, and then not: the way to say "nothing yet" (ztunnel.md 4.3). No name at all is everything.
        let is_partial = self.settings.on_demand && type_url == ADDRESS_TYPE;
        let versions = resource_type(type_url).map(|resource_type| {
            let owned = |(name, version): (&str, String)| (name.to_owned(), version);
            self.node.shared.with_writer(|writer| {
                let versions = writer.versions(resource_type);
                if by_summary && !is_partial {
                    summary::as_versions(versions)
                } else {
                    versions.map(owned).collect()
                }
            })
        });
        let everything: Vec<_> = is_partial.then(|| "*".to_owned()).into_iter().collect();
        DeltaDiscoveryRequest {
            node: Some(node),
            type_url: type_url.to_owned(),
            resource_names_subscribe: everything.clone(),
            resource_names_unsubscribe: everything,
            initial_resource_versions: versions.unwrap_or_default(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    // ---- ending

    /// Stop accepting; let connections end by themselves until the deadline, then end them.
    pub fn drain(&self, deadline: Duration) {
        self.node.shared.start_draining();
        let drained: Vec<_> = self.node.workers.iter().map(|worker| worker.drain(deadline)).collect();
        for done in drained {
            // A worker that has ended has nothing left to drain.
            let _ = done.blocking_recv();
        }
    }
}

/// Which worker serves a pod's DNS: one, so that an idle pod stays cheap, and not the same for all pods.
fn dns_worker(uid: &str, workers: usize) -> usize {
    let add = |sum: usize, byte: u8| sum.wrapping_mul(31).wrapping_add(byte.into());
    uid.bytes().fold(0, add) % workers
}

fn resource_type(type_url: &str) -> Option<ResourceType> {
    match type_url {
        ADDRESS_TYPE => Some(ResourceType::Address),
        AUTHORIZATION_TYPE => Some(ResourceType::Authorization),
        _ => None,
    }
}

fn view(resource: &discovery::Resource) -> Resource<'_> {
    let value = resource.resource.as_ref().map(|any| &*any.value);
    // Names and versions are texts; what is none names nothing, and its resource is known by its content alone.
    let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
    Resource {
        name: text(&resource.name),
        version: text(&resource.version),
        value,
    }
}

/// What a response did to the state.
pub struct Applied {
    /// Which type.
    pub type_url: String,
    /// To be acknowledged with.
    pub nonce: String,
    /// How many resources were taken.
    pub accepted: usize,
    /// How many were removed.
    pub removed: usize,
    /// Name and reason of each that was not taken.
    pub rejections: Vec<(String, String)>,
    /// Whether the controller understands summaries.
    pub knows_summaries: bool,
}

/// A discovery stream that applies what it receives.
pub struct Discovery {
    stream: tokio::sync::Mutex<DiscoveryStream>,
    requests: watch::Receiver<bool>,
    closed: watch::Sender<bool>,
    shared: Arc<Shared>,
    control: tokio::runtime::Handle,
    address: String,
}

impl Discovery {
    /// Wait for the next response and apply it. Errors when the stream ends, or the process or `close` ends it.
    pub fn receive(&self) -> Result<Applied, ControlError> {
        let response = self.control.block_on(async {
            let mut stream = self.stream.lock().await;
            let (mut ending, mut closed) = (self.requests.clone(), self.closed.subscribe());
            tokio::select! {
                response = stream.receive() => response,
                _ = ending.wait_for(|ending| *ending) => Err(ControlError::Ended { address: self.address.clone() }),
                _ = closed.wait_for(|closed| *closed) => Err(ControlError::Ended { address: self.address.clone() }),
            }
        });
        let response = response.inspect_err(|error| self.shared.metrics.xds.terminated(error.termination()))?;
        let count = response.resources.len();
        let applied = self.apply(response);
        memory::give_back_after(count);
        Ok(applied)
    }

    fn apply(&self, response: DeltaDiscoveryResponse) -> Applied {
        self.shared
            .metrics
            .xds
            .received(&response.type_url, response.encoded_len());
        let knows_summaries = response.knows_summaries();
        let DeltaDiscoveryResponse {
            resources,
            type_url,
            nonce,
            removed_resources,
            ..
        } = response;
        let Some(resource_type) = resource_type(&type_url) else {
            let rejections = vec![("*".to_owned(), format!("resource type {type_url:?} is not known here"))];
            return Applied {
                type_url,
                nonce,
                accepted: 0,
                removed: 0,
                rejections,
                knows_summaries,
            };
        };
        let views: Vec<_> = resources.iter().map(view).collect();
        let applied = self.shared.update(|writer| match resource_type {
            ResourceType::Address => writer.apply_addresses(&views, &removed_resources),
            ResourceType::Authorization => writer.apply_authorizations(&views, &removed_resources),
        });
        if let Some(demand) = self
            .shared
            .demand
            .as_ref()
            .filter(|_| resource_type == ResourceType::Address)
        {
            demand.answered(views.iter().map(|resource| resource.name), &removed_resources);
        }
        let rejections = applied
            .rejected
            .into_iter()
            .map(|rejected| (rejected.name, rejected.error.to_string()))
            .collect();
        Applied {
            type_url,
            nonce,
            accepted: applied.accepted,
            removed: applied.removed,
            rejections,
            knows_summaries,
        }
    }

    /// Answer a response.
    pub fn acknowledge(&self, type_url: String, nonce: String, error: Option<String>) -> Result<(), ControlError> {
        let request = DeltaDiscoveryRequest {
            type_url,
            response_nonce: nonce,
            // Code 3 is INVALID_ARGUMENT.
            error_detail: error.map(|message| RpcStatus { code: 3, message }),
            ..DeltaDiscoveryRequest::default()
        };
        self.control
            .block_on(async { self.stream.lock().await.send(request).await })
    }

    /// End the stream.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }
}
