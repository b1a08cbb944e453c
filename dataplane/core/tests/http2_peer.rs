//! The framer against `h2`, the HTTP/2 of Istio's ztunnel: its server behind our client, its client before our server.
//!
//! Both ends echo or count many bytes through small windows, over an in-memory pipe that blocks.

use std::collections::BTreeMap;
use std::time::Duration;

use ambit_core::framing::{ConnectHead, Connection, ErrorCode, Event, MalformedRequest, Settings, StreamId};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

const PIPE_BYTES: usize = 32 << 10;
const BODY_BYTES: usize = 1_500_000;
const BAGGAGE: &str = "k8s.cluster.name=Kubernetes,k8s.namespace.name=prod";
const DEADLINE: Duration = Duration::from_secs(60);

/// What the application behind our end does with a stream.
#[derive(Default)]
struct Tunnel {
    /// Bytes to send, and whether the end follows them.
    outbox: Vec<u8>,
    ends: bool,
    /// Echo what comes, so credit returns when it was sent.
    echoes: bool,
    received: Vec<u8>,
    is_finished: bool,
    status: Option<u16>,
    reset: Option<ErrorCode>,
}

/// Our end: a connection, its socket and its applications.
struct End {
    connection: Connection,
    socket: DuplexStream,
    wire: Vec<u8>,
    tunnels: BTreeMap<StreamId, Tunnel>,
    answered_pings: usize,
    is_refused_by_goaway: bool,
}

impl End {
    fn new(connection: Connection, socket: DuplexStream) -> Self {
        let (wire, tunnels) = (Vec::new(), BTreeMap::new());
        Self {
            connection,
            socket,
            wire,
            tunnels,
            answered_pings: 0,
            is_refused_by_goaway: false,
        }
    }

    /// Read or write once; false when the peer has closed.
    async fn turn(&mut self) -> bool {
        self.send();
        let mut buffer = [0; 3000];
        let (mut reader, mut writer) = tokio::io::split(&mut self.socket);
        tokio::select! {
            count = reader.read(&mut buffer) => match count {
                Ok(count) if count > 0 => {
                    self.take(&buffer[..count]);
                    true
                }
                _ => false,
            },
            count = writer.write(&self.wire), if !self.wire.is_empty() => match count {
                Ok(count) => {
                    self.wire.drain(..count);
                    true
                }
                Err(_) => false,
            },
        }
    }

    fn send(&mut self) {
        for (&stream, tunnel) in &mut self.tunnels {
            // A little at a time, so that streams take turns and windows are met in all states.
            let length = tunnel.outbox.len().min(self.connection.sendable(stream)).min(7000);
            if length > 0 && self.wire.len() < PIPE_BYTES {
                self.connection.take_outgoing(&mut self.wire);
                self.wire.extend(
                    self.connection
                        .data_head(stream, length, false)
                        .expect("it was sendable"),
                );
                self.wire.extend(tunnel.outbox.drain(..length));
                if tunnel.echoes {
                    self.connection.consumed(stream, length);
                }
            }
            if tunnel.outbox.is_empty() && tunnel.ends {
                self.connection.finish(stream);
            }
        }
        self.connection.take_outgoing(&mut self.wire);
    }

