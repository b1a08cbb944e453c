//! Two tunnels' ends over a real socket, applications at both sides.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ambit_core::framing::{ConnectHead, Connection, ErrorCode, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::allotment::Allotment;
use super::{RelayEnd, Request, Stream, Tunnel};
use crate::tls::handshake;
use crate::tls::tests::{Authority, CLIENT, SERVER, identity, pair};

/// Both ends of a tunnel, driven by tasks of the current `LocalSet`; the server's side puts its streams into `requests`.
struct Ends {
    client: Rc<Tunnel>,
    server: Rc<Tunnel>,
    requests: Rc<RefCell<Vec<Request>>>,
}

async fn connect() -> Ends {
    let authority = Authority::new();
    let ours = authority.certify(CLIENT, &[CLIENT]).expect("certified");
    let theirs = authority.certify(SERVER, &[SERVER]).expect("certified");
    let (dialled, accepted) = pair().await;
    let config = Arc::new(ours.client_config(vec![identity(SERVER)]).expect("a configuration"));
    let (client, server) = tokio::join!(
        handshake::connect(&dialled, config),
        handshake::accept(&accepted, Arc::clone(&theirs.server))
    );
    let (client, client_early) = Tunnel::new(
        dialled,
        client.expect("connected"),
        Connection::client(Settings::client()),
        Allotment::of_server(&identity(SERVER)),
    );
    let (server, server_early) = Tunnel::new(
        accepted,
        server.expect("accepted"),
        Connection::server(Settings::server()),
        Allotment::of_client(&identity(CLIENT)),
    );
    let requests = Rc::new(RefCell::new(Vec::new()));
    let (driven, arrived) = (Rc::clone(&server), Rc::clone(&requests));
    tokio::task::spawn_local(async move {
        driven
            .drive(server_early, &|request| arrived.borrow_mut().push(request))
            .await;
    });
    let driven = Rc::clone(&client);
    tokio::task::spawn_local(async move { driven.drive(client_early, &|_| {}).await });
    Ends {
        client,
        server,
        requests,
    }
}

/// Poll until it is there: what is waited for is another task's doing.
async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found)
        .await
        .expect("it happens within 10 s")
}

impl Ends {
    /// Open a stream and accept it; returns both sides.
    async fn open(&self) -> (Rc<Stream>, Rc<Stream>) {
        let head = ConnectHead {
            authority: "192.0.2.1:80",
            ..ConnectHead::default()
        };
        let near = self.client.open(&head).expect("opened");
        let request = eventually(|| self.requests.borrow_mut().pop()).await;
        assert_eq!(request.head.expect("a CONNECT").authority, "192.0.2.1:80");
        request.stream.respond(&[("baggage", "")]);
        assert_eq!(near.response().await.expect("answered").status, 200);
        (near, request.stream)
    }

    /// Relay a new stream between two application connections; returns the applications' own ends and the outcomes.
    async fn carry(&self) -> (TcpStream, TcpStream, Outcome, Outcome) {
        let (near, far) = self.open().await;
        let (near_application, near_socket) = pair().await;
        let (far_application, far_socket) = pair().await;
        (
            near_application,
            far_application,
            relay(near, near_socket),
            relay(far, far_socket),
        )
    }
}

type Outcome = tokio::task::JoinHandle<Result<(), RelayEnd>>;

fn relay(stream: Rc<Stream>, socket: TcpStream) -> Outcome {
    tokio::task::spawn_local(async move { stream.relay(Rc::new(socket)).await })
}

fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(60), test)
            .await
            .expect("the test ends");
    });
}

#[test]
fn bytes_pass_both_ways_and_ends_are_passed_on_one_by_one() {
    local(async {
        let ends = connect().await;
        let (mut near, mut far, near_outcome, far_outcome) = ends.carry().await;
        near.write_all(b"question").await.expect("written");
        near.shutdown().await.expect("shut down");
        let mut asked = String::new();
        far.read_to_string(&mut asked).await.expect("read to the end");
        assert_eq!(asked, "question");
        far.write_all(b"answer")
            .await
            .expect("the other direction is open still");
        far.shutdown().await.expect("shut down");
        let mut answered = String::new();
        near.read_to_string(&mut answered).await.expect("read to the end");
        assert_eq!(answered, "answer");
        assert!(near_outcome.await.expect("no panic").is_ok());
        assert!(far_outcome.await.expect("no panic").is_ok());
        assert!(ends.client.state.borrow().streams.is_empty());
        assert!(ends.server.state.borrow().streams.is_empty());
    });
}

