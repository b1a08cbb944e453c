//! Messages generated from `proto/` at the repository's root; the `.proto` files document them.
#![allow(missing_docs, clippy::all, unreachable_pub)]

/// Addresses and services (`istio.workload`) and the enrolment protocol beneath them.
pub mod workload {
    include!(concat!(env!("OUT_DIR"), "/istio.workload.rs"));
    /// Between node agent and ztunnel.
    pub mod zds {
        include!(concat!(env!("OUT_DIR"), "/istio.workload.zds.rs"));
    }
}
/// L4 policies (`istio.security`).
pub mod security {
    include!(concat!(env!("OUT_DIR"), "/istio.security.rs"));
}
/// Certificate signing (`istio.v1.auth`).
pub mod citadel {
    include!(concat!(env!("OUT_DIR"), "/istio.v1.auth.rs"));
}
