//! Requests to the run's table of names, from a driver or a worker alike. Owns what `bridgehead/_named.py` calls an
//! operation; who answers is the head.

use crate::home::{Held, Home};
use crate::pack::pack_apart;
use bridgehead_wire::{NameOp, NameRequest};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::Arc;

/// A request as Python words it.
pub struct Asked<'a> {
    /// The operation's name.
    pub op: &'a str,
    pub name: String,
    pub version: Option<u64>,
    pub keep: u32,
    pub wait: bool,
    pub about: u64,
}

impl Asked<'_> {
    /// The message under `token`, with `value` written to the store if it is large. Until what comes with it is dropped,
    /// which may be right after the message was sent, this process holds the value.
    ///
    /// # Errors
    /// There is no such operation, or the value cannot be packed.
    pub fn request(
        self,
        py: Python<'_>,
        token: u64,
        value: Option<&Bound<'_, PyAny>>,
        home: &Arc<Home>,
    ) -> PyResult<(NameRequest, Option<Held>)> {
        let op = operation(self.op).ok_or_else(|| PyValueError::new_err(format!("{:?} is no operation", self.op)))?;
        let none = py.None().into_bound(py);
        let packed = match (op, value) {
            (NameOp::Put, value) => Some(pack_apart(value.unwrap_or(&none), home)?),
            _ => None,
        };
        let request = NameRequest {
            token,
            op: op.into(),
            name: self.name,
            version: self.version,
            value: packed.as_ref().map(crate::pack::Packed::value),
            keep: self.keep,
            wait: self.wait,
            about: self.about,
            from_worker: None,
            task: None,
        };
        let passed = packed.and_then(|packed| packed.pass(home));
        Ok((request, passed))
    }
}

/// Whether the head says something to it.
pub fn is_answered(request: &NameRequest) -> bool {
    !matches!(request.op(), NameOp::Unwatch | NameOp::Forget | NameOp::Gone)
}

fn operation(name: &str) -> Option<NameOp> {
    Some(match name {
        "put" => NameOp::Put,
        "get" => NameOp::Get,
        "wait" => NameOp::Wait,
        "next" => NameOp::Next,
        "unwatch" => NameOp::Unwatch,
        "versions" => NameOp::Versions,
        "list" => NameOp::List,
        "delete" => NameOp::Delete,
        "close" => NameOp::Close,
        "stream" => NameOp::Stream,
        "forget" => NameOp::Forget,
        _ => return None,
    })
}