#[test]
fn a_reader_that_stops_holds_up_only_its_own_stream_and_loses_nothing() {
    local(async {
        let ends = connect().await;
        let (mut slow, mut slow_far, ..) = ends.carry().await;
        let (mut quick, mut quick_far, ..) = ends.carry().await;
        let total = 24 * 1024 * 1024;
        let writer = tokio::task::spawn_local(async move {
            let chunk: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
            for _ in 0..total / chunk.len() {
                slow.write_all(&chunk).await.expect("written");
            }
            slow.shutdown().await.expect("shut down");
        });
        for round in 0..100_u8 {
            quick.write_all(&[round]).await.expect("written");
            let mut got = [0];
            quick_far.read_exact(&mut got).await.expect("read");
            assert_eq!(got, [round]);
        }
        let mut received = Vec::new();
        slow_far.read_to_end(&mut received).await.expect("read to the end");
        assert_eq!(received.len(), total);
        assert!(
            received
                .iter()
                .zip((0..=255_u8).cycle())
                .all(|(got, sent)| *got == sent)
        );
        writer.await.expect("no panic");
    });
}

#[test]
fn many_streams_share_the_tunnel_at_once() {
    local(async {
        let ends = connect().await;
        let mut carried = Vec::new();
        for _ in 0..50 {
            carried.push(ends.carry().await);
        }
        for (index, (near, ..)) in carried.iter_mut().enumerate() {
            near.write_all(&vec![index as u8; 100_000]).await.expect("written");
            near.shutdown().await.expect("shut down");
        }
        for (index, (_, far, ..)) in carried.iter_mut().enumerate() {
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.expect("read to the end");
            assert_eq!(received, vec![index as u8; 100_000]);
        }
    });
}

#[test]
fn an_application_that_resets_its_connection_resets_the_other_end() {
    local(async {
        let ends = connect().await;
        let (near, mut far, near_outcome, far_outcome) = ends.carry().await;
        socket2::SockRef::from(&near)
            .set_linger(Some(Duration::ZERO))
            .expect("set");
        drop(near);
        assert!(far.read_u8().await.is_err());
        assert!(matches!(
            near_outcome.await.expect("no panic"),
            Err(RelayEnd::Application(_))
        ));
        assert!(matches!(
            far_outcome.await.expect("no panic"),
            Err(RelayEnd::PeerReset(_))
        ));
    });
}

#[test]
fn a_reset_ends_a_stream_whose_application_reads_nothing() {
    local(async {
        let ends = connect().await;
        let (mut near, _far, near_outcome, far_outcome) = ends.carry().await;
        let more_than_is_taken = vec![0; 64 << 20];
        let stuck = Duration::from_millis(500);
        let written = tokio::time::timeout(stuck, near.write_all(&more_than_is_taken)).await;
        assert!(written.is_err(), "it waits for the reader");
        near_outcome.abort();
        assert!(matches!(
            far_outcome.await.expect("no panic"),
            Err(RelayEnd::PeerReset(_))
        ));
    });
}

#[test]
fn a_tunnel_that_ends_leaves_no_request_behind() {
    local(async {
        let ends = connect().await;
        let head = ConnectHead {
            authority: "192.0.2.1:80",
            ..ConnectHead::default()
        };
        for _ in 0..100 {
            ends.client.open(&head).expect("opened");
        }
        // The requests leave when the tunnel's task runs.
        tokio::task::yield_now().await;
        ends.client.abort();
        let Ends {
            server: held, requests, ..
        } = ends;
        let server = Rc::downgrade(&held);
        drop(held);
        eventually(|| server.upgrade()?.state.borrow().end.is_some().then_some(())).await;
        let begun = std::mem::take(&mut *requests.borrow_mut());
        assert!(begun.len() < 100, "all of them have begun");
        drop(begun);
        eventually(|| (server.strong_count() == 0).then_some(())).await;
    });
}

