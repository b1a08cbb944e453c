//! From what is known of both ends to labels of metrics and log lines, and to the baggage that tells the other end.

use std::sync::Arc;

use ambit_core::hbone::Baggage;
use ambit_core::identity::Identity;
use ambit_core::mesh_state::{Service, ServiceKey, Workload, WorkloadType};
use ambit_core::wire::workload::WorkloadType as WireType;

use crate::telemetry::Peer;

/// An end as discovery knows it; unknown when it knows none.
pub(crate) fn peer(workload: Option<&Workload>) -> Peer {
    let Some(workload) = workload else {
        return Peer::default();
    };
    let profile = &workload.profile;
    Peer {
        workload: Arc::clone(&profile.workload_name),
        canonical_name: Arc::clone(&profile.canonical_name),
        canonical_revision: Arc::clone(&profile.canonical_revision),
        namespace: Arc::clone(&profile.namespace),
        cluster: Arc::clone(&workload.place.cluster),
        region: Arc::clone(&workload.place.region),
        zone: Arc::clone(&workload.place.zone),
        principal: workload.identity().cloned(),
    }
}

/// A client: the workload of its address, or else what it says of itself; its principal only as proved
/// (facts/ztunnel.md 3.2, 5).
pub(crate) fn client(workload: Option<&Workload>, baggage: Option<&Baggage>, proved: Option<&Identity>) -> Peer {
    let mut labels = match (workload, baggage) {
        (Some(workload), _) => peer(Some(workload)),
        (None, Some(baggage)) => from_baggage(baggage),
        (None, None) => Peer::default(),
    };
    labels.principal = proved.cloned();
    labels
}

/// The far end of a connection through a gateway: what it says of itself, its principal as proved (facts/ztunnel.md 1.10).
pub(crate) fn far_end(baggage: Option<&Baggage>, proved: &Identity) -> Peer {
    client(None, baggage, Some(proved))
}

fn from_baggage(baggage: &Baggage) -> Peer {
    let text = |text: &Option<String>| text.as_deref().map(Arc::from).unwrap_or_default();
    Peer {
        workload: baggage
            .workload
            .as_ref()
            .map(|(_, name)| Arc::from(name.as_str()))
            .unwrap_or_default(),
        canonical_name: text(&baggage.service),
        canonical_revision: text(&baggage.version),
        namespace: text(&baggage.namespace),
        cluster: text(&baggage.cluster),
        region: text(&baggage.region),
        zone: text(&baggage.zone),
        ..Peer::default()
    }
}

/// The service that was asked for; nothing when it was none.
pub(crate) fn service(service: Option<&Service>) -> Option<(ServiceKey, Arc<str>)> {
    service.map(|service| (service.key.clone(), Arc::clone(&service.name)))
}

/// What a workload's agent tells of it (facts/ztunnel.md 1.5).
pub(crate) fn baggage(workload: &Workload) -> Baggage {
    let profile = &workload.profile;
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let kind = match profile.workload_type {
        WorkloadType::Deployment => WireType::Deployment,
        WorkloadType::CronJob => WireType::Cronjob,
        WorkloadType::Pod => WireType::Pod,
        WorkloadType::Job => WireType::Job,
    };
    Baggage {
        cluster: text(&workload.place.cluster),
        namespace: text(&profile.namespace),
        workload: text(&profile.workload_name).map(|name| (kind, name)),
        service: text(&profile.canonical_name),
        version: text(&profile.canonical_revision),
        region: text(&workload.place.region),
        zone: text(&workload.place.zone),
    }
}
