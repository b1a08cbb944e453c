//! Workloads in the order of their uids: a list while they are few, a tree when they are many.
//!
//! Most services have a handful of endpoints, for which a tree's node has room for 64. With 10,000 services that room
//! would be 5 MiB.

use std::{cmp::Ordering, sync::Arc};

use imbl::{OrdSet, ordset};

use super::super::{ByUid, Workload};

/// So many are a list: adding one copies it.
const FEW: usize = 32;

/// A set of workloads.
#[derive(Clone, Debug)]
pub(in crate::mesh_state) enum Members {
    Few(Box<[Arc<Workload>]>),
    Many(OrdSet<ByUid>),
}

impl Default for Members {
    fn default() -> Self {
        Self::Few(Box::default())
    }
}

impl Members {
    pub(in crate::mesh_state) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(tree) => tree.len(),
        }
    }

    pub(in crate::mesh_state) fn contains(&self, uid: &str) -> bool {
        match self {
            Self::Few(list) => find(list, uid).is_ok(),
            Self::Many(tree) => tree.contains(uid),
        }
    }

    pub(in crate::mesh_state) fn iter(&self) -> Iter<'_> {
        match self {
            Self::Few(list) => Iter::Few(list.iter()),
            Self::Many(tree) => Iter::Many(tree.iter()),
        }
    }

    /// Add `workload`, in the place of one with its uid.
    pub(super) fn insert(&mut self, workload: &Arc<Workload>) {
        match self {
            Self::Few(list) => {
                let mut changed = std::mem::take(list).into_vec();
                match find(&changed, &workload.uid) {
                    Ok(at) => changed[at] = Arc::clone(workload),
                    Err(at) => {
                        changed.reserve_exact(1);
                        changed.insert(at, Arc::clone(workload));
                    }
                }
                *self = Self::from_sorted(changed);
            }
            Self::Many(tree) => {
                tree.insert(ByUid(Arc::clone(workload)));
            }
        }
    }

    pub(super) fn remove(&mut self, uid: &str) {
        match self {
            Self::Few(list) => {
                if let Ok(at) = find(list, uid) {
                    let mut changed = std::mem::take(list).into_vec();
                    changed.remove(at);
                    *list = changed.into();
                }
            }
            Self::Many(tree) => {
                tree.remove(uid);
                // Half of what makes it a tree, so that one that comes and goes does not copy them all each time.
                if tree.len() <= FEW / 2 {
                    *self = Self::Few(tree.iter().map(|one| Arc::clone(&one.0)).collect());
                }
            }
        }
    }

    fn from_sorted(workloads: Vec<Arc<Workload>>) -> Self {
        match workloads.len().cmp(&FEW) {
            Ordering::Less | Ordering::Equal => Self::Few(workloads.into()),
            Ordering::Greater => Self::Many(workloads.into_iter().map(ByUid).collect()),
        }
    }
}

fn find(sorted: &[Arc<Workload>], uid: &str) -> Result<usize, usize> {
    sorted.binary_search_by(|one| (*one.uid).cmp(uid))
}

/// Members, by uid.
pub(in crate::mesh_state) enum Iter<'a> {
    Few(std::slice::Iter<'a, Arc<Workload>>),
    Many(ordset::Iter<'a, ByUid, imbl::shared_ptr::DefaultSharedPtr>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Arc<Workload>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(list) => list.next(),
            Self::Many(tree) => tree.next().map(|one| &one.0),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Few(list) => list.size_hint(),
            Self::Many(tree) => tree.size_hint(),
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::mesh_state::{MeshSettings, MeshWriter, Resource};
    use crate::testing::{ToNamed as _, pod};

    /// Sixty pods, more than `FEW`.
    fn workloads() -> Vec<Arc<Workload>> {
        let mut writer = MeshWriter::new(MeshSettings::default());
        for index in 0..60 {
            let (name, value) = pod("shop", &format!("pod-{index}"), &[]).named();
            let resource = Resource {
                name: &name,
                version: "1",
                value: Some(&value),
            };
            assert_eq!(writer.apply_addresses(&[resource], &[]).rejected, []);
        }
        writer.snapshot().workloads().cloned().collect()
    }

    proptest! {
        /// Long enough to become a tree, and few again.
        #[test]
        fn a_set_is_a_set_however_it_is_kept(steps in prop::collection::vec((0..60usize, prop::bool::weighted(0.6)), 0..300)) {
            let all = workloads();
            let (mut members, mut model) = (Members::default(), BTreeSet::new());
            for (index, is_added) in steps {
                let one = &all[index];
                if is_added {
                    members.insert(one);
                    model.insert(one.uid.clone());
                } else {
                    members.remove(&one.uid);
                    model.remove(&one.uid);
                }
                prop_assert_eq!(members.len(), model.len());
                prop_assert_eq!(members.contains(&one.uid), is_added);
                prop_assert!(members.iter().map(|w| &w.uid).eq(&model));
            }
        }
    }
}
