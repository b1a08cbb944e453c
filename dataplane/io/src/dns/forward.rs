//! What is not the mesh's goes to the node's name servers, and their answers come back, both unchanged but for the id.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ambit_core::dns::{HEADER_BYTES, id_of, is_answer_to, with_id};
use aws_lc_rs::rand;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::listen::{marked_udp, receive_from};
use crate::pool::DialError;
use crate::proxy::PodProxy;
use crate::sockets::Source;
use crate::tcp_relay::write_all;
use crate::telemetry::DnsProtocol;

/// Names the servers where the DNS proxy, which may be told of another file, is off.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long one server may take, and how long all together may: clients give up after 5 s (resolv.conf(5)).
const SERVER_PATIENCE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_millis(4500);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("no name server; does resolv.conf name one?")]
    NoServer,
    #[error("name server {0}: {1}")]
    Io(SocketAddr, io::Error),
    #[error("name server {0}: {1}")]
    Dial(SocketAddr, DialError),
    #[error("name server {0}: no answer in time")]
    Slow(SocketAddr),
    #[error("name server {0}: an answer to another question")]
    Mismatch(SocketAddr),
    #[error("name servers: no answer in 4.5 s")]
    AllSlow,
    #[error("no random number for the query's id")]
    NoRandomness,
}

/// Ask the servers in turn until one answers.
pub(super) async fn ask(proxy: &PodProxy, message: &[u8], protocol: DnsProtocol) -> Result<Vec<u8>, ForwardError> {
    let settings = proxy.shared.settings.dns.as_ref();
    let resolv_conf = settings.map_or(Path::new(RESOLV_CONF), |settings| &settings.resolv_conf);
    let servers = proxy.shared.name_servers.get(resolv_conf);
    let all = async {
        let mut last = ForwardError::NoServer;
        for &server in servers.iter() {
            let mut id = [0; 2];
            rand::fill(&mut id).map_err(|_| ForwardError::NoRandomness)?;
            let query = with_id(message, u16::from_be_bytes(id));
            let one = async {
                match protocol {
                    DnsProtocol::Udp => ask_by_udp(proxy, server, &query).await,
                    DnsProtocol::Tcp => ask_by_tcp(proxy, server, &query).await,
                }
            };
            match timeout(SERVER_PATIENCE, one).await {
                Ok(Ok(reply)) => return Ok(with_id(&reply, id_of(message))),
                Ok(Err(error)) => last = error,
                Err(_) => last = ForwardError::Slow(server),
            }
        }
        Err(last)
    };
    timeout(PATIENCE, all).await.unwrap_or(Err(ForwardError::AllSlow))
}

async fn ask_by_udp(proxy: &PodProxy, server: SocketAddr, query: &[u8]) -> Result<Vec<u8>, ForwardError> {
    let failed = |error| ForwardError::Io(server, error);
    let settings = &proxy.shared.settings.sockets;
    let socket = proxy.pod.netns.within(|| {
        let socket = marked_udp(settings, server)?;
        // Only this server is heard; the kernel chooses the port.
        socket.connect(&server.into())?;
        Ok(std::net::UdpSocket::from(socket))
    });
    let socket = socket.and_then(UdpSocket::from_std).map_err(failed)?;
    socket.send(query).await.map_err(failed)?;
    loop {
        socket.readable().await.map_err(failed)?;
        match receive_from(&socket) {
            // What answers something else is somebody's guess: the answer is still to come.
            Ok((reply, _)) if is_answer_to(query, &reply) => return Ok(reply),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

async fn ask_by_tcp(proxy: &PodProxy, server: SocketAddr, query: &[u8]) -> Result<Vec<u8>, ForwardError> {
    let failed = |error| ForwardError::Io(server, error);
    let dialled = proxy.connect(server, Source::Own).await;
    let socket = dialled.map_err(|error| ForwardError::Dial(server, error))?;
    let framed = with_length(query).map_err(failed)?;
    write_all(&socket, &framed).await.map_err(failed)?;
    let reply = read_message(&socket).await.map_err(failed)?;
    if is_answer_to(query, &reply) {
        Ok(reply)
    } else {
        Err(ForwardError::Mismatch(server))
    }
}

/// `message` as TCP carries it.
pub(super) fn with_length(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(message);
    Ok(framed)
}

/// One message of a TCP connection. What is shorter than a header is an error.
pub(super) async fn read_message(socket: &TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    read_exactly(socket, &mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length < HEADER_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Grows with what arrives, so that a length alone costs nothing.
    let mut message = Vec::new();
    while message.len() < length {
        let start = message.len();
        message.resize(length.min(start + 2048), 0);
        read_exactly(socket, &mut message[start..]).await?;
    }
    Ok(message)
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
