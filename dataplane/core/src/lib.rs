//! What Ambit's data plane decides and the protocols it speaks, as pure functions and state machines.
//!
//! Nothing here does I/O, reads a clock or draws a random number: times, samples and bytes come in as arguments.
#![forbid(unsafe_code)]

pub mod balance;
pub mod demand;
pub mod dns;
pub mod framing;
pub mod grpc;
pub mod hbone;
pub mod identity;
pub mod inbound;
pub mod mesh_state;
pub mod node_local;
pub mod policy;
pub mod proxy_protocol;
pub mod socks5;
pub mod upstream;
pub mod wire;

#[cfg(test)]
mod testing;
