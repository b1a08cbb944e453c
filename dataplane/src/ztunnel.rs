//! `ambit_io::ztunnel` for Python.

use std::collections::HashMap;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ambit_core::dns::Resolver;
use ambit_core::identity::Identity;
use ambit_io::admin::AdminPorts;
use ambit_io::certificates::{CertificateEvent, Need};
use ambit_io::handover::Inherited;
use ambit_io::logging::Level;
use ambit_io::netns::Netns;
use ambit_io::proxy::Pod;
use ambit_io::settings as traffic;
use ambit_io::ztunnel::{Discovery, Settings};
use pyo3::prelude::*;

use crate::errors::{control, invalid_input, transient};
use crate::streams::AddWorkload;

/// Take over descriptors that Python received.
fn inherit(descriptors: Vec<i32>) -> Inherited {
    // SAFETY: the caller hands over descriptors that it received and uses nowhere else.
    let take = |descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) };
    Inherited::new(descriptors.into_iter().map(take).collect())
}

/// Where the controller is.
#[pyclass(frozen)]
pub(crate) struct ControlPlane(ambit_io::control::ControlPlane);

#[pymethods]
impl ControlPlane {
    #[new]
    #[pyo3(signature = (*, address, root_ca, server_name, token, cluster_id))]
    fn new(
        address: String,
        root_ca: PathBuf,
        server_name: Option<String>,
        token: Option<PathBuf>,
        cluster_id: String,
    ) -> Self {
        Self(ambit_io::control::ControlPlane {
            address,
            root_ca,
            server_name,
            token,
            cluster_id,
        })
    }
}

/// How connections are carried.
#[pyclass(frozen)]
pub(crate) struct TrafficSettings(traffic::TrafficSettings);

#[pymethods]
impl TrafficSettings {
    #[new]
    #[pyo3(signature = (*, packet_mark, ipv6, port_reuse, original_source, keepalive, user_timeout, streams_per_tunnel, unused_release_seconds, stream_window, connection_window, frame_size, baggage, localhost_application_tunnel, node_local, busy_poll, socks5, dns))]
    #[expect(
        clippy::too_many_arguments,
        reason = "keyword arguments of a Python class, each named at the call"
    )]
    fn new(
        packet_mark: u32,
        ipv6: bool,
        port_reuse: bool,
        original_source: Option<bool>,
        keepalive: Option<(f64, f64, u32)>,
        user_timeout: bool,
        streams_per_tunnel: u32,
        unused_release_seconds: f64,
        stream_window: u32,
        connection_window: u32,
        frame_size: u32,
        baggage: bool,
        localhost_application_tunnel: bool,
        node_local: bool,
        busy_poll: bool,
        socks5: bool,
        dns: Option<(String, PathBuf, String, Option<String>)>,
    ) -> PyResult<Self> {
        let dns = dns.map(|(address, resolv_conf, domain, preferred_namespace)| {
            Ok::<_, PyErr>(traffic::DnsSettings {
                address: address
                    .parse()
                    .map_err(|_| invalid_input(format!("{address:?} is no address to serve DNS at")))?,
                resolv_conf,
                resolver: Resolver {
                    domain: domain.into(),
                    preferred_namespace: preferred_namespace.map(Into::into),
                    ipv6,
                },
            })
        });
        Ok(Self(traffic::TrafficSettings {
            sockets: traffic::SocketSettings {
                mark: packet_mark,
                ipv6,
                port_reuse,
                original_source: match original_source {
                    None => traffic::OriginalSource::WherePermitted,
                    Some(true) => traffic::OriginalSource::Always,
                    Some(false) => traffic::OriginalSource::Never,
                },
                keepalive: keepalive
                    .map(|(time, interval, retries)| {
                        Ok::<_, PyErr>(traffic::Keepalive {
                            time: duration(time)?,
                            interval: duration(interval)?,
                            retries,
                        })
                    })
                    .transpose()?,
                user_timeout,
            },
            pool: traffic::PoolSettings {
                streams_per_tunnel,
                unused_release: duration(unused_release_seconds)?,
            },
            http2: traffic::Http2Settings {
                stream_window,
                connection_window,
                frame_size,
            },
            baggage: if baggage {
                traffic::Baggage::Exchanged
            } else {
                traffic::Baggage::Ignored
            },
            application_tunnel: if localhost_application_tunnel {
                traffic::ApplicationTunnelAddress::Loopback
            } else {
                traffic::ApplicationTunnelAddress::Pod
            },
            node_local,
            busy_poll,
            socks5,
            dns: dns.transpose()?,
        }))
    }
}

/// How identities are proved and policies are reported.
#[pyclass(frozen)]
pub(crate) struct SecuritySettings(traffic::SecuritySettings);

