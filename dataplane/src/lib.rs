//! The PyO3 border: converts, calls, converts. `dataplane/_native.pyi` documents every name; no logic belongs here.
//!
//! Every call that may wait detaches from the interpreter first.

mod errors;
mod grpc;
mod streams;
mod ztunnel;

use std::collections::HashMap;

use ambit_io::logging::{self, Fields, Level};
use pyo3::prelude::*;

use errors::invalid_input;

/// The native module.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::grpc::{GrpcCall, GrpcIdentity, GrpcServer};
    #[pymodule_export]
    use super::streams::{
        AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, parse_workload_request, zds_acknowledgement, zds_hello,
    };
    #[pymodule_export]
    use super::ztunnel::{
        CertificateDiscarded, CertificateFailed, CertificateFetched, CertificateWanted, ControlPlane,
        DiscoveryResponse, DiscoveryStream, SecuritySettings, TrafficSettings, Ztunnel, ZtunnelSettings,
    };
    #[pymodule_export]
    use super::{flush_log, log, start_log};
}

fn parse_level(level: &str) -> PyResult<Level> {
    Level::parse(level).ok_or_else(|| {
        invalid_input(format!(
            "log level {level:?} is not known; use error, warn, info or debug"
        ))
    })
}

/// Write a line to the process's log.
#[pyfunction]
fn log(py: Python<'_>, level: &str, scope: &str, message: &str, fields: HashMap<String, String>) -> PyResult<()> {
    let level = parse_level(level)?;
    py.detach(|| {
        let mut names: Vec<_> = fields.iter().collect();
        names.sort();
        let fields = names
            .into_iter()
            .fold(Fields::default(), |fields, (name, value)| fields.text(name, value));
        logging::write(level, scope, message, &fields);
    });
    Ok(())
}

/// Write what `filter` allows (`info,access=debug`), as `plain` lines or as `json` objects.
#[pyfunction]
fn start_log(filter: &str, format: &str) -> PyResult<()> {
    let filter = filter
        .parse()
        .map_err(|error| invalid_input(format!("RUST_LOG: {error}")))?;
    logging::start(filter, format).map_err(|error| invalid_input(format!("LOG_FORMAT: {error}")))
}

/// Wait until the log is written.
#[pyfunction]
fn flush_log(py: Python<'_>) {
    py.detach(logging::flush);
}
