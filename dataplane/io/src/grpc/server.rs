//! The server as a whole: listeners, the threads that connections are spread over, and its end.

use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};

use super::call::{Call, Closed, Message};
use super::connection::{Phase, Shared, serve};
use super::events::Events;
use super::tls::{self, Certificate};
use super::{ServerError, Settings};

/// As the kernel's own bound: a thousand agents come at once.
const BACKLOG: i32 = 4096;
/// When there are no descriptors left, others have to end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The certificate of one or several listeners, replaced while they serve.
#[derive(Clone, Debug)]
pub struct ServingIdentity(Arc<Certificate>);

impl ServingIdentity {
    /// From a key and a chain in PEM.
    pub fn new(key: &[u8], chain: &[u8]) -> Result<Self, ServerError> {
        Certificate::new(key, chain).map(Arc::new).map(Self)
    }

    /// Show this from the next handshake on.
    pub fn replace(&self, key: &[u8], chain: &[u8]) -> Result<(), ServerError> {
        self.0.replace(key, chain)
    }
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    connections: Arc<watch::Sender<usize>>,
    workers: Mutex<Vec<Worker>>,
    handles: Arc<[Handle]>,
}

impl Server {
    /// Start the threads. It listens nowhere yet.
    pub fn start(settings: Settings) -> Result<Self, ServerError> {
        let (phase, receiver) = watch::channel(Phase::Serving);
        let workers = (0..settings.threads.max(1))
            .map(|_| start_worker())
            .collect::<io::Result<Vec<_>>>()
            .map_err(ServerError::Start)?;
        let shared = Shared {
            settings,
            events: Events::new().map_err(ServerError::Start)?,
            phase: receiver,
            next_call: AtomicU64::new(1),
        };
        Ok(Self {
            shared: Arc::new(shared),
            phase,
            connections: Arc::new(watch::Sender::new(0)),
            handles: workers.iter().map(|worker| worker.handle.clone()).collect(),
            workers: Mutex::new(workers),
        })
    }

    /// What happens.
    pub fn events(&self) -> &Events {
        &self.shared.events
    }

    /// Listen on an address, in plaintext or with a certificate; gives the port. A name may have several addresses:
    /// all are listened on.
    pub fn listen(&self, address: (&str, u16), identity: Option<&ServingIdentity>) -> Result<u16, ServerError> {
        let failed = |error| ServerError::Listen {
            address: format!("{}:{}", address.0, address.1),
            error,
        };
        let tls = identity
            .map(|identity| tls::config(Arc::clone(&identity.0)))
            .transpose()?;
        let listeners = bind_all(address).map_err(failed)?;
        let port = listeners[0].local_addr().map_err(failed)?.port();
        for listener in listeners {
            let acceptor = Acceptor {
                tls: tls.clone(),
                shared: Arc::clone(&self.shared),
                connections: Arc::clone(&self.connections),
                handles: Arc::clone(&self.handles),
                next: AtomicUsize::new(0),
            };
            self.handles[0].spawn(acceptor.run(listener));
        }
        Ok(port)
    }

    /// Queue messages, one for each of these calls, and wake their writers together. Gives for each whether more may
    /// follow before it is writable.
    pub fn send_all(&self, messages: Vec<(Arc<Call>, Message)>) -> Vec<Result<bool, Closed>> {
        let results = messages.iter().map(|(call, message)| call.queue(message)).collect();
        let mut woken: Vec<Vec<Arc<Call>>> = vec![Vec::new(); self.handles.len()];
        for (call, _) in messages {
            woken[call.worker].push(call);
        }
        for (handle, calls) in self.handles.iter().zip(woken) {
            if !calls.is_empty() {
                // On its own thread a task is woken without a system call.
                handle.spawn(async move { calls.iter().for_each(|call| call.wake()) });
            }
        }
        results
    }

    /// Take no connections any more, tell clients to go elsewhere, and end when the last has gone or the time is over.
    pub fn close(&self, grace: Duration) {
        self.phase.send_replace(Phase::Leaving);
        let mut connections = self.connections.subscribe();
        let mut workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(worker) = workers.first() {
            let (done, waiting) = std::sync::mpsc::channel();
            worker.handle.spawn(async move {
                let gone = connections.wait_for(|count| *count == 0);
                // Whether all have gone or not, the end comes now.
                let _ = tokio::time::timeout(grace, gone).await;
                let _ = done.send(());
            });
            let _ = waiting.recv();
        }
        for worker in &mut workers {
            // The worker may have ended, which is what is wanted.
            let _ = worker.end.take().map(|end| end.send(()));
        }
        for worker in &mut workers {
            let _ = worker.thread.take().map(JoinHandle::join);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

fn start_worker() -> io::Result<Worker> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (end, ended) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new()
        .name("grpc".to_owned())
        .stack_size(1024 * 1024)
        .spawn(move || {
            // The sender is dropped with the server; both mean the end.
            let _ = runtime.block_on(ended);
        })?;
    Ok(Worker {
        handle,
        end: Some(end),
        thread: Some(thread),
    })
}

fn bind_all((host, port): (&str, u16)) -> io::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for mut address in (host, port).to_socket_addrs()? {
        if let Some(first) = listeners.first() {
            address.set_port(first.local_addr()?.port());
        }
        match bind(address) {
            Ok(listener) => listeners.push(listener),
            // A name of this machine may have an address of a family that is off here; a taken port is no such thing.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => failure = error,
        }
    }
    if listeners.is_empty() {
        Err(failure)
    } else {
        Ok(listeners)
    }
}

fn bind(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    // A port whose last connections are not forgotten yet can be had again; one that is listened on cannot.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

struct Acceptor {
    tls: Option<Arc<ServerConfig>>,
    shared: Arc<Shared>,
    connections: Arc<watch::Sender<usize>>,
    handles: Arc<[Handle]>,
    next: AtomicUsize,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) {
        // A registered listener cannot be registered twice, and the runtime is there.
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
            return;
        };
        let mut phase = self.shared.phase.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = phase.wait_for(|phase| *phase == Phase::Leaving) => return,
            };
            match accepted {
                Ok((socket, peer)) => self.hand_over(socket, peer),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// Give a connection to the next thread.
    fn hand_over(&self, socket: tokio::net::TcpStream, peer: std::net::SocketAddr) {
        // Without it small messages wait for the client's acknowledgements; a socket that refuses has ended.
        let _ = socket.set_nodelay(true);
        let Ok(socket) = socket.into_std() else {
            return;
        };
        let worker = self.next.fetch_add(1, Relaxed) % self.handles.len();
        let (tls, shared) = (self.tls.clone(), Arc::clone(&self.shared));
        let counted = Counted::new(&self.connections);
        self.handles[worker].spawn(async move {
            let _counted = counted;
            if let Ok(socket) = tokio::net::TcpStream::from_std(socket) {
                serve(socket, peer, tls, worker, shared).await;
            }
        });
    }
}

/// One connection, as long as it is there.
struct Counted(Arc<watch::Sender<usize>>);

impl Counted {
    fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
