//! From the data plane's errors to the exceptions that Python's side defines (`mesh.kit.errors`).

use ambit_io::control::{Code, ControlError};
use pyo3::prelude::*;
use pyo3::types::PyType;

const MODULE: &str = "mesh.kit.errors";

/// Trying again later may help.
pub(crate) fn transient(message: String) -> PyErr {
    raise("TransientError", message)
}

/// Trying again with the same input cannot help.
pub(crate) fn invalid_input(message: String) -> PyErr {
    raise("InvalidInputError", message)
}

fn raise(class: &str, message: String) -> PyErr {
    Python::attach(|py| {
        let found = py
            .import(MODULE)
            .and_then(|module| module.getattr(class))
            .and_then(|class| Ok(class.cast_into::<PyType>()?));
        match found {
            Ok(class) => PyErr::from_type(class, message),
            Err(error) => error,
        }
    })
}

/// Which exception each of the controller's errors is: all may pass, except settings that cannot work.
pub(crate) fn control(error: ControlError) -> PyErr {
    let message = error.to_string();
    match error {
        // What only a summary is answered with.
        ControlError::Refused {
            code: Code::FailedPrecondition,
            ..
        } => raise("UnknownSummaryError", message),
        ControlError::Address { .. } => invalid_input(message),
        ControlError::File { .. }
        | ControlError::Unreachable { .. }
        | ControlError::Refused { .. }
        | ControlError::Ended { .. } => transient(message),
    }
}
