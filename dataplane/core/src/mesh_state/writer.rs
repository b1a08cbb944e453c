//! The one writer: takes what the controller sends, and makes the next version.
//!
//! Within one call updates are applied first, then removals; a resource that is refused leaves its earlier version in
//! force (facts/ztunnel.md sections 4.5, 4.6). Nothing that readers hold is changed: [`MeshWriter::snapshot`] hands out
//! the new version, and publishing it is the caller's.

use std::{collections::BTreeMap, sync::Arc};

use prost::Message;

use super::{
    MeshSettings, MeshState, ResourceError, TunnelProtocol, Workload,
    convert::{to_service, to_workload},
    intern::Interner,
    versions::{Version, Versions},
};
use crate::{identity::Identity, policy, wire::workload as wire};

/// A resource as the controller sent it.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    /// Its name, by which it is removed and its version remembered.
    pub name: &'a str,
    /// Opaque; echoed on reconnect.
    pub version: &'a str,
    /// The message's bytes; `None` when the envelope had none.
    pub value: Option<&'a [u8]>,
}

/// What the controller sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceType {
    /// `type.googleapis.com/istio.workload.Address`.
    Address,
    /// `type.googleapis.com/istio.security.Authorization`.
    Authorization,
}

/// What became of one response.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many resources were taken, changed or not.
    pub accepted: usize,
    /// Refused, by name.
    pub rejected: Vec<Rejected>,
    /// How many resources are gone.
    pub removed: usize,
    /// Names to remove that nothing here has.
    pub unknown_removals: Vec<String>,
    /// Whether a reader could tell the difference: publish the next version.
    pub is_changed: bool,
    /// Identities of local workloads that had none on this node before: certificates to fetch ahead of need.
    pub wanted_identities: Vec<Identity>,
    /// Identities that no local workload has any more: certificates to forget.
    pub forgotten_identities: Vec<Identity>,
}

/// A resource that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The resource's name.
    pub name: String,
    /// What is wrong with it.
    pub error: ResourceError,
}

/// The identities that one response counted, and whether a local workload had them before it.
type Touched = BTreeMap<Identity, bool>;

