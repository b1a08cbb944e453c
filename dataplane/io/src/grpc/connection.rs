//! One connection: TLS, HTTP/2, and a task for each call on it.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ambit_core::grpc::{self, Code, Deframer};
use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{PingPong, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::Settings;
use super::call::{Call, Outgoing, Status};
use super::events::{Event, Events};

/// A thousand clients that come at once wait for each other's handshakes.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// A client's calls at a time: agents have two, proxies a few.
const MAX_STREAMS: u32 = 1024;
/// gRPC's own bound of metadata.
const MAX_METADATA_BYTES: u32 = 16 * 1024;
/// What a client may send ahead of what is read. Requests are small, except a list of what a client has.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is handed to HTTP/2 ahead of what the socket takes: a few of its writes.
const SEND_BUFFER: usize = 128 * 1024;
/// Ages differ by up to a tenth either way, so that clients that came at once do not come back at once.
const AGE_JITTER: f64 = 0.1;

/// How far the server's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not at all.
    Serving,
    /// Clients are told to go elsewhere; calls go on.
    Leaving,
}

/// What connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) events: Arc<Events>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) next_call: AtomicU64,
}

/// Carry a connection to its end.
pub(super) async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    worker: usize,
    shared: Arc<Shared>,
) {
    // A client that has gone away or is none of ours is its own affair: nothing here is worth a line in the log.
    let _ = match tls {
        None => converse(socket, peer, worker, shared).await,
        Some(config) => match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(socket)).await {
            Ok(Ok(stream)) => converse(stream, peer, worker, shared).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        },
    };
}

async fn converse<S>(stream: S, peer: SocketAddr, worker: usize, shared: Arc<Shared>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_METADATA_BYTES)
        .max_send_buffer_size(SEND_BUFFER)
        .handshake::<S, Bytes>(stream);
    let mut connection = timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        .map_err(io::Error::other)?;
    let pings = connection.ping_pong();
    let mut silence = std::pin::pin!(keep_alive(pings, shared.settings.keepalive));
    let mut ending = std::pin::pin!(wait_for_end(&shared));
    let mut is_leaving = false;
    let mut grace = std::pin::pin!(sleep(Duration::ZERO));
    let mut has_grace = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => open_call(request, respond, peer, worker, &shared),
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(()),
            },
            () = &mut silence => return Err(io::ErrorKind::TimedOut.into()),
            limit = &mut ending, if !is_leaving => {
                is_leaving = true;
                connection.graceful_shutdown();
                if let Some(limit) = limit {
                    has_grace = true;
                    grace.as_mut().reset(Instant::now() + limit);
                }
            }
            () = &mut grace, if has_grace => return Ok(()),
        }
    }
}

/// Until the connection is too old, or the server ends; gives how long calls may go on, where that is bounded here.
async fn wait_for_end(shared: &Shared) -> Option<Duration> {
    let mut phase = shared.phase.clone();
    let leaving = async move {
        // The sender lives as long as the server.
        let _ = phase.wait_for(|phase| *phase == Phase::Leaving).await;
    };
    match shared.settings.max_age {
        None => {
            leaving.await;
            None
        }
        Some((age, grace)) => {
            let share = 1.0 + AGE_JITTER * (2.0 * fastrand::f64() - 1.0);
            tokio::select! {
                () = leaving => None,
                () = sleep_until(Instant::now() + age.mul_f64(share)) => Some(grace),
            }
        }
    }
}

