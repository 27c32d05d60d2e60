//! Between messages and the tuples that cross into Python. The tuples are private to the package; their shapes stand in
//! `_bridgehead.pyi`. Hot path: `outcome`, once a task.

use bridgehead_wire::{Failure, ObjectRef, Outcome, Pair, Value, input, outcome, value};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

/// Kinds of values and outcomes, the first element of each tuple.
pub(crate) const INLINE: u8 = 0;
const STORED: u8 = 1;
const PROGRAM: u8 = 2;
const FILE: u8 = 3;
const FAILURE: u8 = 4;
const CANCELLED: u8 = 5;

fn pairs<'py>(py: Python<'py>, list: &[Pair]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for pair in list {
        dict.set_item(&pair.key, &pair.value)?;
    }
    Ok(dict)
}

/// `(kind, payload)` of a value.
pub(crate) fn value<'py>(py: Python<'py>, value: &Value) -> PyResult<(u8, Bound<'py, PyAny>)> {
    Ok(match &value.kind {
        Some(value::Kind::Inline(bytes)) => (INLINE, PyBytes::new(py, bytes).into_any()),
        Some(value::Kind::Stored(o)) => (
            STORED,
            (o.id_hi, o.id_lo, o.len, o.node, o.arena, o.offset).into_bound_py_any(py)?,
        ),
        Some(value::Kind::Program(r)) => {
            let outputs = pairs(py, &r.outputs)?;
            let tuple = (
                r.exit_code,
                PyBytes::new(py, &r.stdout),
                PyBytes::new(py, &r.stderr),
                outputs,
                r.dropped,
            );
            (PROGRAM, tuple.into_bound_py_any(py)?)
        }
        Some(value::Kind::File(f)) => (FILE, (f.path.as_str(), f.len).into_bound_py_any(py)?),
        None => (CANCELLED, "the message held no value".into_bound_py_any(py)?),
    })
}

fn failure<'py>(py: Python<'py>, f: &Failure) -> PyResult<Bound<'py, PyAny>> {
    let pickled = PyBytes::new(py, &f.pickled);
    (
        f.cause,
        &f.kind,
        &f.message,
        &f.traceback,
        pickled,
        f.exit_code,
        f.signal,
        f.root,
    )
        .into_bound_py_any(py)
}

/// `(kind, payload)` of an outcome.
pub(crate) fn outcome<'py>(py: Python<'py>, o: Option<&Outcome>) -> PyResult<(u8, Bound<'py, PyAny>)> {
    match o.and_then(|o| o.kind.as_ref()) {
        Some(outcome::Kind::Value(v)) => value(py, v),
        Some(outcome::Kind::Failure(f)) => Ok((FAILURE, failure(py, f)?)),
        Some(outcome::Kind::Cancelled(reason)) => Ok((CANCELLED, reason.as_str().into_bound_py_any(py)?)),
        None => Ok((CANCELLED, "the message held no outcome".into_bound_py_any(py)?)),
    }
}

/// An object from its tuple.
pub(crate) fn to_object((id_hi, id_lo, len, node, arena, offset): (u64, u64, u64, u32, u64, u64)) -> ObjectRef {
    ObjectRef {
        id_hi,
        id_lo,
        len,
        node,
        arena,
        offset,
    }
}

/// A value from `(kind, payload)`; only inline and stored ones are made by Python.
pub(crate) fn to_value(kind: u8, payload: &Bound<'_, PyAny>) -> PyResult<Value> {
    if kind == STORED {
        return Ok(Value::stored(to_object(payload.extract()?)));
    }
    if kind == FILE {
        let (path, len) = payload.extract()?;
        return Ok(Value::file(bridgehead_wire::FileRef { path, len }));
    }
    let bytes: &[u8] = payload.cast::<PyBytes>()?.as_bytes();
    Ok(Value::inline(bytes::Bytes::copy_from_slice(bytes)))
}

/// Inputs from a list of token numbers or `(kind, payload)` tuples.
pub(crate) fn to_inputs(list: &Bound<'_, PyAny>) -> PyResult<Vec<bridgehead_wire::Input>> {
    let mut inputs = Vec::new();
    for item in list.try_iter()? {
        let item = item?;
        let kind = if let Ok(tuple) = item.cast::<PyTuple>() {
            let kind: u8 = tuple.get_item(0)?.extract()?;
            input::Kind::Value(to_value(kind, &tuple.get_item(1)?)?)
        } else {
            input::Kind::Task(item.extract()?)
        };
        inputs.push(bridgehead_wire::Input { kind: Some(kind) });
    }
    Ok(inputs)
}

/// A failure from the tuple that `failure` makes.
pub(crate) fn to_failure(payload: &Bound<'_, PyAny>) -> PyResult<Failure> {
    let (cause, kind, message, traceback, pickled): (i32, String, String, String, Vec<u8>) = payload.extract()?;
    Ok(Failure {
        cause,
        kind,
        message,
        traceback,
        pickled: pickled.into(),
        ..Failure::default()
    })
}

/// Options of a task, as Python keeps them: a JSON object text in the form of a pipeline's task.
pub(crate) fn apply_options(submit: &mut bridgehead_wire::TaskSubmit, json: &str) -> PyResult<()> {
    let wrong = |e: &dyn std::fmt::Display| pyo3::exceptions::PyValueError::new_err(format!("task options: {e}"));
    let options: serde_json::Value = serde_json::from_str(json).map_err(|e| wrong(&e))?;
    if let Some(resources) = options.get("resources") {
        let resources: bridgehead_spec::Resources = serde_json::from_value(resources.clone()).map_err(|e| wrong(&e))?;
        submit.resources = Some((&resources).into());
    }
    if let Some(retries) = options.get("retries") {
        let r: bridgehead_spec::Retries = serde_json::from_value(retries.clone()).map_err(|e| wrong(&e))?;
        submit.retry = Some(bridgehead_wire::Retry {
            lost_node: r.lost_node,
            preempted: r.preempted,
            walltime: r.walltime,
            oom: r.oom,
            user: r.user,
        });
    }
    submit.timeout_ms = options
        .get("timeout_ms")
        .and_then(serde_json::Value::as_u64)
        .unwrap_or(0);
    let priority = options.get("priority").and_then(serde_json::Value::as_i64).unwrap_or(0);
    submit.priority = i32::try_from(priority).map_err(|e| wrong(&e))?;
    submit.name = options
        .get("name")
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if let Some(program) = options.get("program") {
        let p: bridgehead_spec::ProgramSpec = serde_json::from_value(program.clone()).map_err(|e| wrong(&e))?;
        let pairs = |map: std::collections::BTreeMap<String, String>| {
            map.into_iter().map(|(key, value)| Pair { key, value }).collect()
        };
        submit.program = Some(bridgehead_wire::ProgramCall {
            argv: p.argv,
            env: pairs(p.env),
            cwd: p.cwd.unwrap_or_default(),
            outputs: pairs(p.outputs),
        });
    }
    Ok(())
}