impl Applied {
    /// The text of a NACK, `name: reason; name: reason`; `None` when everything was taken.
    pub fn error_detail(&self) -> Option<String> {
        let texts: Vec<_> = self
            .rejected
            .iter()
            .map(|r| format!("{}: {}", r.name, r.error))
            .collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

/// After so many resources the writer pauses: some 0.1 ms of work.
const BREATH: usize = 32;

/// Owns the newest version of the mesh.
#[derive(Debug)]
pub struct MeshWriter {
    state: MeshState,
    pause: fn(),
    interner: Interner,
    address_versions: Versions,
    authorization_versions: Versions,
    /// How many local workloads in the mesh have this identity.
    local_identities: BTreeMap<Identity, usize>,
}

impl MeshWriter {
    /// An empty mesh.
    pub fn new(settings: MeshSettings) -> Self {
        Self {
            pause: || {},
            state: MeshState {
                settings,
                ..MeshState::default()
            },
            interner: Interner::default(),
            address_versions: Versions::default(),
            authorization_versions: Versions::default(),
            local_identities: BTreeMap::new(),
        }
    }

    /// The same, but that it calls `pause` every now and then while it applies a large response, so that whoever else waits
    /// for this processor can have it.
    pub fn pausing(self, pause: fn()) -> Self {
        Self { pause, ..self }
    }

    /// The newest version.
    pub fn snapshot(&self) -> MeshState {
        self.state.clone()
    }

    /// Name and version of every accepted resource: `initial_resource_versions` of the next connection.
    pub fn versions(&self, resource_type: ResourceType) -> impl Iterator<Item = (&str, String)> {
        let (named, state) = match resource_type {
            ResourceType::Address => (&self.address_versions, Some(&self.state)),
            ResourceType::Authorization => (&self.authorization_versions, None),
        };
        let workloads = state.into_iter().flat_map(MeshState::workloads);
        let services = state.into_iter().flat_map(MeshState::services);
        let workloads = workloads.map(|w| (&*w.uid, &w.version));
        let services = services.map(|s| (s.key.as_str(), &s.version));
        let own = workloads.chain(services).filter(|(name, _)| !named.contains(name));
        let own = own.filter_map(|(name, version)| Some((name, version.text()?)));
        own.chain(named.iter())
    }

    /// Apply one response of workloads and services.
    pub fn apply_addresses(&mut self, resources: &[Resource<'_>], removed: &[String]) -> Applied {
        let mut applied = Applied::default();
        let mut touched = Touched::new();
        for (number, resource) in resources.iter().enumerate() {
            if number % BREATH == BREATH - 1 {
                (self.pause)();
            }
            let result = self.apply_address(resource, &mut touched);
            applied.count(resource.name, result);
        }
        for name in removed {
            self.address_versions.remove(name);
            match self.remove_address(name, &mut touched) {
                true => applied.removed += 1,
                // Names with more slashes than "namespace/hostname" are uids that were never accepted.
                false => applied.unknown_removals.push(name.clone()),
            }
        }
        applied.is_changed |= applied.removed > 0;
        for (identity, was_local) in touched {
            match (was_local, self.local_identities.contains_key(&identity)) {
                (false, true) => applied.wanted_identities.push(identity),
                (true, false) => applied.forgotten_identities.push(identity),
                _ => {}
            }
        }
        self.interner.sweep();
        applied
    }

    /// Apply one response of policies.
    pub fn apply_authorizations(&mut self, resources: &[Resource<'_>], removed: &[String]) -> Applied {
        let mut applied = Applied::default();
        for resource in resources {
            let result = self.apply_authorization(resource, &mut applied.is_changed);
            applied.count(resource.name, result);
        }
        for name in removed {
            self.authorization_versions.remove(name);
            match self.state.remove_policy(name) {
                Some(_) => applied.removed += 1,
                None => applied.unknown_removals.push(name.clone()),
            }
        }
        applied.is_changed |= applied.removed > 0;
        applied
    }

    /// Take one workload or service. Returns whether anything changed.
    fn apply_address(&mut self, resource: &Resource<'_>, touched: &mut Touched) -> Result<bool, ResourceError> {
        let value = resource.value.ok_or(ResourceError::MissingValue)?;
        let (name, version, is_changed) = match wire::Address::decode(value)?
            .r#type
            .ok_or(ResourceError::EmptyAddress)?
        {
            wire::address::Type::Workload(workload) => {
                let mut workload = to_workload(&workload, &mut self.interner)?;
                let known = self.state.workload(&workload.uid);
                workload.version = known.map(|known| known.version.clone()).unwrap_or_default();
                let is_changed = known.is_none_or(|known| **known != workload);
                let name = workload.uid.clone();
                if is_changed {
                    workload.version = self.own_version(resource, &name);
                }
                let version = workload.version.clone();
                if is_changed {
                    let workload = Arc::new(workload);
                    self.remove_workload(&workload.uid, touched);
                    self.state.insert_workload(&workload);
                    self.count_identity(&workload, touched, |count| count + 1);
                }
                (name, version, is_changed)
            }
            wire::address::Type::Service(service) => {
                let mut service = to_service(&service, &mut self.interner)?;
                let known = self.state.service(service.key.as_str());
                service.version = known.map(|known| known.version.clone()).unwrap_or_default();
                let is_changed = known.is_none_or(|known| **known != service);
                let name = service.key.text();
                if is_changed {
                    service.version = self.own_version(resource, &name);
                }
                let version = service.version.clone();
                if is_changed {
                    self.state.insert_service(&Arc::new(service));
                }
                (name, version, is_changed)
            }
        };
        if *name == *resource.name && version.text().as_deref() == Some(resource.version) {
            // The value has it.
            self.address_versions.remove(resource.name);
        } else {
            self.address_versions.insert(resource.name, resource.version);
        }
        Ok(is_changed)
    }

    /// The version that a new value carries: none when the resource has another name than `key`, the value's own. With
    /// every controller that we know the two are the same.
    fn own_version(&mut self, resource: &Resource<'_>, key: &str) -> Version {
        if *resource.name == *key {
            Version::new(resource.version, |text| self.interner.text(text))
        } else {
            Version::default()
        }
    }

    fn remove_address(&mut self, name: &str, touched: &mut Touched) -> bool {
        self.remove_workload(name, touched) || self.state.remove_service(name).is_some()
    }

    fn remove_workload(&mut self, uid: &str, touched: &mut Touched) -> bool {
        let Some(workload) = self.state.remove_workload(uid) else {
            return false;
        };
        self.count_identity(&workload, touched, |count| count.saturating_sub(1));
        true
    }

    fn count_identity(&mut self, workload: &Workload, touched: &mut Touched, change: impl Fn(usize) -> usize) {
        let is_in_mesh = workload.profile.tunnel == TunnelProtocol::Hbone || workload.profile.native_tunnel;
        let Some(identity) = workload
            .identity()
            .filter(|_| is_in_mesh && self.state.is_local(workload))
        else {
            return;
        };
        let count = self.local_identities.get(identity).copied().unwrap_or_default();
        touched.entry(identity.clone()).or_insert(count > 0);
        match change(count) {
            0 => self.local_identities.remove(identity),
            count => self.local_identities.insert(identity.clone(), count),
        };
    }

    fn apply_authorization(&mut self, resource: &Resource<'_>, is_changed: &mut bool) -> Result<bool, ResourceError> {
        let known = self.state.policy(resource.name);
        match policy::compile(resource.name, resource.value) {
            Ok(policy) => {
                let is_new = known.is_none_or(|k| **k != policy);
                if is_new {
                    self.state.insert_policy(&Arc::new(policy));
                }
                self.authorization_versions.insert(resource.name, resource.version);
                Ok(is_new)
            }
            Err(policy::Rejection { error, stand_in }) => {
                // An earlier version goes on; only where there is none, something has to stand in.
                if let Some(stand_in) = stand_in.filter(|_| known.is_none_or(|k| k.defect.is_some())) {
                    *is_changed = true;
                    self.state.insert_policy(&Arc::from(stand_in));
                }
                Err(error)
            }
        }
    }
}

impl Applied {
    fn count(&mut self, name: &str, result: Result<bool, ResourceError>) {
        match result {
            Ok(is_changed) => {
                self.accepted += 1;
                self.is_changed |= is_changed;
            }
            Err(error) => self.rejected.push(Rejected {
                name: name.to_owned(),
                error,
            }),
        }
    }
}
