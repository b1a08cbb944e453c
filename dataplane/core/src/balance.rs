//! Which endpoint of a service a connection goes to (facts/ztunnel.md sections 2.5 and 2.7).
//!
//! An endpoint is eligible when it is ready (or the service takes unready ones), can be dialled from the client's network,
//! and has a target for the port. Of these, the service's mode keeps all, those that share most with the client, or only
//! those that share everything asked for; among what is kept, the weights decide.

use std::{cmp::Ordering, sync::Arc};

pub(crate) use crate::mesh_state::Question;
use crate::mesh_state::{LoadBalancerMode, MeshState, Place, PortMapping, Row, Scope, Service, Workload, target_port};

/// What the endpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is the destination, or a network's gateway.
    Destination,
    /// It is a waypoint: one with an application tunnel needs no port of its service.
    Waypoint,
}

/// The endpoint that was chosen.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// Which workload.
    pub workload: &'a Arc<Workload>,
    /// Its own port for the service's.
    pub port: u16,
}

/// Why there is none. The counts tell an operator where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoEndpoint {
    /// The service does not have the port.
    NoPort {
        /// Those that it has.
        ports: Vec<u16>,
    },
    /// Nothing that serves it can be used.
    NoneUsable {
        /// How many endpoints it has.
        total: usize,
        /// How many of them are not ready.
        unhealthy: usize,
    },
}

/// From this many endpoints on, the answer is worth its memory: 24 bytes for each. To walk over fewer takes a microsecond.
const SMALLEST_REMEMBERED: usize = 16;

/// Choose an endpoint of `service`, which is of `state`, for a client at `from`. `sample` is uniform over all 64-bit
/// numbers.
///
/// Costs two walks over the service's endpoints; with many of them only the first time, see `mesh_state/endpoints.rs`.
pub fn choose_endpoint<'a>(
    state: &'a MeshState,
    from: &Arc<Place>,
    service: &Service,
    service_port: u16,
    purpose: Purpose,
    sample: u64,
) -> Result<Endpoint<'a>, NoEndpoint> {
    let question = Question {
        from: from.clone(),
        service_port,
        purpose,
    };
    let candidates = Candidates {
        state,
        service,
        question: &question,
        excluded: None,
    };
    let endpoints = state
        .endpoint_set(&service.key)
        .filter(|e| e.len() >= SMALLEST_REMEMBERED);
    let table = endpoints.and_then(|e| e.table(&question, || candidates.to_rows()));
    let chosen = match table {
        Some(table) => table.pick(sample).map(|row| Endpoint {
            workload: &row.workload,
            port: row.port,
        }),
        None => candidates.pick(sample),
    };
    chosen.ok_or_else(|| explain(state, service, service_port))
}

/// The same without the workload of uid `excluded`, which has just turned out not to answer. Always walks.
pub(crate) fn choose_another_endpoint<'a>(
    state: &'a MeshState,
    service: &Service,
    question: &Question,
    excluded: &str,
    sample: u64,
) -> Result<Endpoint<'a>, NoEndpoint> {
    let candidates = Candidates {
        state,
        service,
        question,
        excluded: Some(excluded),
    };
    let chosen = candidates.pick(sample);
    chosen.ok_or_else(|| explain(state, service, question.service_port))
}

/// The endpoints among which one question leaves the choice.
struct Candidates<'a, 'q> {
    state: &'a MeshState,
    service: &'q Service,
    question: &'q Question,
    excluded: Option<&'q str>,
}

impl<'a> Candidates<'a, '_> {
    /// Those that can be used, each with its rank.
    fn usable(&self) -> impl Iterator<Item = (usize, Endpoint<'a>)> {
        let Question {
            from,
            service_port,
            purpose,
        } = self.question;
        let is_ready = |w: &&Arc<Workload>| w.is_healthy || self.service.load_balancer.allow_unhealthy;
        self.state
            .endpoints(&self.service.key)
            .filter(is_ready)
            .filter(|workload| self.excluded != Some(&*workload.uid))
            .filter_map(|workload| {
                let port = endpoint_port(workload, self.service, *service_port, *purpose)?;
                let is_usable = workload.capacity > 0 && workload.is_reachable_from(&from.network);
                let rank = rank(&workload.place, from, self.service).filter(|_| is_usable)?;
                Some((rank, Endpoint { workload, port }))
            })
    }

    /// The best rank, and the sum of the weights in it.
    fn best(&self) -> (usize, u64) {
        self.usable().fold((0, 0), |(best, total), (rank, endpoint)| {
            let weight = u64::from(endpoint.workload.capacity);
            match rank.cmp(&best) {
                Ordering::Less => (best, total),
                Ordering::Equal => (best, total + weight),
                Ordering::Greater => (rank, weight),
            }
        })
    }

    fn of_rank(&self, wanted: usize) -> impl Iterator<Item = Endpoint<'a>> {
        self.usable()
            .filter(move |(rank, _)| *rank == wanted)
            .map(|(_, endpoint)| endpoint)
    }

    fn pick(&self, sample: u64) -> Option<Endpoint<'a>> {
        let (best, total) = self.best();
        pick_by_weight(self.of_rank(best), total, |endpoint| endpoint.workload.capacity, sample)
    }

    fn to_rows(&self) -> Box<[Row]> {
        let mut up_to = 0;
        let rows = self.of_rank(self.best().0).map(|endpoint| {
            up_to += u64::from(endpoint.workload.capacity);
            Row {
                up_to,
                port: endpoint.port,
                workload: endpoint.workload.clone(),
            }
        });
        rows.collect()
    }
}