#[test]
fn a_refusal_reaches_the_client_with_its_status() {
    local(async {
        let ends = connect().await;
        let head = ConnectHead {
            authority: "192.0.2.1:80",
            ..ConnectHead::default()
        };
        let near = ends.client.open(&head).expect("opened");
        eventually(|| ends.requests.borrow_mut().pop())
            .await
            .stream
            .refuse(401, Some("denied by p"));
        let answer = near.response().await.expect("answered");
        assert_eq!((answer.status, answer.told.as_deref()), (401, Some("denied by p")));
        assert!(ends.server.state.borrow().streams.is_empty());
    });
}

#[test]
fn the_end_of_the_tunnel_ends_its_streams() {
    local(async {
        let ends = connect().await;
        let (mut near, _far, near_outcome, far_outcome) = ends.carry().await;
        ends.server.abort();
        assert!(far_outcome.await.expect("no panic").is_err());
        assert!(near_outcome.await.expect("no panic").is_err());
        assert!(near.read_u8().await.is_err());
        assert!(ends.client.is_over());
    });
}

#[test]
fn a_retired_tunnel_takes_no_streams_and_lets_open_ones_finish() {
    local(async {
        let ends = connect().await;
        let (mut near, mut far, ..) = ends.carry().await;
        ends.server.retire();
        eventually(|| (!ends.client.can_open()).then_some(())).await;
        near.write_all(b"still here").await.expect("written");
        near.shutdown().await.expect("shut down");
        let mut received = String::new();
        far.read_to_string(&mut received).await.expect("read to the end");
        assert_eq!(received, "still here");
        drop(far);
        eventually(|| ends.server.state.borrow().end.is_some().then_some(())).await;
    });
}

#[test]
fn an_answer_that_nobody_waits_for_leaves_when_the_application_says_nothing() {
    local(async {
        let ends = connect().await;
        let near = ends.client.open(&ConnectHead::default()).expect("opened");
        let (mut near_application, near_socket) = pair().await;
        near_application.write_all(b"question").await.expect("written");
        let heard = Rc::new(Cell::new(false));
        let hears = Rc::clone(&heard);
        tokio::task::spawn_local(async move {
            let hear = |_: Option<&str>| hears.set(true);
            near.open_and_relay_with(Rc::new(near_socket), Duration::from_secs(10), hear)
                .await
        });
        let request = eventually(|| {
            let has_arrived = ends.requests.borrow().first()?.stream.has_backlog();
            has_arrived.then(|| ends.requests.borrow_mut().pop())?
        })
        .await;
        request.stream.respond(&[]);
        assert!(ends.server.state.borrow().answer_by.is_some(), "it is held back");
        // Far sooner than the next PING would take it along.
        let answered = eventually(|| heard.get().then_some(()));
        tokio::time::timeout(Duration::from_secs(2), answered)
            .await
            .expect("answered");
    });
}

#[test]
fn what_the_application_says_travels_with_the_request_and_waits_for_the_answer() {
    local(async {
        let ends = connect().await;
        let head = ConnectHead {
            authority: "192.0.2.1:80",
            ..ConnectHead::default()
        };
        let near = ends.client.open(&head).expect("opened");
        let (mut near_application, near_socket) = pair().await;
        near_application.write_all(b"question").await.expect("written");
        near_application.shutdown().await.expect("shut down");
        let outcome = tokio::task::spawn_local(async move {
            near.open_and_relay(Rc::new(near_socket), Duration::from_secs(10)).await
        });
        let request = eventually(|| {
            let arrived = ends
                .requests
                .borrow()
                .iter()
                .any(|request| request.stream.has_backlog());
            arrived.then(|| ends.requests.borrow_mut().pop()).flatten()
        })
        .await;
        assert!(!outcome.is_finished(), "nobody has answered yet");
        request.stream.respond(&[]);
        let (mut far_application, far_socket) = pair().await;
        let far = relay(request.stream, far_socket);
        let mut asked = String::new();
        far_application
            .read_to_string(&mut asked)
            .await
            .expect("read to the end");
        assert_eq!(asked, "question");
        far_application.write_all(b"answer").await.expect("written");
        drop(far_application);
        let mut answered = String::new();
        near_application
            .read_to_string(&mut answered)
            .await
            .expect("read to the end");
        assert_eq!(answered, "answer");
        assert!(outcome.await.expect("no panic").is_ok());
        assert!(far.await.expect("no panic").is_ok());
    });
}