    fn take(&mut self, mut input: &[u8]) {
        while let Some(event) = self.connection.receive(&mut input).expect("the peer keeps the rules") {
            match event {
                Event::Request { stream, request, end } => {
                    assert!(!end);
                    match request {
                        Ok(head) if head.authority == "192.0.2.1:80" => {
                            assert_eq!(head.baggage.as_deref(), Some(BAGGAGE));
                            self.connection
                                .respond(stream, 200, &[("baggage", BAGGAGE)], false)
                                .expect("open");
                            self.tunnels.insert(
                                stream,
                                Tunnel {
                                    echoes: true,
                                    ..Tunnel::default()
                                },
                            );
                        }
                        Ok(_) => self.connection.respond(stream, 401, &[], true).expect("open"),
                        Err(problem) => {
                            assert_eq!(problem, MalformedRequest::NotConnect);
                            self.connection
                                .respond(stream, problem.status(), &[], true)
                                .expect("open");
                        }
                    }
                }
                Event::Response {
                    stream,
                    status,
                    baggage,
                    ..
                } => {
                    assert!(status != 200 || baggage.as_deref() == Some(BAGGAGE));
                    self.tunnels.entry(stream).or_default().status = Some(status);
                }
                Event::Data { stream, bytes, end } => {
                    let tunnel = self.tunnels.entry(stream).or_default();
                    if tunnel.echoes {
                        tunnel.outbox.extend(bytes);
                        tunnel.ends = end;
                    } else {
                        tunnel.received.extend(bytes);
                        tunnel.is_finished = end;
                        self.connection.consumed(stream, bytes.len());
                    }
                }
                Event::Finished { stream } => {
                    let tunnel = self.tunnels.entry(stream).or_default();
                    tunnel.is_finished = true;
                    tunnel.ends = true;
                }
                Event::Reset { stream, code } => self.tunnels.entry(stream).or_default().reset = Some(code),
                Event::PingAck { .. } => self.answered_pings += 1,
                Event::GoAway { .. } => self.is_refused_by_goaway = true,
                Event::WindowOpened { .. } | Event::SettingsReceived => {}
            }
        }
    }
}

fn body(seed: usize) -> Vec<u8> {
    (0..BODY_BYTES)
        .map(|position| (position * 31 + position / 256 + seed) as u8)
        .collect()
}

/// An `h2` server that echoes tunnels to 192.0.2.1 and refuses others.
fn spawn_h2_server(socket: DuplexStream) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(20_000)
            .initial_connection_window_size(70_000)
            .max_concurrent_streams(8);
        let mut connection = builder.handshake::<_, Bytes>(socket).await.expect("a handshake");
        let mut accepted = 0;
        while let Some(result) = connection.accept().await {
            let (request, respond) = result.expect("the framer keeps the rules");
            assert_eq!(
                (request.method(), request.version()),
                (&Method::CONNECT, Version::HTTP_2)
            );
            assert_eq!(request.headers()["baggage"], BAGGAGE);
            assert_eq!((request.uri().path(), request.uri().scheme()), ("", None));
            accepted += 1;
            if accepted == 6 {
                connection.graceful_shutdown();
            }
            tokio::spawn(serve(request, respond));
        }
    })
}

async fn serve(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let mut response = Response::new(());
    if request.uri().host() != Some("192.0.2.1") {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        respond.send_response(response, true).expect("an open stream");
        return;
    }
    response
        .headers_mut()
        .insert("baggage", BAGGAGE.parse().expect("a header value"));
    let mut sender = respond.send_response(response, false).expect("an open stream");
    let mut receiver = request.into_body();
    while let Some(bytes) = receiver.data().await {
        let bytes = bytes.expect("data");
        let length = bytes.len();
        send_all(&mut sender, bytes).await;
        receiver.flow_control().release_capacity(length).expect("capacity");
    }
    sender.send_data(Bytes::new(), true).expect("an open stream");
}

async fn send_all(sender: &mut h2::SendStream<Bytes>, mut bytes: Bytes) {
    while !bytes.is_empty() {
        sender.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|context| sender.poll_capacity(context)).await;
        let room = room.expect("an open stream").expect("capacity");
        sender
            .send_data(bytes.split_to(room.min(bytes.len())), false)
            .expect("an open stream");
    }
}

