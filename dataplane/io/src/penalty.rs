//! Clients that broke the rules of their tunnels wait before they may begin another handshake, longer each time.
//!
//! The framer ends a tunnel whose peer floods it. A peer that comes back at once has the node do the most expensive thing
//! that a client can ask for, a handshake, as often as it likes: everyone else on the node would wait for that. Counted
//! per worker and address, which nobody behind another address can change (TCP, and pods' addresses are theirs).

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The first wait; it doubles with each tunnel that ends so.
const FIRST: Duration = Duration::from_millis(50);
/// The longest.
const LONGEST: Duration = Duration::from_secs(10);
/// A client that behaved for so many times its last wait begins anew.
const FORGIVEN_AFTER: u32 = 4;
/// Connections of one client that wait; more are refused.
const MOST_WAITING: usize = 64;
/// Addresses that are kept; past it those that are forgiven go, and then nobody is added.
const MOST_KEPT: usize = 4096;

struct Penalty {
    wait: Duration,
    until: Instant,
    waiting: usize,
}

impl Penalty {
    fn is_forgiven(&self, now: Instant) -> bool {
        now >= self.until + self.wait * FORGIVEN_AFTER
    }
}

thread_local! {
    static PENALTIES: RefCell<HashMap<IpAddr, Penalty>> = RefCell::default();
}

/// The client has too many connections that wait already.
#[derive(Debug, thiserror::Error)]
#[error("{MOST_WAITING} connections of this client wait already, after it broke the rules of its tunnels")]
pub(crate) struct TooMany;

/// A tunnel of `client` ended because it broke the rules.
pub(crate) fn punish(client: IpAddr) {
    let now = Instant::now();
    PENALTIES.with_borrow_mut(|all| {
        if all.len() >= MOST_KEPT && !all.contains_key(&client) {
            all.retain(|_, one| one.waiting > 0 || !one.is_forgiven(now));
            if all.len() >= MOST_KEPT {
                return;
            }
        }
        let penalty = all.entry(client).or_insert(Penalty {
            wait: Duration::ZERO,
            until: now,
            waiting: 0,
        });
        penalty.wait = if penalty.is_forgiven(now) {
            FIRST
        } else {
            (penalty.wait * 2).clamp(FIRST, LONGEST)
        };
        penalty.until = now + penalty.wait;
    });
}

/// Wait until `client` may begin a handshake: not at all, for nearly everybody.
pub(crate) async fn serve_out(client: IpAddr) -> Result<(), TooMany> {
    let Some(until) = enter(client)? else {
        return Ok(());
    };
    // Whoever waited with others may have seen one of these punished.
    let _place = Place(client);
    sleep_until(until).await;
    Ok(())
}

fn enter(client: IpAddr) -> Result<Option<Instant>, TooMany> {
    let now = Instant::now();
    PENALTIES.with_borrow_mut(|all| match all.get_mut(&client) {
        Some(penalty) if now < penalty.until && penalty.waiting >= MOST_WAITING => Err(TooMany),
        Some(penalty) if now < penalty.until => {
            penalty.waiting += 1;
            Ok(Some(penalty.until))
        }
        _ => Ok(None),
    })
}

struct Place(IpAddr);

impl Drop for Place {
    fn drop(&mut self) {
        PENALTIES.with_borrow_mut(|all| {
            if let Some(penalty) = all.get_mut(&self.0) {
                penalty.waiting -= 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn client(number: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, number).into()
    }

    fn remaining(client: IpAddr) -> Option<Duration> {
        let until = enter(client).expect("room")?;
        drop(Place(client));
        Some(until - Instant::now())
    }

    fn paused(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(test);
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_forgiven() {
        paused(async {
            let (bad, good) = (client(1), client(2));
            assert_eq!(remaining(bad), None);
            for expected in [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
                punish(bad);
                assert_eq!(remaining(bad), Some(Duration::from_millis(expected)));
                assert_eq!(remaining(good), None);
                serve_out(bad).await.expect("room");
                assert_eq!(remaining(bad), None, "one may try again after each wait");
            }
            tokio::time::advance(LONGEST * FORGIVEN_AFTER).await;
            punish(bad);
            assert_eq!(remaining(bad), Some(FIRST));
        });
    }

    #[test]
    fn those_that_wait_are_few_and_so_are_those_that_are_kept() {
        paused(async {
            punish(client(3));
            let places: Vec<_> = (0..MOST_WAITING)
                .map(|_| {
                    assert!(enter(client(3)).expect("room").is_some());
                    Place(client(3))
                })
                .collect();
            assert!(enter(client(3)).is_err());
            drop(places);
            assert!(enter(client(3)).is_ok());
            for number in 0..2 * MOST_KEPT as u32 {
                punish(Ipv4Addr::from(0x0a00_0000 + number).into());
            }
            PENALTIES.with_borrow(|all| assert!(all.len() <= MOST_KEPT));
        });
    }
}