#[test]
fn a_refused_application_is_reset_though_it_has_spoken() {
    local(async {
        let ends = connect().await;
        let head = ConnectHead {
            authority: "192.0.2.1:80",
            ..ConnectHead::default()
        };
        let near = ends.client.open(&head).expect("opened");
        let (mut application, socket) = pair().await;
        application.write_all(&[7; 100_000]).await.expect("written");
        let outcome =
            tokio::task::spawn_local(
                async move { near.open_and_relay(Rc::new(socket), Duration::from_secs(10)).await },
            );
        eventually(|| ends.requests.borrow_mut().pop())
            .await
            .stream
            .refuse(401, None);
        assert!(matches!(
            outcome.await.expect("no panic"),
            Err(RelayEnd::Refused(401, None))
        ));
        assert!(application.read_u8().await.is_err());
        // The tunnel has all of its window back: another stream can carry more than what was thrown away.
        let (mut near, mut far, ..) = ends.carry().await;
        let writer = tokio::task::spawn_local(async move {
            near.write_all(&[1; 20_000_000]).await.expect("written");
            near.shutdown().await.expect("shut down");
        });
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.expect("read to the end");
        assert_eq!(received.len(), 20_000_000);
        writer.await.expect("no panic");
    });
}

#[test]
fn an_unanswered_request_ends_after_the_patience() {
    local(async {
        let ends = connect().await;
        let near = ends
            .client
            .open(&ConnectHead {
                authority: "192.0.2.1:80",
                ..ConnectHead::default()
            })
            .expect("opened");
        let (mut application, socket) = pair().await;
        let outcome = near.open_and_relay(Rc::new(socket), Duration::from_millis(20)).await;
        assert!(matches!(outcome, Err(RelayEnd::NoAnswer(_))));
        assert!(application.read_u8().await.is_err());
    });
}

#[test]
fn a_stream_that_is_on_its_way_when_the_server_retires_is_served() {
    local(async {
        let ends = connect().await;
        let head = ConnectHead {
            authority: "192.0.2.1:80",
            ..ConnectHead::default()
        };
        let near = ends.client.open(&head).expect("opened");
        ends.server.retire();
        let request = eventually(|| ends.requests.borrow_mut().pop()).await;
        request.stream.respond(&[]);
        assert_eq!(near.response().await.expect("answered").status, 200);
        eventually(|| (!ends.client.can_open()).then_some(())).await;
        request.stream.reset(ErrorCode::NO_ERROR);
        eventually(|| ends.server.state.borrow().end.is_some().then_some(())).await;
    });
}

#[test]
fn a_retired_server_whose_peer_is_silent_leaves_even_so() {
    local(async {
        let authority = Authority::new();
        let ours = authority.certify(CLIENT, &[CLIENT]).expect("certified");
        let theirs = authority.certify(SERVER, &[SERVER]).expect("certified");
        let (dialled, accepted) = pair().await;
        let config = Arc::new(ours.client_config(vec![identity(SERVER)]).expect("a configuration"));
        let (client, server) = tokio::join!(
            handshake::connect(&dialled, config),
            handshake::accept(&accepted, Arc::clone(&theirs.server))
        );
        client.expect("connected");
        let (server, early) = Tunnel::new(
            accepted,
            server.expect("accepted"),
            Connection::server(Settings::server()),
            Allotment::of_client(&identity(CLIENT)),
        );
        server.retire();
        let end = tokio::time::timeout(Duration::from_secs(5), server.drive(early, &|_| {})).await;
        assert!(end.is_ok(), "it ended by itself");
    });
}
