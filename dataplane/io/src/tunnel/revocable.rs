//! Tunnels whose peer's certificate may be taken back while they are open (ztunnel.md 1.4).
//!
//! A worker's list of all of them, those that the pool has given up and the inner ones included. Nothing is kept when no
//! revocation lists are set.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use super::Tunnel;
use crate::tls::revocation::{Link, Revocations};

struct Tracked {
    tunnel: Weak<Tunnel>,
    links: Box<[Link]>,
}

thread_local! {
    static TRACKED: RefCell<Vec<Tracked>> = const { RefCell::new(Vec::new()) };
}

/// Remember what the peer's chain is, as `Revocations::links` gave it.
pub(crate) fn track(tunnel: &Rc<Tunnel>, links: Box<[Link]>, revocations: &Revocations) {
    if links.is_empty() {
        return;
    }
    // The lists may have changed since the handshake; a change after this finds the tunnel tracked.
    if revocations.revokes(&links) {
        tunnel.revoke();
    }
    let tunnel = Rc::downgrade(tunnel);
    TRACKED.with_borrow_mut(|tracked| tracked.push(Tracked { tunnel, links }));
}

/// End this worker's tunnels whose peers are revoked now.
pub(crate) fn end_revoked(revocations: &Revocations) {
    let revoked: Vec<_> = TRACKED.with_borrow(|tracked| {
        let hit = tracked.iter().filter(|one| revocations.revokes(&one.links));
        hit.filter_map(|one| one.tunnel.upgrade()).collect()
    });
    for tunnel in revoked {
        tunnel.revoke();
    }
}

/// Drop what has ended.
pub(crate) fn forget_ended() {
    TRACKED.with_borrow_mut(|tracked| {
        tracked.retain(|one| one.tunnel.strong_count() > 0);
        tracked.shrink_to_fit();
    });
}
