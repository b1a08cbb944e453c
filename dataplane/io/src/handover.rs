//! Listening sockets that go from a ztunnel to its successor.
//!
//! The successor gets duplicates of the very same sockets, so both accept from one queue, and a connection that waits in it
//! when the predecessor closes its copies is the successor's. (Sockets that only share their port with `SO_REUSEPORT` have a
//! queue each, and closing one resets what waits there: ztunnel.md 12.1, 25.)

use std::net::TcpListener;
use std::os::fd::OwnedFd;

use socket2::SockRef;

/// Sockets from a predecessor that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(u16, OwnedFd)>);

/// What one worker gets of a pod.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(crate) inherited: Inherited,
    /// Whether it is the one that answers the pod's DNS queries.
    pub(crate) serves_dns: bool,
}

impl Inherited {
    /// Of all descriptors, those that are bound sockets. Others are closed.
    pub fn new(descriptors: Vec<OwnedFd>) -> Self {
        let mut found = Self::default();
        found.put(descriptors);
        found
    }

    /// Add sockets.
    pub(crate) fn put(&mut self, descriptors: Vec<OwnedFd>) {
        let with_port = |descriptor: OwnedFd| {
            let socket = SockRef::from(&descriptor);
            let port = socket.local_addr().ok()?.as_socket()?.port();
            socket.set_nonblocking(true).ok()?;
            Some((port, descriptor))
        };
        self.0.extend(descriptors.into_iter().filter_map(with_port));
    }

    /// All sockets on this port.
    pub(crate) fn take(&mut self, port: u16) -> Vec<OwnedFd> {
        let (taken, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.0).into_iter().partition(|(p, _)| *p == port);
        self.0 = rest;
        taken.into_iter().map(|(_, socket)| socket).collect()
    }

    /// The same of TCP.
    pub(crate) fn take_listeners(&mut self, port: u16) -> Vec<TcpListener> {
        self.take(port).into_iter().map(Into::into).collect()
    }

    /// Deal the sockets out to `count` workers, those of each port in turn; none is left over, or its queue would starve.
    pub(crate) fn deal(self, count: usize) -> Vec<Share> {
        let mut shares: Vec<Share> = (0..count).map(|_| Share::default()).collect();
        let mut sockets = self.0;
        sockets.sort_by_key(|(port, _)| *port);
        let (mut turn, mut last) = (0, None);
        for (port, socket) in sockets {
            turn = if last == Some(port) { turn + 1 } else { 0 };
            last = Some(port);
            if let Some(share) = shares.get_mut(turn % count) {
                share.inherited.0.push((port, socket));
            }
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpStream};

    fn listen() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        (listener.local_addr().expect("an address"), listener)
    }

    #[test]
    fn what_waits_in_the_queue_is_not_lost_when_the_first_owner_closes() {
        let (address, first) = listen();
        let copy = first.try_clone().expect("duplicated");
        let mut client = TcpStream::connect(address).expect("queued");
        let mut inherited = Inherited::new(vec![copy.into()]);
        drop(first);
        let [second] = &inherited.take_listeners(address.port())[..] else {
            panic!("one socket")
        };
        second.set_nonblocking(false).expect("set");
        let (mut served, _) = second.accept().expect("what waited");
        served.write_all(b"x").expect("written");
        let mut got = [0];
        client.read_exact(&mut got).expect("answered");
        assert!(inherited.take(address.port()).is_empty());
    }

    #[test]
    fn every_socket_is_dealt_to_somebody() {
        for (sockets, workers) in [(0, 2), (1, 2), (2, 2), (5, 2), (3, 1)] {
            let (address, first) = listen();
            let copies = (0..sockets)
                .map(|_| first.try_clone().expect("duplicated").into())
                .collect();
            let shares = Inherited::new(copies).deal(workers);
            let sizes: Vec<_> = shares
                .into_iter()
                .map(|mut share| share.inherited.take(address.port()).len())
                .collect();
            assert_eq!(sizes.len(), workers);
            assert_eq!(sizes.iter().sum::<usize>(), sockets);
            assert!(sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0) <= 1);
        }
    }

    #[test]
    fn what_is_no_socket_is_closed() {
        let file = std::fs::File::open("/dev/null").expect("opened");
        assert!(Inherited::new(vec![file.into()]).0.is_empty());
    }
}
