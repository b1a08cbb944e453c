//! From the pod's applications that ask for a destination by SOCKS5 instead of being captured (ztunnel.md 1.1).
//!
//! What they ask for goes the way of a captured connection, decisions, labels and all. A name is one of the mesh's. They hear
//! of success when the connection stands (stock ztunnel says so before it dials: ztunnel.md 12.1, 22).

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ambit_core::socks5::{self, Destination, GREETING_ANSWER, Progress, Reply, Socks5Error};
use ambit_core::upstream::{SOCKS5_PORT, decide_address};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::outbound::{self, Application};
use crate::proxy::{Accepted, PodProxy};
use crate::tcp_relay::write_all;
use crate::telemetry::{Direction, report_early_failure};

/// Where it is spoken: loopback, so that it is for the pod's own applications.
pub(crate) const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), SOCKS5_PORT);
/// A client on loopback has its two messages ready.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Protocol(#[from] Socks5Error),
    #[error("the client did not say in 10 s where it wants to go")]
    Slow,
}

/// Serve one connection.
pub(crate) async fn serve(proxy: Rc<PodProxy>, accepted: Accepted) {
    let started = Instant::now();
    let peer = accepted.peer;
    let fail = |error: &str| report_early_failure(&proxy.shared.metrics, Direction::Outbound, peer, ADDRESS, error);
    let destination = match timeout(PATIENCE, negotiate(&accepted.socket)).await {
        Ok(Ok(destination)) => destination,
        Ok(Err(failure)) => return fail(&format!("socks5: {failure}")),
        Err(_) => return fail(&format!("socks5: {}", Failure::Slow)),
    };
    let application = Application::socks5(accepted);
    match resolve(&proxy, destination).await {
        Ok(dialled) => outbound::serve_to(&proxy, &application, dialled, started).await,
        Err(error) => {
            application.refuse(Reply::HostUnreachable);
            fail(&error);
        }
    }
}

async fn resolve(proxy: &PodProxy, destination: Destination) -> Result<SocketAddr, String> {
    match destination {
        Destination::Address(address) => Ok(address),
        Destination::Hostname { hostname, port } => {
            let source = proxy.workload().await?;
            let mesh = proxy.shared.mesh();
            decide_address(&mesh, &source, &hostname, port, &mut || fastrand::u64(..))
                .map_err(|error| error.to_string())
        }
    }
}

/// Both messages; returns where the client wants to go. A refusal is answered.
async fn negotiate(socket: &TcpStream) -> Result<Destination, Failure> {
    let result = async {
        receive(socket, socks5::read_greeting).await?;
        write_all(socket, &GREETING_ANSWER).await?;
        receive(socket, socks5::read_request).await
    };
    let result = result.await;
    if let Err(Failure::Protocol(error)) = &result
        && let Some(answer) = error.answer()
    {
        write_all(socket, &answer).await?;
    }
    result
}

/// Read one message, and no byte more.
async fn receive<T>(socket: &TcpStream, read: fn(&[u8]) -> Result<Progress<T>, Socks5Error>) -> Result<T, Failure> {
    let mut message = Vec::new();
    loop {
        match read(&message)? {
            Progress::Whole(value) => return Ok(value),
            Progress::Lacks(count) => {
                let start = message.len();
                message.resize(start + count, 0);
                read_exactly(socket, &mut message[start..]).await?;
            }
        }
    }
}

async fn read_exactly(socket: &TcpStream, mut space: &mut [u8]) -> io::Result<()> {
    while !space.is_empty() {
        socket.readable().await?;
        match socket.try_read(space) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => space = &mut space[read..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
