//! Network namespaces: sockets are opened *inside* a pod's namespace, then used from anywhere.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use nix::sched::{CloneFlags, setns};

/// A network namespace, held open by its descriptor, so that a path that is reused can never stand for another one.
#[derive(Debug)]
pub struct Netns {
    descriptor: OwnedFd,
    /// (inode, device): two descriptors are the same namespace exactly when these are equal.
    identity: (u64, u64),
}

impl Netns {
    /// Take over a descriptor of a network namespace. Errors when its metadata cannot be read.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let file = File::from(descriptor);
        let metadata = file.metadata()?;
        Ok(Self {
            identity: (metadata.ino(), metadata.dev()),
            descriptor: file.into(),
        })
    }

    /// The namespace that the process was started in.
    pub fn own() -> io::Result<Self> {
        Self::new(own_namespace()?.try_clone()?)
    }

    /// The inode and device that identify the namespace.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Run `action` with the calling thread inside this namespace, then return the thread to its own.
    ///
    /// `action` must not wait: the thread serves others. Errors when the namespace cannot be entered
    /// (`CAP_SYS_ADMIN` is needed in it), or with the error of `action`.
    ///
    /// # Panics
    /// When the thread cannot return to its own namespace: going on would open sockets in the wrong pod.
    pub fn within<T>(&self, action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let own = own_namespace()?;
        setns(self.descriptor.as_fd(), CloneFlags::CLONE_NEWNET)?;
        let result = action();
        setns(own.as_fd(), CloneFlags::CLONE_NEWNET).expect("a thread can return to the namespace it came from");
        result
    }
}

/// The namespace that the process was started in. Opened once: every worker belongs to it.
fn own_namespace() -> io::Result<&'static OwnedFd> {
    static OWN: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(own) = OWN.get() {
        return Ok(own);
    }
    let opened = OwnedFd::from(File::open("/proc/self/ns/net")?);
    Ok(OWN.get_or_init(|| opened))
}
