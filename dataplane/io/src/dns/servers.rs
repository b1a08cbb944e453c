//! The node's name servers, as resolv.conf(5) lists them.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a reading of the file is good: a node's name servers seldom change, but they do.
const FRESH: Duration = Duration::from_secs(5);
/// As the C library has it (MAXNS).
const SERVERS_MAX: usize = 3;
const PORT: u16 = 53;

/// Read anew now and then.
#[derive(Default)]
pub(crate) struct NameServers {
    read: Mutex<Option<(Instant, Arc<[SocketAddr]>)>>,
}

impl NameServers {
    /// The servers in the order of the file; none when it cannot be read.
    pub(crate) fn get(&self, path: &Path) -> Arc<[SocketAddr]> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, servers)) = &*read
            && when.elapsed() < FRESH
        {
            return Arc::clone(servers);
        }
        let servers: Arc<[SocketAddr]> = read_file(path).into();
        *read = Some((Instant::now(), Arc::clone(&servers)));
        servers
    }
}

fn read_file(path: &Path) -> Vec<SocketAddr> {
    parse(&std::fs::read_to_string(path).unwrap_or_default())
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then(|| words.next())?
    });
    let addresses = named.filter_map(|word| word.parse::<IpAddr>().ok());
    addresses
        .map(|ip| SocketAddr::new(ip, PORT))
        .take(SERVERS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn servers_are_read_in_order_and_the_rest_is_passed_over() {
        let text = "# nameserver 192.0.2.9\nsearch a b\nnameserver 192.0.2.1\nnameserver 2001:db8::1 \n\
                    nameserver x\noptions ndots:5\nnameserver\nnameserver 192.0.2.3\nnameserver 192.0.2.4";
        let found: Vec<_> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"]);
        assert!(parse("").is_empty());
    }
}