#[tokio::test]
async fn our_client_tunnels_through_an_h2_server() {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let server = spawn_h2_server(theirs);
    let mut end = End::new(Connection::client(Settings::client()), ours);
    let head = |authority| ConnectHead {
        authority,
        baggage: Some(BAGGAGE),
        ..ConnectHead::default()
    };
    for seed in 0..5 {
        let stream = end.connection.open(&head("192.0.2.1:80")).expect("room for a stream");
        end.tunnels.insert(
            stream,
            Tunnel {
                outbox: body(seed),
                ends: true,
                ..Tunnel::default()
            },
        );
    }
    let refused = end
        .connection
        .open(&head("198.51.100.1:80"))
        .expect("room for a stream");
    end.connection.ping(*b"12345678");
    let exchange = async {
        while end.turn().await && !end.connection.is_closed() {
            if end.tunnels.get(&refused).is_some_and(|tunnel| tunnel.status.is_some()) {
                end.connection.reset(refused, ErrorCode::CANCEL);
            }
        }
    };
    tokio::time::timeout(DEADLINE, exchange).await.expect("no deadlock");
    assert_eq!(end.tunnels.remove(&refused).and_then(|tunnel| tunnel.status), Some(401));
    assert_eq!(end.tunnels.len(), 5);
    for (seed, tunnel) in end.tunnels.values().enumerate() {
        assert_eq!(
            (tunnel.status, tunnel.is_finished, tunnel.reset),
            (Some(200), true, None)
        );
        assert!(tunnel.received == body(seed));
    }
    assert_eq!(end.answered_pings, 1);
    assert!(end.is_refused_by_goaway && !end.connection.can_open());
    drop(end);
    server.await.expect("the server ends in peace");
}

fn connect(authority: &str) -> Request<()> {
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(authority)
        .header("baggage", BAGGAGE);
    request.version(Version::HTTP_2).body(()).expect("a request")
}

async fn echo(mut client: h2::client::SendRequest<Bytes>, seed: usize) {
    let (response, mut sender) = client
        .send_request(connect("192.0.2.1:80"), false)
        .expect("room for a stream");
    let response = response.await.expect("a response");
    assert_eq!(
        (response.status(), &response.headers()["baggage"]),
        (StatusCode::OK, &BAGGAGE.parse().expect("text"))
    );
    let mut receiver = response.into_body();
    let send = async {
        send_all(&mut sender, body(seed).into()).await;
        sender.send_data(Bytes::new(), true).expect("an open stream");
    };
    let receive = async {
        let mut received = Vec::new();
        while let Some(bytes) = receiver.data().await {
            let bytes = bytes.expect("data");
            receiver.flow_control().release_capacity(bytes.len()).expect("capacity");
            received.extend(bytes);
        }
        received
    };
    let ((), received) = tokio::join!(send, receive);
    assert!(received == body(seed));
}

async fn status_of(client: &mut h2::client::SendRequest<Bytes>, request: Request<()>) -> StatusCode {
    // The stream stays open on this side, so the server has to stop us.
    let (response, _sender) = client.send_request(request, false).expect("room for a stream");
    response.await.expect("a response").status()
}

#[tokio::test]
async fn an_h2_client_tunnels_through_our_server() {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let settings = Settings {
        initial_window: 30_000,
        connection_window: 80_000,
        ..Settings::server()
    };
    let mut end = End::new(Connection::server(settings), ours);
    let client = tokio::spawn(async move {
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(25_000)
            .initial_connection_window_size(90_000)
            .enable_push(false);
        let (mut client, mut connection) = builder.handshake::<_, Bytes>(theirs).await.expect("a handshake");
        let mut pings = connection.ping_pong().expect("one ping-pong");
        let driver = tokio::spawn(connection);
        let tunnels: Vec<_> = (0..5).map(|seed| tokio::spawn(echo(client.clone(), seed))).collect();
        pings.ping(h2::Ping::opaque()).await.expect("a pong");
        let get = Request::builder()
            .uri("https://192.0.2.1/")
            .version(Version::HTTP_2)
            .body(())
            .expect("a request");
        assert_eq!(status_of(&mut client, get).await, StatusCode::BAD_REQUEST);
        assert_eq!(
            status_of(&mut client, connect("198.51.100.1:80")).await,
            StatusCode::UNAUTHORIZED
        );
        for tunnel in tunnels {
            tunnel.await.expect("a tunnel");
        }
        drop(client);
        driver.await.expect("no panic").expect("the framer keeps the rules");
    });
    let exchange = async { while end.turn().await {} };
    tokio::time::timeout(DEADLINE, exchange).await.expect("no deadlock");
    client.await.expect("the client is content");
    assert_eq!(end.connection.active_streams(), 0);
}
