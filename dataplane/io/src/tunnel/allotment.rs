//! What all tunnels of one peer identity may hold here together, so that nobody can take what the others need.
//!
//! The framer bounds what one tunnel can do; this bounds how many of them add up. Counted per worker. A peer is whoever
//! its certificate proves, on whatever machine: the bounds leave room for the busiest gateway.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::OnceLock;

use ambit_core::identity::Identity;
use nix::sys::resource::{Resource, getrlimit};

use super::stream::Side;

/// Tunnels that a client may have here, of the descriptors that there may be. An honest one opens one for each hundred of
/// its connections.
const TUNNELS_SHARE: usize = 16;
/// Connections that a client may have here, each of which takes a descriptor: the other half is for everybody else.
const STREAMS_SHARE: usize = 2;
/// Assumed where the system does not tell, or has no bound.
const ASSUMED_DESCRIPTORS: usize = 1 << 20;
/// Bytes that applications have not taken yet. Beyond them the peer's tunnels are not read, and TCP makes it wait: as
/// much as 16 streams' windows, so that a few slow readers do not stop the others.
const MAX_BUFFERED: usize = 64 << 20;
/// The allotments of peers that are gone are looked for when there are so many, and then when there are twice as many.
const FIRST_SWEEP: usize = 256;

/// One peer's share.
#[derive(Default)]
pub(crate) struct Allotment {
    tunnels: Cell<usize>,
    streams: Cell<usize>,
    buffered: Cell<usize>,
}

/// Why a peer gets no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Exhausted {
    #[error("{0} has {1} tunnels here, the most that a client may have")]
    Tunnels(Identity, usize),
    #[error("{0} has {1} connections here, the most that a client may have")]
    Streams(Identity, usize),
}

struct Known {
    by_peer: HashMap<(Side, Identity), Weak<Allotment>>,
    next_sweep: usize,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::new(Known {
        by_peer: HashMap::new(),
        next_sweep: FIRST_SWEEP,
    });
}

impl Allotment {
    /// What the clients that prove `identity` share.
    pub(crate) fn of_client(identity: &Identity) -> Rc<Self> {
        Self::of(Side::Server, identity)
    }

    /// What the servers that prove `identity` share.
    pub(crate) fn of_server(identity: &Identity) -> Rc<Self> {
        Self::of(Side::Client, identity)
    }

    fn of(side: Side, identity: &Identity) -> Rc<Self> {
        KNOWN.with_borrow_mut(|known| {
            let key = (side, identity.clone());
            if let Some(found) = known.by_peer.get(&key).and_then(Weak::upgrade) {
                return found;
            }
            if known.by_peer.len() >= known.next_sweep {
                known.by_peer.retain(|_, one| one.strong_count() > 0);
                known.next_sweep = (known.by_peer.len() * 2).max(FIRST_SWEEP);
            }
            let new = Rc::new(Self::default());
            known.by_peer.insert(key, Rc::downgrade(&new));
            new
        })
    }

    /// A place for one more tunnel of `identity`, whose allotment this is.
    pub(crate) fn enter_tunnel(self: &Rc<Self>, identity: &Identity) -> Result<Place, Exhausted> {
        let most = descriptors() / TUNNELS_SHARE;
        let place = Place::take(self, |one| &one.tunnels, most);
        place.ok_or_else(|| Exhausted::Tunnels(identity.clone(), most))
    }

    /// A place for one more connection of `identity`, whose allotment this is.
    pub(crate) fn enter_stream(self: &Rc<Self>, identity: &Identity) -> Result<Place, Exhausted> {
        let most = descriptors() / STREAMS_SHARE;
        let place = Place::take(self, |one| &one.streams, most);
        place.ok_or_else(|| Exhausted::Streams(identity.clone(), most))
    }

    /// So many bytes more wait for applications.
    pub(super) fn hold(&self, bytes: usize) {
        self.buffered.set(self.buffered.get() + bytes);
    }

    /// So many were taken, or are gone.
    pub(super) fn release(&self, bytes: usize) {
        self.buffered.set(self.buffered.get() - bytes);
    }

    /// Nothing more should be read.
    pub(super) fn is_exhausted(&self) -> bool {
        self.buffered.get() >= MAX_BUFFERED
    }
}

/// How many descriptors this process may have; asked once, as the limit is raised before anything else.
fn descriptors() -> usize {
    static DESCRIPTORS: OnceLock<usize> = OnceLock::new();
    *DESCRIPTORS.get_or_init(|| {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).ok();
        let soft = limit.and_then(|(soft, _)| usize::try_from(soft).ok());
        soft.unwrap_or(ASSUMED_DESCRIPTORS).min(ASSUMED_DESCRIPTORS)
    })
}

/// One of a bounded number; free again when this is dropped.
pub(crate) struct Place {
    allotment: Rc<Allotment>,
    of: fn(&Allotment) -> &Cell<usize>,
}

impl Place {
    fn take(allotment: &Rc<Allotment>, of: fn(&Allotment) -> &Cell<usize>, most: usize) -> Option<Self> {
        let taken = of(allotment);
        (taken.get() < most).then(|| {
            taken.set(taken.get() + 1);
            Self {
                allotment: Rc::clone(allotment),
                of,
            }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = (self.of)(&self.allotment);
        taken.set(taken.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(account: &str) -> Identity {
        Identity::new("cluster.local", "shop", account).expect("an identity")
    }

    #[test]
    fn one_peer_cannot_take_the_places_of_another() {
        let (greedy, modest) = (identity("greedy"), identity("modest"));
        let allotment = Allotment::of_client(&greedy);
        let most = descriptors() / TUNNELS_SHARE;
        let mut places: Vec<_> = (0..most)
            .map(|_| allotment.enter_tunnel(&greedy).expect("a place"))
            .collect();
        let again = Allotment::of_client(&greedy);
        let refused = again.enter_tunnel(&greedy).err().expect("all are taken").to_string();
        assert!(refused.contains(&format!("sa/greedy has {most} tunnels")), "{refused}");
        assert!(again.enter_stream(&greedy).is_ok(), "connections are counted apart");
        assert!(Allotment::of_client(&modest).enter_tunnel(&modest).is_ok());
        assert!(Allotment::of_server(&greedy).enter_tunnel(&greedy).is_ok());
        places.pop();
        assert!(again.enter_tunnel(&greedy).is_ok());
    }

    #[test]
    fn an_allotment_begins_anew_when_its_last_tunnel_is_gone() {
        let who = identity("comes-and-goes");
        let first = Allotment::of_client(&who);
        first.hold(MAX_BUFFERED);
        assert!(Allotment::of_client(&who).is_exhausted());
        drop(first);
        assert!(!Allotment::of_client(&who).is_exhausted());
        for number in 0..3 * FIRST_SWEEP {
            Allotment::of_client(&identity(&format!("client-{number}")));
        }
        KNOWN.with_borrow(|known| assert!(known.by_peer.len() <= FIRST_SWEEP));
    }
}