/// Ends when the client does not answer.
async fn keep_alive(pings: Option<PingPong>, (interval, patience): (Duration, Duration)) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        sleep(interval).await;
        if !matches!(timeout(patience, pings.ping(h2::Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}

fn open_call(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: SocketAddr,
    worker: usize,
    shared: &Arc<Shared>,
) {
    let (head, body) = request.into_parts();
    if head.method != Method::POST || !is_grpc(&head.headers) {
        let mut refusal = Response::new(());
        *refusal.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        // An error means that the client has gone.
        let _ = respond.send_response(refusal, true);
        return;
    }
    let path = head.uri.path();
    if !shared.settings.paths.iter().any(|served| served == path) {
        let status = Status {
            code: Code::Unimplemented as u32,
            message: format!("method {path} is not served here"),
        };
        let _ = respond.send_response(build_head(Some(&status)), true);
        return;
    }
    let call = Arc::new(Call::new(
        (shared.next_call.fetch_add(1, Relaxed), worker),
        path.to_owned(),
        peer,
        read_metadata(&head.headers),
        Arc::clone(&shared.events),
    ));
    shared.events.push(Event::Opened(Arc::clone(&call)));
    tokio::spawn(carry(call, body, respond, shared.settings.max_message_bytes));
}

/// Both directions of a call. When it has ended, what the client may still send is not waited for.
async fn carry(call: Arc<Call>, body: RecvStream, respond: SendResponse<Bytes>, limit: usize) {
    let mut reading = std::pin::pin!(read(&call, body, limit));
    let mut writing = std::pin::pin!(write(&call, respond));
    tokio::select! {
        () = &mut writing => {}
        () = &mut reading => writing.await,
    }
    call.close();
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// What is text, and nobody's but the handler's.
fn read_metadata(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, _)| !name.as_str().ends_with("-bin"))
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect()
}

/// Messages, until the client ends its side or the call is over.
async fn read(call: &Call, mut body: RecvStream, limit: usize) {
    let mut deframer = Deframer::new(limit);
    loop {
        let data = match body.data().await {
            Some(Ok(data)) => data,
            // The writer sees it too, and ends the call.
            Some(Err(_)) => return,
            None => break,
        };
        deframer.push(&data);
        // An error means that the stream is over, which the next round says.
        let _ = body.flow_control().release_capacity(data.len());
        drop(data);
        loop {
            match deframer.next_message() {
                Ok(Some(message)) => call.deliver(message).await,
                Ok(None) => break,
                Err(error) => return fail(call, error),
            }
        }
    }
    match deframer.finish() {
        Ok(()) => call.note_client_finished(),
        Err(error) => fail(call, error),
    }
}

fn fail(call: &Call, error: grpc::FramingError) {
    call.fail(Status {
        code: error.code() as u32,
        message: error.to_string(),
    });
}

/// What the handler sends, until it has ended the call or the client has.
async fn write(call: &Call, respond: SendResponse<Bytes>) {
    let mut writer = Writer { respond, stream: None };
    loop {
        let outgoing = tokio::select! {
            outgoing = call.next_outgoing() => outgoing,
            () = writer.wait_for_reset() => break,
        };
        match outgoing {
            Outgoing::Data(data) => {
                if writer.send(call, data).await.is_err() {
                    break;
                }
            }
            Outgoing::Finish(status) => {
                writer.finish(&status);
                break;
            }
        }
    }
}

struct Writer {
    respond: SendResponse<Bytes>,
    /// Once the head has gone out.
    stream: Option<SendStream<Bytes>>,
}

impl Writer {
    async fn send(&mut self, call: &Call, mut data: Bytes) -> Result<(), h2::Error> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(self.respond.send_response(build_head(None), false)?),
        };
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            let capacity = poll_fn(|context| match stream.capacity() {
                0 => stream.poll_capacity(context),
                some => std::task::Poll::Ready(Some(Ok(some))),
            })
            .await
            .ok_or(h2::Reason::CANCEL)??;
            let piece = data.split_to(capacity.min(data.len()));
            let bytes = piece.len();
            stream.send_data(piece, false)?;
            call.note_written(bytes);
        }
        Ok(())
    }

    fn finish(&mut self, status: &Status) {
        // Errors mean that the client has gone.
        match &mut self.stream {
            Some(stream) => {
                let mut trailers = HeaderMap::new();
                add_status(&mut trailers, status);
                let _ = stream.send_trailers(trailers);
            }
            None => {
                let _ = self.respond.send_response(build_head(Some(status)), true);
            }
        }
    }

    fn wait_for_reset(&mut self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| {
            match &mut self.stream {
                Some(stream) => stream.poll_reset(context),
                None => self.respond.poll_reset(context),
            }
            .map(|_| ())
        })
    }
}

/// The first headers; with a status they are the last as well.
fn build_head(status: Option<&Status>) -> Response<()> {
    let mut head = Response::new(());
    let headers = head.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(status) = status {
        add_status(headers, status);
    }
    head
}

fn add_status(headers: &mut HeaderMap, status: &Status) {
    headers.insert("grpc-status", HeaderValue::from(status.code));
    if !status.message.is_empty() {
        // Encoded text is printable ASCII, which any header can carry.
        if let Ok(value) = HeaderValue::from_str(&grpc::encode_message(&status.message)) {
            headers.insert("grpc-message", value);
        }
    }
}
