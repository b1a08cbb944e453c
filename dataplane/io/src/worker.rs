//! A worker: one thread, one current-thread runtime, its own listeners, pools and buffers. Nothing is shared per byte.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::busy_poll;
use crate::handover::Share;
use crate::memory::Memory;
use crate::proxy::{Neighbours, Pod, PodProxy};
use crate::shared::Shared;
use crate::tunnel::revocable;

/// How often tunnels that nobody needs are looked for, and memory that nobody uses is given back.
const HOUSEKEEPING: Duration = Duration::from_secs(2);
/// A worker's stack: connections live on the heap, and the deepest call is a handshake.
const STACK: usize = 1024 * 1024;

/// A pod's uid, and its open connections in both directions, for the configuration dump.
pub(crate) type PodConnections = (String, (Vec<Value>, Vec<Value>));

enum Command {
    Add(Arc<Pod>, Share, oneshot::Sender<io::Result<()>>),
    Listeners((u64, u64), oneshot::Sender<Vec<OwnedFd>>),
    Connections(oneshot::Sender<Vec<PodConnections>>),
    Remove(String, oneshot::Sender<()>),
    Drain(Duration, oneshot::Sender<()>),
}

/// The way to a worker's thread.
pub(crate) struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
}

impl WorkerHandle {
    /// Start the thread. Errors when the system has none to give.
    pub(crate) fn start(index: usize, shared: Arc<Shared>) -> io::Result<Self> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .stack_size(STACK)
            .spawn(move || {
                LocalSet::new().block_on(&runtime, serve(shared, receiver));
            })?;
        Ok(Self { commands })
    }

    /// Serve a pod. Errors when its listeners cannot be opened.
    pub(crate) fn add(&self, pod: Arc<Pod>, share: Share) -> io::Result<()> {
        self.ask(|reply| Command::Add(pod, share, reply))
            .unwrap_or_else(|| Err(io::Error::other("the worker has ended")))
    }

    /// Duplicates of the sockets that are listened on in a namespace.
    pub(crate) fn listeners(&self, netns: (u64, u64)) -> Vec<OwnedFd> {
        self.ask(|reply| Command::Listeners(netns, reply)).unwrap_or_default()
    }

    /// The open connections of each pod.
    pub(crate) async fn connections(&self) -> Vec<PodConnections> {
        let (reply, answer) = oneshot::channel();
        // A worker that has ended has none.
        let _ = self.commands.send(Command::Connections(reply));
        answer.await.unwrap_or_default()
    }

    /// Stop serving a pod, at once.
    pub(crate) fn remove(&self, uid: &str) {
        self.ask(|reply| Command::Remove(uid.to_owned(), reply));
    }

    /// Begin to drain; the receiver hears when it is done.
    pub(crate) fn drain(&self, deadline: Duration) -> oneshot::Receiver<()> {
        let (reply, done) = oneshot::channel();
        // When the worker has ended, the receiver hears that too.
        let _ = self.commands.send(Command::Drain(deadline, reply));
        done
    }

    fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).ok()?;
        answer.blocking_recv().ok()
    }
}

async fn serve(shared: Arc<Shared>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let pods = Rc::new(Neighbours::default());
    let mut changes = shared.changes();
    let mut revocations = shared.tls.revocations.changes();
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    let mut memory = Memory::default();
    if shared.settings.busy_poll {
        tokio::task::spawn_local(busy_poll::watch());
    }
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some(Command::Add(pod, share, reply)) => {
                    // Whoever asked has given up when this fails.
                    let _ = reply.send(pods.add(Arc::clone(&shared), pod, share));
                }
                Some(Command::Listeners(netns, reply)) => {
                    // Whoever asked has given up when this fails.
                    let _ = reply.send(pods.listeners(netns));
                }
                Some(Command::Connections(reply)) => {
                    // Whoever asked has given up when this fails.
                    let _ = reply.send(pods.connections());
                }
                Some(Command::Remove(uid, reply)) => {
                    pods.remove(&uid);
                    let _ = reply.send(());
                }
                Some(Command::Drain(deadline, reply)) => {
                    let all = pods.start_draining();
                    tokio::task::spawn_local(async move {
                        drain(all, deadline).await;
                        let _ = reply.send(());
                    });
                }
            },
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                let mesh = shared.mesh();
                pods.for_each(|pod| pod.re_evaluate(&mesh));
            }
            revoked = revocations.changed() => {
                if revoked.is_err() {
                    return;
                }
                revocable::end_revoked(&shared.tls.revocations);
            }
            _ = housekeeping.tick() => {
                revocable::forget_ended();
                pods.for_each(PodProxy::release_unused);
                memory.give_back(&shared.metrics);
            }
        }
    }
}

/// Let connections end by themselves until the deadline, then end them.
async fn drain(proxies: Vec<Rc<PodProxy>>, deadline: Duration) {
    for proxy in &proxies {
        proxy.stop_accepting();
    }
    let finished = async {
        for proxy in &proxies {
            proxy.finished().await;
        }
    };
    if tokio::time::timeout(deadline, finished).await.is_err() {
        for proxy in &proxies {
            proxy.stop();
        }
    }
}