#[pymethods]
impl SecuritySettings {
    #[new]
    #[pyo3(signature = (*, certificate_lifetime_seconds, revocation_lists, post_quantum_only, log_dry_runs))]
    fn new(
        certificate_lifetime_seconds: f64,
        revocation_lists: Option<PathBuf>,
        post_quantum_only: bool,
        log_dry_runs: bool,
    ) -> PyResult<Self> {
        Ok(Self(traffic::SecuritySettings {
            certificate_lifetime: duration(certificate_lifetime_seconds)?,
            revocation_lists,
            key_exchange: match post_quantum_only {
                true => traffic::KeyExchange::PostQuantumOnly,
                false => traffic::KeyExchange::PostQuantumPreferred,
            },
            dry_run_level: if log_dry_runs { Level::Info } else { Level::Debug },
        }))
    }
}

fn duration(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|error| invalid_input(error.to_string()))
}

/// What the data plane is told at its start.
#[pyclass(frozen)]
pub(crate) struct ZtunnelSettings(Settings);

#[pymethods]
impl ZtunnelSettings {
    #[new]
    #[pyo3(signature = (*, node_name, cluster_id, network, node_id, node_metadata, discovery, on_demand, authority, workers, traffic, security, admin_port, stats_port, readiness_port))]
    #[expect(
        clippy::too_many_arguments,
        reason = "keyword arguments of a Python class, each named at the call"
    )]
    fn new(
        node_name: String,
        cluster_id: String,
        network: String,
        node_id: String,
        node_metadata: HashMap<String, String>,
        discovery: &Bound<'_, ControlPlane>,
        on_demand: bool,
        authority: &Bound<'_, ControlPlane>,
        workers: usize,
        traffic: &Bound<'_, TrafficSettings>,
        security: &Bound<'_, SecuritySettings>,
        admin_port: u16,
        stats_port: u16,
        readiness_port: u16,
    ) -> Self {
        Self(Settings {
            node_name,
            cluster_id,
            network,
            node_id,
            node_metadata,
            discovery: discovery.get().0.clone(),
            on_demand,
            authority: authority.get().0.clone(),
            workers,
            traffic: traffic.get().0.clone(),
            security: security.get().0.clone(),
            ports: AdminPorts {
                admin: admin_port,
                stats: stats_port,
                readiness: readiness_port,
            },
        })
    }
}

/// What one response did.
#[pyclass(frozen, get_all)]
pub(crate) struct DiscoveryResponse {
    type_url: String,
    nonce: String,
    accepted: usize,
    removed: usize,
    rejections: Vec<(String, String)>,
    knows_summaries: bool,
}

/// One delta-ADS stream.
#[pyclass(frozen)]
pub(crate) struct DiscoveryStream(Discovery);

#[pymethods]
impl DiscoveryStream {
    fn receive(&self, py: Python<'_>) -> PyResult<DiscoveryResponse> {
        let applied = py.detach(|| self.0.receive()).map_err(control)?;
        Ok(DiscoveryResponse {
            type_url: applied.type_url,
            nonce: applied.nonce,
            accepted: applied.accepted,
            removed: applied.removed,
            rejections: applied.rejections,
            knows_summaries: applied.knows_summaries,
        })
    }

    #[pyo3(signature = (type_url, nonce, error))]
    fn acknowledge(&self, py: Python<'_>, type_url: String, nonce: String, error: Option<String>) -> PyResult<()> {
        py.detach(|| self.0.acknowledge(type_url, nonce, error))
            .map_err(control)
    }

    fn close(&self) {
        self.0.close();
    }
}

/// A certificate is missing.
#[pyclass(frozen, get_all)]
pub(crate) struct CertificateWanted {
    identity: String,
    for_traffic: bool,
}

/// A certificate is there.
#[pyclass(frozen, get_all)]
pub(crate) struct CertificateFetched {
    identity: String,
    not_before: f64,
    not_after: f64,
}

/// A certificate could not be had.
#[pyclass(frozen, get_all)]
pub(crate) struct CertificateFailed {
    identity: String,
    reason: String,
    valid_until: Option<f64>,
}

