//! Enrolment packets: parsed and built here, so that ztunnel's process needs no protobuf runtime for them.

use ambit_core::wire::workload::zds;
use ambit_io::wire::{decode, encode};
use pyo3::prelude::*;

use crate::errors::invalid_input;

/// Serve a pod.
#[pyclass(frozen, get_all)]
pub(crate) struct AddWorkload {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
}

/// Go on serving a pod.
#[pyclass(frozen, get_all)]
pub(crate) struct KeepWorkload {
    uid: String,
}

/// Stop serving a pod.
#[pyclass(frozen, get_all)]
pub(crate) struct DelWorkload {
    uid: String,
}

/// All pods have been named.
#[pyclass(frozen)]
pub(crate) struct SnapshotSent;

/// The packet that opens the conversation.
#[pyfunction]
pub(crate) fn zds_hello() -> Vec<u8> {
    encode(&zds::ZdsHello {
        version: zds::Version::V1.into(),
    })
}

/// The answer to a request.
#[pyfunction]
pub(crate) fn zds_acknowledgement(error: String) -> Vec<u8> {
    let payload = zds::workload_response::Payload::Ack(zds::Ack { error });
    encode(&zds::WorkloadResponse { payload: Some(payload) })
}

/// Parse one request.
#[pyfunction]
pub(crate) fn parse_workload_request(py: Python<'_>, packet: &[u8]) -> PyResult<Py<PyAny>> {
    use zds::workload_request::Payload;
    let request: zds::WorkloadRequest =
        decode(packet).map_err(|error| invalid_input(format!("an enrolment packet does not parse: {error}")))?;
    match request.payload {
        Some(Payload::Add(zds::AddWorkload {
            uid,
            workload_info: Some(info),
        })) => {
            let zds::WorkloadInfo {
                name,
                namespace,
                service_account,
            } = info;
            Ok(Py::new(
                py,
                AddWorkload {
                    uid,
                    name,
                    namespace,
                    service_account,
                },
            )?
            .into_any())
        }
        Some(Payload::Add(add)) => Err(invalid_input(format!(
            "add of pod {} does not say which pod it is",
            add.uid
        ))),
        Some(Payload::Keep(keep)) => Ok(Py::new(py, KeepWorkload { uid: keep.uid })?.into_any()),
        Some(Payload::Del(del)) => Ok(Py::new(py, DelWorkload { uid: del.uid })?.into_any()),
        Some(Payload::SnapshotSent(_)) => Ok(Py::new(py, SnapshotSent)?.into_any()),
        None => Err(invalid_input(
            "an enrolment packet asks for something that is not known here".to_owned(),
        )),
    }
}
