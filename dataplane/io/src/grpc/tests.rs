//! The server against an HTTP/2 client that says what gRPC's own clients never would.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::Settings;
use super::call::{Call, Message, Status};
use super::events::Event;
use super::server::Server;

const PATH: &str = "/test.Echo/Say";
const PATIENCE: Duration = Duration::from_secs(10);

fn settings() -> Settings {
    Settings {
        paths: vec![PATH.to_owned()],
        max_message_bytes: 100_000,
        keepalive: (Duration::from_secs(30), Duration::from_secs(10)),
        max_age: None,
        threads: 2,
    }
}

/// A server on a port of its own.
struct Served {
    server: Server,
    port: u16,
    seen: Mutex<Vec<Event>>,
}

impl Served {
    fn start(settings: Settings) -> Self {
        let server = Server::start(settings).expect("threads");
        let port = server.listen(("127.0.0.1", 0), None).expect("a port");
        Self {
            server,
            port,
            seen: Mutex::default(),
        }
    }

    async fn dial(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .await
            .expect("it listens")
    }

    /// A client's connection, whose end is what the task gives.
    async fn connect(&self) -> (SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
        let (requests, connection) = client::handshake(self.dial().await).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        (requests.ready().await.expect("room for a stream"), connection)
    }

    /// The first event that `choose` wants; what comes before it stays.
    async fn event<T>(&self, mut choose: impl FnMut(&Event) -> Option<T>) -> T {
        timeout(PATIENCE, async {
            loop {
                {
                    let mut seen = self.seen.lock().expect("no panic");
                    seen.extend(self.server.events().take());
                    let found = seen
                        .iter()
                        .enumerate()
                        .find_map(|(place, event)| Some((place, choose(event)?)));
                    if let Some((place, found)) = found {
                        seen.remove(place);
                        return found;
                    }
                }
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("it happens")
    }

    async fn opened(&self) -> Arc<Call> {
        self.event(|event| match event {
            Event::Opened(call) => Some(Arc::clone(call)),
            _ => None,
        })
        .await
    }

    async fn closed(&self, id: u64) {
        self.event(|event| matches!(event, Event::Closed(closed) if *closed == id).then_some(()))
            .await;
    }
}

fn request(path: &str, content_type: &str) -> Request<()> {
    Request::post(format!("http://test{path}"))
        .header("content-type", content_type)
        .header("x-name", "value")
        .body(())
        .expect("a request")
}

fn open(requests: &mut SendRequest<Bytes>) -> (ResponseFuture, SendStream<Bytes>) {
    requests
        .send_request(request(PATH, "application/grpc"), false)
        .expect("a stream")
}

fn code(headers: &HeaderMap) -> &str {
    headers["grpc-status"].to_str().expect("text")
}

async fn answer(response: ResponseFuture) -> Response<h2::RecvStream> {
    timeout(PATIENCE, response).await.expect("in time").expect("an answer")
}

fn message(parts: &[&'static [u8]]) -> Message {
    Message::new(parts.iter().map(|part| Bytes::from_static(part)).collect()).expect("short")
}

#[tokio::test]
async fn messages_go_both_ways_and_the_status_comes_last() {
    let served = Served::start(settings());
    let (mut requests, _connection) = served.connect().await;
    let (response, mut body) = open(&mut requests);
    // A message in two frames, and another one.
    body.send_data(Bytes::from_static(b"\0\0\0\0\x02a"), false)
        .expect("sent");
    body.send_data(Bytes::from_static(b"b\0\0\0\0\0"), true).expect("sent");
    let call = served.opened().await;
    assert_eq!(call.path, PATH);
    assert!(call.metadata.contains(&("x-name".to_owned(), "value".to_owned())));
    let mut taken = Vec::new();
    while !call.is_at_end() {
        taken.extend(call.take());
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(taken, ["ab", ""]);
    call.send(&message(&[b"c", b"d"])).expect("open");
    call.finish(Status {
        code: 5,
        message: "50%\n".to_owned(),
    });
    let mut answer = answer(response).await.into_body();
    assert_eq!(
        answer.data().await.expect("data").expect("data"),
        &b"\0\0\0\0\x02cd"[..]
    );
    assert!(answer.data().await.is_none());
    let trailers = answer.trailers().await.expect("trailers").expect("trailers");
    assert_eq!(code(&trailers), "5");
    assert_eq!(trailers["grpc-message"], "50%25%0A");
    served.closed(call.id).await;
}

#[tokio::test]
async fn malformed_compressed_oversized_and_truncated_messages_end_their_call_only() {
    let served = Served::start(settings());
    let (mut requests, _connection) = served.connect().await;
    let (_response, _body) = open(&mut requests);
    let other = served.opened().await;
    let cases: [(&'static [u8], bool, &str); 4] = [
        (b"\x02\0\0\0\0", false, "13"),
        (b"\x01\0\0\0\0", false, "12"),
        (b"\0\x7F\xFF\xFF\xFF", false, "8"),
        (b"\0\0\0\0\x05abc", true, "13"),
    ];
    for (data, ends, expected) in cases {
        let (response, mut body) = open(&mut requests);
        body.send_data(Bytes::from_static(data), ends).expect("sent");
        let call = served.opened().await;
        assert_eq!(code(answer(response).await.headers()), expected, "{data:?}");
        served.closed(call.id).await;
    }
    other.send(&message(&[b"still there"])).expect("open");
}

#[tokio::test]
async fn what_is_not_served_and_what_is_no_grpc_is_refused() {
    let served = Served::start(settings());
    let (mut requests, _connection) = served.connect().await;
    let (response, _) = requests
        .send_request(request("/test.Echo/Other", "application/grpc"), true)
        .expect("a stream");
    assert_eq!(code(answer(response).await.headers()), "12");
    let (response, _) = requests
        .send_request(request(PATH, "text/plain"), true)
        .expect("a stream");
    assert_eq!(answer(response).await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_reset_and_a_lost_connection_close_their_calls() {
    let served = Served::start(settings());
    let (mut requests, connection) = served.connect().await;
    let (_first_response, mut first) = open(&mut requests);
    let reset = served.opened().await;
    first.send_reset(Reason::CANCEL);
    served.closed(reset.id).await;
    assert!(reset.send(&message(&[b"late"])).is_err());
    let (_response, _body) = open(&mut requests);
    let lost = served.opened().await;
    connection.abort();
    served.closed(lost.id).await;
}

#[tokio::test]
async fn a_reader_that_is_slow_holds_up_nobody_and_keeps_one_block_of_memory_only() {
    let served = Served::start(settings());
    let block = Bytes::from(vec![0; 8 * 1024 * 1024]);
    let large = Message::new(vec![block.clone()]).expect("short");
    let (mut slow_requests, _slow_connection) = served.connect().await;
    let (slow_response, _slow_body) = open(&mut slow_requests);
    let slow = served.opened().await;
    let (mut requests, _connection) = served.connect().await;
    let (response, _body) = open(&mut requests);
    let fast = served.opened().await;
    let results = served
        .server
        .send_all(vec![(Arc::clone(&slow), large.clone()), (Arc::clone(&fast), large)]);
    assert_eq!(results, [Ok(false), Ok(false)]);
    let mut fast_body = answer(response).await.into_body();
    let mut received = 0;
    while received < block.len() {
        let data = fast_body.data().await.expect("data").expect("data");
        fast_body.flow_control().release_capacity(data.len()).expect("a stream");
        received += data.len();
    }
    let writable = served
        .event(|event| match event {
            Event::Writable(id) => Some(*id),
            _ => None,
        })
        .await;
    assert_eq!(writable, fast.id);
    // The slow one has had its window, and waits for the rest, which is the very same memory.
    let slow_body = answer(slow_response).await.into_body();
    assert!(!block.is_unique());
    drop((slow_body, slow_requests, _slow_connection.abort()));
    served.closed(slow.id).await;
    timeout(PATIENCE, async {
        while !block.is_unique() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("nobody holds it any more");
}

#[tokio::test]
async fn a_connection_of_age_is_told_to_go_and_its_calls_end_after_a_grace() {
    let served = Served::start(Settings {
        max_age: Some((Duration::from_millis(100), Duration::from_millis(300))),
        ..settings()
    });
    let (mut requests, connection) = served.connect().await;
    let (response, _body) = open(&mut requests);
    let call = served.opened().await;
    // GOAWAY: no new streams, and this one goes on.
    timeout(PATIENCE, async {
        while requests.clone().ready().await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the client is told");
    call.send(&message(&[b"during the grace"])).expect("open");
    assert_eq!(answer(response).await.status(), StatusCode::OK);
    served.closed(call.id).await;
    timeout(PATIENCE, connection)
        .await
        .expect("it ends")
        .expect("no panic")
        .ok();
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_given_up() {
    let served = Served::start(Settings {
        keepalive: (Duration::from_millis(50), Duration::from_millis(100)),
        ..settings()
    });
    let mut socket = served.dial().await;
    tokio::io::AsyncWriteExt::write_all(&mut socket, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .expect("sent");
    let mut received = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut received))
        .await
        .expect("the connection ends")
        .expect("as it should");
}

#[tokio::test]
async fn a_server_that_ends_lets_calls_finish_and_waits_no_longer_than_it_is_told() {
    let served = Arc::new(Served::start(settings()));
    let (mut requests, _connection) = served.connect().await;
    let (response, _body) = open(&mut requests);
    let call = served.opened().await;
    let closing = {
        let served = Arc::clone(&served);
        tokio::task::spawn_blocking(move || served.server.close(PATIENCE))
    };
    sleep(Duration::from_millis(20)).await;
    call.finish(Status {
        code: 14,
        message: String::new(),
    });
    assert_eq!(code(answer(response).await.headers()), "14");
    timeout(PATIENCE, closing)
        .await
        .expect("all have gone")
        .expect("no panic");
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, served.port)).await.is_err());

    let held = Arc::new(Served::start(settings()));
    let (mut requests, _connection) = held.connect().await;
    let (response, _body) = open(&mut requests);
    held.opened().await;
    tokio::task::spawn_blocking(move || held.server.close(Duration::from_millis(20)))
        .await
        .expect("no panic");
    assert!(timeout(PATIENCE, response).await.expect("it ends").is_err());
}

#[tokio::test]
async fn a_port_is_had_by_one_server_only() {
    let served = Served::start(settings());
    let other = Server::start(settings()).expect("threads");
    let error = other.listen(("127.0.0.1", served.port), None).expect_err("taken");
    assert!(error.to_string().starts_with("cannot listen on 127.0.0.1:"), "{error}");
}
