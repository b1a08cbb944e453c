//! The TLS handshake over a socket, driven through rustls's unbuffered interface; ends with the keys in our hands.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};
use rustls::{CertificateError, ClientConfig, ExtractedSecrets, ServerConfig};
use tokio::net::TcpStream;

use super::records::{HalfKey, RecordError, RecordLayer, Rekey};
use super::revocation::{Link, Revocations};

/// A handshake's flight with certificates and a post-quantum key share is about 3 KiB; what a peer sends before it is
/// authenticated is bounded by this.
const MAX_HANDSHAKE: usize = 64 * 1024;
const FIRST_BUFFER: usize = 4 * 1024;
/// How long a peer that was refused may take to read why.
const ALERT_PATIENCE: Duration = Duration::from_secs(1);

/// A connection after its handshake.
pub(crate) struct Established {
    /// Both directions' keys.
    pub records: RecordLayer,
    /// The peer's leaf certificate.
    pub peer: CertificateDer<'static>,
    /// The authorities between it and the root, as the peer sent them.
    pub intermediates: Vec<CertificateDer<'static>>,
    /// How the keys were agreed on.
    #[cfg(test)]
    pub key_exchange: Option<rustls::NamedGroup>,
    /// Application bytes that came with the handshake's last flight, already decrypted.
    pub early: Vec<u8>,
    /// Bytes after them that are not decrypted yet.
    pub undecrypted: Vec<u8>,
}

impl Established {
    /// What to keep of the peer's chain, to notice when it is revoked.
    pub(crate) fn links(&self, revocations: &Revocations) -> Box<[Link]> {
        revocations.links(&self.peer, &self.intermediates)
    }
}

/// Why there is no connection. `Tls` is the peer's or our certificate; `Io` the network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The peer went away, or the network failed.
    #[error("tls handshake: {0}")]
    Io(#[from] io::Error),
    /// One side refused the other.
    #[error("tls handshake failed: {0}")]
    Tls(#[from] rustls::Error),
    /// The peer's certificate is not that of somebody we accept.
    #[error("tls handshake failed: the peer's certificate is refused: {0}")]
    Identity(String),
    /// The peer's certificate, or one above it, was taken back by its issuer.
    #[error("tls handshake failed: the peer's certificate is revoked")]
    Revoked,
    /// The keys could not be taken over.
    #[error("tls handshake: {0}")]
    Records(#[from] RecordError),
    /// The peer's flight exceeds what a handshake can be.
    #[error("tls handshake: the peer sent more than 65,536 bytes")]
    TooLong,
    /// Both certificates are mandatory.
    #[error("tls handshake: the peer sent no certificate")]
    NoCertificate,
}

/// Dial: the client's side over a connected socket.
pub(crate) async fn connect(socket: &TcpStream, config: Arc<ClientConfig>) -> Result<Established, HandshakeError> {
    // Names are neither sent nor checked; rustls wants one all the same.
    let nobody = ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into());
    drive(socket, UnbufferedClientConnection::new(config, nobody)?).await
}

/// Accept: the server's side.
pub(crate) async fn accept(socket: &TcpStream, config: Arc<ServerConfig>) -> Result<Established, HandshakeError> {
    drive(socket, UnbufferedServerConnection::new(config)?).await
}

/// What rustls's two unbuffered connections have in common.
trait Handshaking: Sized {
    type Data;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn peer(&self) -> Option<(CertificateDer<'static>, Vec<CertificateDer<'static>>)>;
    #[cfg(test)]
    fn key_exchange(&self) -> Option<rustls::NamedGroup>;
    fn finish(self) -> Result<(ExtractedSecrets, Rekey), rustls::Error>;
}

impl Handshaking for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
    fn peer(&self) -> Option<(CertificateDer<'static>, Vec<CertificateDer<'static>>)> {
        split_chain(self.peer_certificates())
    }
    #[cfg(test)]
    fn key_exchange(&self) -> Option<rustls::NamedGroup> {
        self.negotiated_key_exchange_group().map(|group| group.name())
    }
    fn finish(self) -> Result<(ExtractedSecrets, Rekey), rustls::Error> {
        let (secrets, connection) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Rekey::Client(Box::new(connection))))
    }
}

impl Handshaking for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
    fn peer(&self) -> Option<(CertificateDer<'static>, Vec<CertificateDer<'static>>)> {
        split_chain(self.peer_certificates())
    }
    #[cfg(test)]
    fn key_exchange(&self) -> Option<rustls::NamedGroup> {
        self.negotiated_key_exchange_group().map(|group| group.name())
    }
    fn finish(self) -> Result<(ExtractedSecrets, Rekey), rustls::Error> {
        let (secrets, connection) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Rekey::Server(Box::new(connection))))
    }
}