/// The item that `sample` falls on, each having its weight's share of `total_weight`, the sum over all of `items`.
pub(crate) fn pick_by_weight<T>(
    items: impl Iterator<Item = T>,
    total_weight: u64,
    weight_of: impl Fn(&T) -> u32,
    sample: u64,
) -> Option<T> {
    let mut left = scale(sample, total_weight);
    for item in items {
        let weight = u64::from(weight_of(&item));
        if left < weight {
            return Some(item);
        }
        left -= weight;
    }
    None
}

/// `sample`, uniform over all 64-bit numbers, made uniform below `total`: the high half of their product, with a bias of less
/// than 2^-20 for totals up to 2^44.
pub(crate) fn scale(sample: u64, total: u64) -> u64 {
    ((u128::from(sample) * u128::from(total)) >> 64) as u64
}

/// The workload's own port that serves the service's, or `None` if it cannot serve it.
fn endpoint_port(workload: &Workload, service: &Service, service_port: u16, purpose: Purpose) -> Option<u16> {
    let declared = service.target_port(service_port);
    let tunnel = workload.profile.application_tunnel;
    if declared.is_none() && (purpose == Purpose::Destination || tunnel.is_none()) {
        return None;
    }
    map_port(workload.ports_for(&service.key), service_port, declared).or_else(|| {
        tunnel
            .filter(|t| purpose == Purpose::Waypoint && t.port.is_some())
            .map(|_| service_port)
    })
}

/// The endpoint's own mapping, else the service's; a target of 0 says that only endpoints know.
pub(crate) fn map_port(endpoint: &[PortMapping], service_port: u16, declared: Option<u16>) -> Option<u16> {
    target_port(endpoint, service_port)
        .or(declared)
        .filter(|port| *port != 0)
}

/// How much an endpoint's place has in common with the client's; `None` if it must not be chosen.
fn rank(endpoint: &Place, client: &Place, service: &Service) -> Option<usize> {
    let preference = &service.load_balancer.preference;
    let matches = |scope: &Scope| match scope {
        Scope::Region => endpoint.region == client.region,
        Scope::Zone => endpoint.zone == client.zone,
        Scope::Subzone => endpoint.subzone == client.subzone,
        Scope::Node => endpoint.node == client.node,
        Scope::Cluster => endpoint.cluster == client.cluster,
        Scope::Network => endpoint.network == client.network,
    };
    match service.load_balancer.mode {
        LoadBalancerMode::Standard | LoadBalancerMode::Passthrough => Some(0),
        LoadBalancerMode::Strict => preference.iter().all(matches).then_some(0),
        LoadBalancerMode::Failover => Some(match preference.split_first() {
            // A network that comes first outweighs all the rest, which is compared in either case.
            Some((Scope::Network, rest)) => {
                let same_network = if matches(&Scope::Network) { preference.len() } else { 0 };
                same_network + rest.iter().take_while(|scope| matches(scope)).count()
            }
            _ => preference.iter().take_while(|scope| matches(scope)).count(),
        }),
    }
}

fn explain(state: &MeshState, service: &Service, service_port: u16) -> NoEndpoint {
    if service.target_port(service_port).is_none() {
        return NoEndpoint::NoPort {
            ports: service.ports.iter().map(|p| p.service_port).collect(),
        };
    }
    let endpoints = state.endpoints(&service.key);
    NoEndpoint::NoneUsable {
        total: endpoints.len(),
        unhealthy: endpoints.filter(|w| !w.is_healthy).count(),
    }
}

#[cfg(test)]
mod tests;
