//! The address of an endpoint that has a name instead, asked of the node's name servers from inside the client's pod.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use ambit_core::dns::{Found, LookupError, QueryType, build_lookup, read_addresses};
use tokio::time::Instant;

use super::forward::{self, ForwardError};
use crate::proxy::PodProxy;
use crate::telemetry::DnsProtocol;

/// Names remembered by a worker (facts/ztunnel.md section 2.3). Past it those that are over go, and if none is, all.
const REMEMBERED: usize = 4096;

/// Why a name has no address now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("the name has no address of a family that is in use here")]
    NoAddress,
}

struct Remembered {
    until: Instant,
    addresses: Rc<[IpAddr]>,
}

thread_local! {
    static NAMES: RefCell<HashMap<Arc<str>, Remembered>> = RefCell::default();
}

/// One of the name's addresses by chance: of the preferred family if it has such, else of the other.
pub(crate) async fn resolve(proxy: &PodProxy, hostname: &Arc<str>, prefers_ipv6: bool) -> Result<IpAddr, ResolveError> {
    let addresses = match recall(hostname) {
        Some(addresses) => addresses,
        None => {
            let found = look_up(proxy, hostname).await?;
            remember(hostname, found)
        }
    };
    choose(&addresses, prefers_ipv6).ok_or(ResolveError::NoAddress)
}

fn choose(addresses: &[IpAddr], prefers_ipv6: bool) -> Option<IpAddr> {
    let (preferred, others): (Vec<_>, Vec<_>) = addresses.iter().partition(|ip| ip.is_ipv6() == prefers_ipv6);
    fastrand::choice(preferred).or_else(|| fastrand::choice(others))
}

/// Both families at once; one that fails does not matter when the other has addresses.
async fn look_up(proxy: &PodProxy, hostname: &str) -> Result<Found, ResolveError> {
    let v4 = ask(proxy, hostname, QueryType::V4);
    if !proxy.shared.settings.sockets.ipv6 {
        return v4.await;
    }
    match tokio::join!(v4, ask(proxy, hostname, QueryType::V6)) {
        (Ok(mut v4), Ok(v6)) => {
            v4.addresses.extend(v6.addresses);
            v4.ttl = v4.ttl.min(v6.ttl);
            Ok(v4)
        }
        (Ok(found), Err(error)) | (Err(error), Ok(found)) => {
            if found.addresses.is_empty() {
                Err(error)
            } else {
                Ok(found)
            }
        }
        (Err(error), Err(_)) => Err(error),
    }
}

async fn ask(proxy: &PodProxy, hostname: &str, kind: QueryType) -> Result<Found, ResolveError> {
    let query = build_lookup(hostname, kind)?;
    let reply = forward::ask(proxy, &query, DnsProtocol::Udp).await?;
    match read_addresses(&reply, kind) {
        Err(LookupError::Truncated) => {
            let reply = forward::ask(proxy, &query, DnsProtocol::Tcp).await?;
            Ok(read_addresses(&reply, kind)?)
        }
        result => Ok(result?),
    }
}

fn recall(hostname: &str) -> Option<Rc<[IpAddr]>> {
    NAMES.with_borrow(|names| {
        let known = names.get(hostname).filter(|known| known.until > Instant::now())?;
        Some(Rc::clone(&known.addresses))
    })
}

fn remember(hostname: &Arc<str>, found: Found) -> Rc<[IpAddr]> {
    let now = Instant::now();
    let addresses: Rc<[IpAddr]> = found.addresses.into();
    let until = now + found.ttl;
    NAMES.with_borrow_mut(|names| {
        if names.len() >= REMEMBERED {
            names.retain(|_, known| known.until > now);
        }
        if names.len() >= REMEMBERED {
            names.clear();
        }
        let addresses = Rc::clone(&addresses);
        names.insert(Arc::clone(hostname), Remembered { until, addresses });
    });
    addresses
}