/// Leaf and intermediates.
fn split_chain(
    chain: Option<&[CertificateDer<'static>]>,
) -> Option<(CertificateDer<'static>, Vec<CertificateDer<'static>>)> {
    let (leaf, intermediates) = chain?.split_first()?;
    Some((leaf.clone(), intermediates.to_vec()))
}

/// What the connection wants next; the borrow of rustls's state ends here.
enum Step {
    Process,
    Transmit,
    Read,
    Established,
}

async fn drive<C: Handshaking>(socket: &TcpStream, mut connection: C) -> Result<Established, HandshakeError> {
    let mut incoming = Vec::with_capacity(FIRST_BUFFER);
    let mut outgoing = Vec::new();
    let mut early = Vec::new();
    loop {
        let status = connection.process(&mut incoming);
        let discard = status.discard;
        let step = match status.state {
            Ok(state) => decide_step(state, &mut outgoing, &mut early)?,
            Err(error) => {
                incoming.drain(..discard);
                send_alert(socket, &mut connection, &mut incoming, &mut outgoing).await;
                return Err(explain(error));
            }
        };
        incoming.drain(..discard);
        match step {
            Step::Process => {}
            Step::Transmit => {
                write_all(socket, &outgoing).await?;
                outgoing.clear();
            }
            Step::Read => read_more(socket, &mut incoming).await?,
            Step::Established => break,
        }
    }
    let (peer, intermediates) = connection.peer().ok_or(HandshakeError::NoCertificate)?;
    #[cfg(test)]
    let key_exchange = connection.key_exchange();
    let (secrets, rekey) = connection.finish()?;
    let sealing = HalfKey::new(secrets.tx.0, &secrets.tx.1)?;
    let opening = HalfKey::new(secrets.rx.0, &secrets.rx.1)?;
    Ok(Established {
        records: RecordLayer::new(sealing, opening, rekey),
        peer,
        intermediates,
        #[cfg(test)]
        key_exchange,
        early,
        undecrypted: incoming,
    })
}

fn decide_step<D>(
    state: ConnectionState<'_, '_, D>,
    outgoing: &mut Vec<u8>,
    early: &mut Vec<u8>,
) -> Result<Step, HandshakeError> {
    Ok(match state {
        ConnectionState::EncodeTlsData(mut encode) => {
            encode_into(outgoing, |space| encode.encode(space))?;
            Step::Process
        }
        ConnectionState::TransmitTlsData(transmit) => {
            transmit.done();
            Step::Transmit
        }
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                early.extend_from_slice(record?.payload);
            }
            Step::Process
        }
        ConnectionState::BlockedHandshake => Step::Read,
        ConnectionState::WriteTraffic(_) => Step::Established,
        _ => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    })
}

fn encode_into(
    outgoing: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), HandshakeError> {
    let start = outgoing.len();
    let required = match encode(&mut []) {
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => required_size,
        _ => return Ok(()),
    };
    outgoing.resize(start + required, 0);
    let written = encode(&mut outgoing[start..]).map_err(|error| rustls::Error::General(error.to_string()))?;
    outgoing.truncate(start + written);
    Ok(())
}

/// Tell the peer why there will be no connection: rustls has queued one alert.
///
/// A client may have sent application data already; closing with that unread would reset the connection and lose the alert.
async fn send_alert<C: Handshaking>(
    socket: &TcpStream,
    connection: &mut C,
    incoming: &mut [u8],
    outgoing: &mut Vec<u8>,
) {
    if let Ok(ConnectionState::EncodeTlsData(mut encode)) = connection.process(incoming).state {
        // The connection fails anyway: whether the alert arrives changes nothing here.
        let _ = encode_into(outgoing, |space| encode.encode(space));
    }
    let told = async {
        write_all(socket, outgoing).await?;
        socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write)?;
        let mut ignored = Vec::new();
        while ignored.len() < MAX_HANDSHAKE {
            read_some(socket, &mut ignored).await?;
        }
        Ok::<(), io::Error>(())
    };
    // It ends with the peer's end of the connection, which is an error here, or with our patience.
    let _ = tokio::time::timeout(ALERT_PATIENCE, told).await;
}

/// Our verifiers' refusals as they said them, without rustls's wrapping.
fn explain(error: rustls::Error) -> HandshakeError {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(reason)) => {
            HandshakeError::Identity(reason.0.to_string())
        }
        rustls::Error::InvalidCertificate(CertificateError::Revoked) => HandshakeError::Revoked,
        other => HandshakeError::Tls(other),
    }
}

async fn read_more(socket: &TcpStream, incoming: &mut Vec<u8>) -> Result<(), HandshakeError> {
    if incoming.len() >= MAX_HANDSHAKE {
        return Err(HandshakeError::TooLong);
    }
    Ok(read_some(socket, incoming).await?)
}

/// Wait for bytes and append them. The peer's end of the connection is an error.
async fn read_some(socket: &TcpStream, incoming: &mut Vec<u8>) -> io::Result<()> {
    incoming.reserve(FIRST_BUFFER);
    loop {
        socket.readable().await?;
        match socket.try_read_buf(incoming) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Write all of `bytes`, waiting as long as the peer makes us; callers set the deadline.
async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
