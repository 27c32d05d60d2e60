//! What a driver, a worker and a process of a program ask alike: names, values that lie elsewhere, places. Owns the questions and the
//! futures of their answers; how each of the three speaks is its own. Hot path: `name`, `bring`, once a named or a distant value.

use crate::futures::{Raw, Table, Wanted, new_future};
use crate::home::{Home, Kept};
use crate::named::{Asked, is_answered};
use bridgehead_wire::{Fetch, NameRequest, PlaceObjects};
use pyo3::PyClass;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use std::sync::Arc;

/// A connection to the run.
pub trait Connection: PyClass<Frozen = True> + Sync {
    /// A number of the next question.
    fn token(&self) -> u64;
    /// This process's place in the run.
    fn home(&self) -> &Arc<Home>;
    /// What is waited for.
    fn futures(&self) -> &Table;
    /// The task that runs.
    fn task(&self) -> Option<u64> {
        None
    }
}

/// A connection over which such messages go.
pub trait Says<M> {
    /// Sends a message.
    ///
    /// # Errors
    /// The other side is gone.
    fn say(&self, py: Python<'_>, message: M) -> PyResult<()>;
}

fn ask<'py, C: Connection + Says<M>, M>(
    slf: &Bound<'py, C>,
    token: u64,
    wanted: Option<Wanted>,
    message: M,
) -> PyResult<Bound<'py, PyAny>> {
    let this = slf.get();
    let future = new_future(slf.as_any(), token)?;
    if let Some(wanted) = wanted {
        this.futures().insert(wanted, future.clone().unbind());
    }
    this.say(slf.py(), message)?;
    Ok(future)
}

/// Brings the value of an answer, which lies on another node, to this one: a future of it.
pub fn fetch<'py, C: Connection + Says<Fetch>>(slf: &Bound<'py, C>, raw: &Raw) -> PyResult<Bound<'py, PyAny>> {
    let token = slf.get().token();
    let fetch = Fetch {
        token,
        object: raw.object(),
        ..Fetch::default()
    };
    ask(slf, token, Some(Wanted::Fetch(token)), fetch)
}

/// Brings an object to this node: a future of its value, or of the bytes themselves where a range is asked for.
pub fn bring<'py, C: Connection + Says<Fetch>>(
    slf: &Bound<'py, C>,
    kept: &Kept,
    offset: u64,
    len: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let token = slf.get().token();
    let fetch = Fetch {
        token,
        object: kept.object().map(|(object, _)| object.clone()),
        offset,
        len,
        ..Fetch::default()
    };
    ask(slf, token, Some(Wanted::brought(token, len)), fetch)
}

/// Moves or copies objects as `place` says, but for its objects and its token: a future of references to them.
pub fn place<'py, C: Connection + Says<PlaceObjects>>(
    slf: &Bound<'py, C>,
    kept: &[Bound<'py, Kept>],
    place: PlaceObjects,
) -> PyResult<Bound<'py, PyAny>> {
    let token = slf.get().token();
    let objects = kept.iter().filter_map(|kept| Some(kept.get().object()?.0.clone()));
    let place = PlaceObjects {
        token,
        objects: objects.collect(),
        ..place
    };
    ask(slf, token, Some(Wanted::Placed(token)), place)
}

/// Asks the run's table of names: a future of its answer, where there is one.
pub fn name<'py, C: Connection + Says<NameRequest>>(
    slf: &Bound<'py, C>,
    asked: Asked<'_>,
    value: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let this = slf.get();
    let token = this.token();
    let (mut request, _passed) = asked.request(slf.py(), token, value, this.home())?;
    request.task = this.task();
    let wanted = is_answered(&request).then_some(Wanted::Name(token));
    ask(slf, token, wanted, request)
}
