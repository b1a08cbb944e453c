//! A gRPC server's transport, for the controller: sockets, TLS, HTTP/2 and framing. What a call means is decided by
//! whoever takes the events (Python's side, `controller.transport`).
//!
//! Connections are spread over a few threads with a runtime each. A call has a task there, which puts messages together
//! and waits when they are not taken, and writes what is queued and waits for the client's window. Between it and the
//! other side stands `call::Call`, whose two queues have a lock; a message that goes to many calls is one block of
//! memory. Events wake the other side through one descriptor. Read `call` first, then `connection` and `server`.

pub mod call;
mod connection;
pub mod events;
pub mod server;
#[cfg(test)]
mod tests;
mod tls;

use std::time::Duration;

/// What a server is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `/package.Service/Method` of what is served; anything else is answered with UNIMPLEMENTED.
    pub paths: Vec<String>,
    /// Messages that are larger are refused.
    pub max_message_bytes: usize,
    /// How often a client is asked whether it is there, and how long it has to answer.
    pub keepalive: (Duration, Duration),
    /// After about how long a connection's client is told to make a new one, and how long the calls on it may go on.
    pub max_age: Option<(Duration, Duration)>,
    /// Threads that carry connections.
    pub threads: usize,
}

/// Why a server cannot do as it is told.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No socket.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        error: std::io::Error,
    },
    /// No thread or descriptor.
    #[error("cannot start: {0}")]
    Start(std::io::Error),
    /// A certificate or key that rustls does not take.
    #[error("serving certificate: {0}")]
    Certificate(String),
}
