//! `ambit_io::grpc` for Python.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use ambit_io::grpc::call::{Call, Message, Status};
use ambit_io::grpc::events::Event;
use ambit_io::grpc::server::{Server, ServingIdentity};
use ambit_io::grpc::{ServerError, Settings};
use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::errors::{invalid_input, transient};

/// Up to here a copy costs less than holding on to Python's object.
const COPIED_BYTES: usize = 4096;
/// The longest that any time of the settings can be.
const MAX_SECONDS: f64 = 10.0 * 365.0 * 86_400.0;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, MAX_SECONDS))
}

fn server_error(error: ServerError) -> PyErr {
    let message = error.to_string();
    match error {
        ServerError::Listen { .. } | ServerError::Start(_) => transient(message),
        ServerError::Certificate(_) => invalid_input(message),
    }
}

fn build_message(parts: Vec<PyBackedBytes>) -> PyResult<Message> {
    let parts = parts.into_iter().map(|part| match part.len() {
        0..=COPIED_BYTES => Bytes::copy_from_slice(&part),
        _ => Bytes::from_owner(part),
    });
    Message::new(parts.collect()).map_err(|error| invalid_input(error.to_string()))
}

/// As gRPC's own libraries write it. A socket of both families has IPv4 clients in a form of IPv6.
fn show_peer(peer: SocketAddr) -> String {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    match peer {
        SocketAddr::V4(_) => format!("ipv4:{peer}"),
        SocketAddr::V6(_) => format!("ipv6:{peer}"),
    }
}

/// A serving certificate.
#[pyclass(frozen)]
pub(crate) struct GrpcIdentity(ServingIdentity);

#[pymethods]
impl GrpcIdentity {
    #[new]
    fn new(key: &[u8], chain: &[u8]) -> PyResult<Self> {
        ServingIdentity::new(key, chain).map(Self).map_err(server_error)
    }

    fn replace(&self, key: &[u8], chain: &[u8]) -> PyResult<()> {
        self.0.replace(key, chain).map_err(server_error)
    }
}

/// One call.
#[pyclass(frozen)]
pub(crate) struct GrpcCall(Arc<Call>);

#[pymethods]
impl GrpcCall {
    #[getter]
    fn id(&self) -> u64 {
        self.0.id
    }

    #[getter]
    fn path(&self) -> &str {
        &self.0.path
    }

    #[getter]
    fn peer(&self) -> String {
        show_peer(self.0.peer)
    }

    #[getter]
    fn metadata(&self) -> Vec<(String, String)> {
        self.0.metadata.clone()
    }

    #[getter]
    fn is_at_end(&self) -> bool {
        self.0.is_at_end()
    }

    fn take<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.take().map(|message| PyBytes::new(py, &message))
    }

    fn send(&self, parts: Vec<PyBackedBytes>) -> PyResult<bool> {
        self.0
            .send(&build_message(parts)?)
            .map_err(|error| transient(error.to_string()))
    }

    fn finish(&self, code: u32, message: String) {
        self.0.finish(Status { code, message });
    }
}

/// What happened, by kind: calls that were opened, and the numbers of those that are readable, writable, closed.
type Happened = (Vec<GrpcCall>, Vec<u64>, Vec<u64>, Vec<u64>);

/// The transport of a gRPC server.
#[pyclass(frozen)]
pub(crate) struct GrpcServer(Server);

#[pymethods]
impl GrpcServer {
    #[new]
    #[pyo3(signature = (*, paths, max_message_bytes, keepalive, max_age, threads))]
    fn new(
        paths: Vec<String>,
        max_message_bytes: usize,
        keepalive: (f64, f64),
        max_age: Option<(f64, f64)>,
        threads: usize,
    ) -> PyResult<Self> {
        let pair = |(first, second)| (seconds(first), seconds(second));
        let settings = Settings {
            paths,
            max_message_bytes,
            keepalive: pair(keepalive),
            max_age: max_age.map(pair),
            threads,
        };
        Server::start(settings).map(Self).map_err(server_error)
    }

    #[pyo3(signature = (host, port, identity))]
    fn listen(
        &self,
        py: Python<'_>,
        host: &str,
        port: u16,
        identity: Option<&Bound<'_, GrpcIdentity>>,
    ) -> PyResult<u16> {
        let identity = identity.map(|identity| identity.get().0.clone());
        py.detach(|| self.0.listen((host, port), identity.as_ref()))
            .map_err(server_error)
    }

    fn fileno(&self) -> i32 {
        self.0.events().as_fd().as_raw_fd()
    }

    fn take_events(&self) -> Happened {
        let mut happened = Happened::default();
        for event in self.0.events().take() {
            match event {
                Event::Opened(call) => happened.0.push(GrpcCall(call)),
                Event::Readable(id) => happened.1.push(id),
                Event::Writable(id) => happened.2.push(id),
                Event::Closed(id) => happened.3.push(id),
            }
        }
        happened
    }

    /// None for a call that has ended.
    fn send_all(
        &self,
        py: Python<'_>,
        messages: Vec<(Bound<'_, GrpcCall>, Vec<PyBackedBytes>)>,
    ) -> PyResult<Vec<Option<bool>>> {
        let messages = messages
            .into_iter()
            .map(|(call, parts)| Ok((Arc::clone(&call.get().0), build_message(parts)?)))
            .collect::<PyResult<Vec<_>>>()?;
        let results = py.detach(|| self.0.send_all(messages));
        Ok(results.into_iter().map(Result::ok).collect())
    }

    fn close(&self, py: Python<'_>, grace_seconds: f64) {
        py.detach(|| self.0.close(seconds(grace_seconds)));
    }
}
