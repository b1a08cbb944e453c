//! What a changed resource touches: the indexes of a [`MeshState`]. Every function here costs O(log n) of the mesh.

use std::{
    cmp::Ordering,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use imbl::OrdMap;

use super::{ByUid, MeshState, Service, ServiceKey, Workload};
use crate::policy::{Policy, PolicyScope};

/// The workloads that claim one key, best first. Nearly always one, which then costs no allocation.
#[derive(Clone, Debug)]
pub(super) enum Claimants {
    One(Arc<Workload>),
    Many(Arc<[Arc<Workload>]>),
}

/// A service that owns a virtual address or range in a network.
#[derive(Clone, Debug)]
pub(super) struct VipHolder {
    pub(super) network: Arc<str>,
    pub(super) service: Arc<Service>,
}

impl VipHolder {
    fn order(&self, other: &Self) -> Ordering {
        self.service
            .key
            .cmp(&other.service.key)
            .then_with(|| self.network.cmp(&other.network))
    }
}

impl Claimants {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Arc<Workload>> {
        match self {
            Self::One(workload) => std::slice::from_ref(workload).iter(),
            Self::Many(workloads) => workloads.iter(),
        }
    }

    fn from_sorted(mut workloads: Vec<Arc<Workload>>) -> Option<Self> {
        match workloads.len() {
            0 => None,
            1 => workloads.pop().map(Self::One),
            _ => Some(Self::Many(workloads.into())),
        }
    }
}

/// One form for an address, 16 bytes wide: IPv4 addresses take IPv6's mapped form.
pub(super) fn ip_key(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Names a pod as the node agent does.
pub(super) fn local_key(namespace: &str, name: &str, service_account: &str) -> String {
    format!("{namespace}/{name}/{service_account}")
}

impl MeshState {
    pub(super) fn insert_workload(&mut self, workload: &Arc<Workload>) {
        self.remove_workload(&workload.uid);
        self.workloads.insert(ByUid(workload.clone()));
        for service in &workload.profile.services {
            let endpoints = match self.endpoints.get_mut(&service.service) {
                Some(endpoints) => endpoints,
                None => self.endpoints.entry(service.service.clone()).or_default(),
            };
            Arc::make_mut(endpoints).insert(workload);
        }
        if !workload.profile.is_host_network {
            workload
                .addresses()
                .iter()
                .for_each(|ip| claim(&mut self.workloads_by_ip, ip_key(*ip), workload));
        }
        if let Some(key) = hostname_key(workload) {
            claim(&mut self.workloads_by_hostname, key, workload);
        }
        if self.is_local(workload) {
            claim(&mut self.local_workloads, local_key_of(workload), workload);
        }
    }

    pub(super) fn remove_workload(&mut self, uid: &str) -> Option<Arc<Workload>> {
        let workload = self.workloads.remove(uid)?.0;
        for service in &workload.profile.services {
            if let Some(endpoints) = self.endpoints.get_mut(&service.service) {
                Arc::make_mut(endpoints).remove(uid);
                if endpoints.len() == 0 {
                    self.endpoints.remove(&service.service);
                }
            }
        }
        workload
            .addresses()
            .iter()
            .for_each(|ip| unclaim(&mut self.workloads_by_ip, &ip_key(*ip), &workload));
        if let Some(key) = hostname_key(&workload) {
            unclaim(&mut self.workloads_by_hostname, &key, &workload);
        }
        unclaim(&mut self.local_workloads, &local_key_of(&workload), &workload);
        Some(workload)
    }

    pub(super) fn insert_service(&mut self, service: &Arc<Service>) {
        self.remove_service(service.key.as_str());
        let by_key = |a: &Arc<Service>, b: &Arc<Service>| a.key.cmp(&b.key);
        for vip in &service.vips {
            let holder = VipHolder {
                service: service.clone(),
                network: vip.network.clone(),
            };
            add(&mut self.services_by_vip, vip.ip, holder, VipHolder::order);
        }
        for range in &service.cidr_vips {
            let holder = VipHolder {
                service: service.clone(),
                network: range.network.clone(),
            };
            add(&mut self.services_by_cidr, range.cidr, holder, VipHolder::order);
            *self.cidr_lengths.entry(length_key(range.cidr)).or_default() += 1;
        }
        add(
            &mut self.services_by_hostname,
            service.hostname().into(),
            service.clone(),
            by_key,
        );
        if let Some(endpoints) = self.endpoints.get_mut(&service.key) {
            Arc::make_mut(endpoints).forget_tables();
        }
        self.services.insert(service.key.clone(), service.clone());
    }

    pub(super) fn remove_service(&mut self, key: &str) -> Option<Arc<Service>> {
        let service = self.services.remove(key)?;
        for vip in &service.vips {
            remove(&mut self.services_by_vip, &vip.ip, |h| h.service.key == service.key);
        }
        for range in &service.cidr_vips {
            remove(&mut self.services_by_cidr, &range.cidr, |h| {
                h.service.key == service.key
            });
            let count = self.cidr_lengths.entry(length_key(range.cidr)).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.cidr_lengths.remove(&length_key(range.cidr));
            }
        }
        remove(&mut self.services_by_hostname, &Arc::from(service.hostname()), |s| {
            s.key == service.key
        });
        Some(service)
    }

    pub(super) fn insert_policy(&mut self, policy: &Arc<Policy>) {
        self.remove_policy(policy.key.as_str());
        self.policy_version += 1;
        self.policies.insert(policy.key.clone(), policy.clone());
        let by_key = |a: &Arc<Policy>, b: &Arc<Policy>| a.key.cmp(&b.key);
        match policy.scope {
            PolicyScope::Global => self.global_policies = with(&self.global_policies, policy.clone(), by_key),
            PolicyScope::Namespace => {
                add(
                    &mut self.namespace_policies,
                    policy.namespace.clone(),
                    policy.clone(),
                    by_key,
                );
            }
            PolicyScope::WorkloadSelector => {}
        }
    }

    pub(super) fn remove_policy(&mut self, key: &str) -> Option<Arc<Policy>> {
        let policy = self.policies.remove(key)?;
        self.policy_version += 1;
        let is_it = |other: &Arc<Policy>| other.key == policy.key;
        match policy.scope {
            PolicyScope::Global => self.global_policies = without(&self.global_policies, is_it).into(),
            PolicyScope::Namespace => remove(&mut self.namespace_policies, &policy.namespace, is_it),
            PolicyScope::WorkloadSelector => {}
        }
        Some(policy)
    }
}

fn hostname_key(workload: &Workload) -> Option<ServiceKey> {
    let hostname = &workload.profile.hostname;
    (!hostname.is_empty()).then(|| ServiceKey::new(workload.namespace(), hostname))
}

fn local_key_of(workload: &Workload) -> Arc<str> {
    local_key(workload.namespace(), workload.name(), &workload.profile.service_account).into()
}

fn length_key(cidr: ipnet::IpNet) -> (bool, u8) {
    (cidr.addr().is_ipv6(), cidr.prefix_len())
}

fn claim<K: Ord + Clone>(index: &mut OrdMap<K, Claimants>, key: K, workload: &Arc<Workload>) {
    let mut claimants: Vec<_> = index.get(&key).into_iter().flat_map(Claimants::iter).cloned().collect();
    claimants.retain(|w| w.uid != workload.uid);
    claimants.push(workload.clone());
    claimants.sort_by(|a, b| a.claim_rank().cmp(&b.claim_rank()));
    if let Some(claimants) = Claimants::from_sorted(claimants) {
        index.insert(key, claimants);
    }
}

fn unclaim<K: Ord + Clone>(index: &mut OrdMap<K, Claimants>, key: &K, workload: &Workload) {
    let Some(claimants) = index.get(key) else { return };
    let left: Vec<_> = claimants.iter().filter(|w| w.uid != workload.uid).cloned().collect();
    match Claimants::from_sorted(left) {
        Some(left) => index.insert(key.clone(), left),
        None => index.remove(key),
    };
}

fn add<K: Ord + Clone, V: Clone>(
    index: &mut OrdMap<K, Arc<[V]>>,
    key: K,
    value: V,
    order: impl Fn(&V, &V) -> Ordering,
) {
    let values = with(index.get(&key).map_or(&[], |values| values), value, order);
    index.insert(key, values);
}

fn remove<K: Ord + Clone, V: Clone>(index: &mut OrdMap<K, Arc<[V]>>, key: &K, is_it: impl Fn(&V) -> bool) {
    let Some(values) = index.get(key) else { return };
    let left = without(values, is_it);
    if left.is_empty() {
        index.remove(key);
    } else {
        index.insert(key.clone(), left.into());
    }
}

fn with<V: Clone>(values: &[V], value: V, order: impl Fn(&V, &V) -> Ordering) -> Arc<[V]> {
    let (Ok(at) | Err(at)) = values.binary_search_by(|v| order(v, &value));
    let after = values[at..].iter().filter(|v| order(v, &value).is_ne());
    values[..at].iter().chain([&value]).chain(after).cloned().collect()
}

fn without<V: Clone>(values: &[V], is_it: impl Fn(&V) -> bool) -> Vec<V> {
    values.iter().filter(|v| !is_it(v)).cloned().collect()
}