/// A fetch has come to nothing.
#[pyclass(frozen, get_all)]
pub(crate) struct CertificateDiscarded {
    identity: String,
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

fn certificate_event(py: Python<'_>, event: CertificateEvent) -> PyResult<Py<PyAny>> {
    Ok(match event {
        CertificateEvent::Wanted(identity, need) => Py::new(
            py,
            CertificateWanted {
                identity: identity.to_string(),
                for_traffic: need == Need::Traffic,
            },
        )?
        .into_any(),
        CertificateEvent::Fetched(identity, not_before, not_after) => {
            let (not_before, not_after) = (unix_seconds(not_before), unix_seconds(not_after));
            Py::new(
                py,
                CertificateFetched {
                    identity: identity.to_string(),
                    not_before,
                    not_after,
                },
            )?
            .into_any()
        }
        CertificateEvent::Failed(identity, reason, kept) => Py::new(
            py,
            CertificateFailed {
                identity: identity.to_string(),
                reason,
                valid_until: kept.map(unix_seconds),
            },
        )?
        .into_any(),
        CertificateEvent::Discarded(identity) => Py::new(
            py,
            CertificateDiscarded {
                identity: identity.to_string(),
            },
        )?
        .into_any(),
    })
}

/// The data plane of one node.
#[pyclass(frozen)]
pub(crate) struct Ztunnel(ambit_io::ztunnel::Ztunnel);

#[pymethods]
impl Ztunnel {
    #[new]
    fn new(py: Python<'_>, settings: &Bound<'_, ZtunnelSettings>, inherited: Vec<i32>) -> PyResult<Self> {
        let settings = settings.get().0.clone();
        let inherited = inherit(inherited);
        let started = py.detach(|| ambit_io::ztunnel::Ztunnel::start(settings, inherited));
        started
            .map(Self)
            .map_err(|error| invalid_input(format!("the data plane cannot start: {error}")))
    }

    fn open_discovery(&self, py: Python<'_>, type_urls: Vec<String>, by_summary: bool) -> PyResult<DiscoveryStream> {
        py.detach(|| self.0.open_discovery(&type_urls, by_summary))
            .map(DiscoveryStream)
            .map_err(control)
    }

    fn next_certificate_event(&self, py: Python<'_>, timeout_seconds: f64) -> PyResult<Option<Py<PyAny>>> {
        let patience = Duration::from_secs_f64(timeout_seconds.clamp(0.0, 3600.0));
        match py.detach(|| self.0.next_certificate_event(patience)) {
            Some(event) => certificate_event(py, event).map(Some),
            None => Ok(None),
        }
    }

    fn fetch_certificate(&self, identity: &str) -> PyResult<()> {
        let parsed = Identity::parse(identity).map_err(|error| invalid_input(error.to_string()))?;
        self.0.fetch_certificate(parsed);
        Ok(())
    }

    fn add_pod(&self, py: Python<'_>, pod: &Bound<'_, AddWorkload>, netns: i32, inherited: Vec<i32>) -> PyResult<()> {
        let inherited = inherit(inherited);
        // SAFETY: the caller hands over a descriptor that it received and uses nowhere else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(netns) };
        let AddWorkload {
            uid,
            name,
            namespace,
            service_account,
        } = pod.get();
        let failed = |error: std::io::Error| {
            transient(format!(
                "cannot serve pod {namespace}/{name}: {error}; is something else on ports 15001, 15006 or 15008 in it?"
            ))
        };
        let netns = Arc::new(Netns::new(descriptor).map_err(failed)?);
        let pod = Pod {
            uid: uid.clone(),
            name: name.clone(),
            namespace: namespace.clone(),
            service_account: service_account.clone(),
            netns,
            own_ports: None,
        };
        py.detach(|| self.0.add_pod(pod, inherited)).map_err(failed)
    }

    fn hand_over(&self, py: Python<'_>, inode: u64, device: u64) -> Vec<i32> {
        let sockets = py.detach(|| self.0.hand_over((inode, device)));
        sockets.into_iter().map(IntoRawFd::into_raw_fd).collect()
    }

    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.resume())
            .map_err(|error| transient(error.to_string()))
    }

    fn serve_own(&self, py: Python<'_>, namespace: String, name: String, service_account: String) -> PyResult<()> {
        py.detach(|| self.0.serve_own(namespace, name, service_account))
            .map_err(|error| {
                transient(format!(
                    "cannot take tunnels on port 15008 of ztunnel's own namespace: {error}"
                ))
            })
    }

    fn remove_pod(&self, py: Python<'_>, uid: &str) {
        py.detach(|| self.0.remove_pod(uid));
    }

    fn pods(&self) -> Vec<String> {
        self.0.pods()
    }

    fn set_pending_pods(&self, count: i64) {
        self.0
            .shared()
            .metrics
            .pending_proxies
            .store(count, std::sync::atomic::Ordering::Relaxed);
    }

    fn set_ready(&self, task: &str, ready: bool) {
        self.0.shared().readiness.set(task, ready);
    }

    fn metrics(&self) -> String {
        self.0.shared().metrics.render()
    }

    fn drain(&self, py: Python<'_>, deadline_seconds: f64) {
        py.detach(|| {
            self.0
                .drain(Duration::from_secs_f64(deadline_seconds.clamp(0.0, 7.0 * 86_400.0)))
        });
    }
}
