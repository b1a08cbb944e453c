//! Sockets, TLS, network namespaces and the runtime of the data plane: what performs the decisions of `ambit-core`.
//!
//! Workers share nothing per byte: each has its own thread, runtime, listeners, pools and buffers. Nothing here knows
//! Python. Read `worker` first, then `proxy`, `outbound` and `inbound`, and `tunnel` for how bytes move.

pub mod admin;
mod busy_poll;
pub mod certificates;
pub mod control;
mod demand;
mod dns;
mod gateway;
pub mod grpc;
pub mod handover;
mod inbound;
mod labels;
mod live;
pub mod logging;
mod memory;
pub mod netns;
mod node;
mod node_local;
mod outbound;
mod penalty;
mod pool;
pub mod proxy;
mod readiness;
mod rfc3339;
pub mod settings;
pub mod shared;
mod signal;
mod sockets;
mod socks5;
mod tcp_relay;
pub mod telemetry;
mod tls;
mod tunnel;
pub mod wire;
mod worker;
pub mod ztunnel;
