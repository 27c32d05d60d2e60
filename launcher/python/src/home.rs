//! A process's place in a run: its connection and its node's store. Owns holds on objects (given back when dropped), values
//! put for later use, and the memory behind arrays that were read. Hot path: `write`, `Home::lease`, once a large value.

use crate::device::DeviceBuffer;
use crate::layout::Layout;
use crate::python::api;
use bridgehead_guest::link::{Link, lock};
use bridgehead_store_node::{Client, ClientError, DeviceView, Lease, Reservation, new_id};
use bridgehead_wire::{ClientToHead, GuestToAgent, HoldObjects, ObjectRef, PutObject, ReleaseObjects, WorkerToAgent};
use bytes::Bytes;
use pyo3::exceptions::{PyBufferError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

/// A put waits at most so long for what was put before to be published.
const PUBLISHING: Duration = Duration::from_secs(5);

/// What this process is to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A driver, connected to the head.
    Driver,
    /// A worker, connected to its agent.
    Worker,
    /// A process of a program, connected to its agent.
    Guest,
}

/// Where the node's store is, as the welcome said.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    node: u32,
    inline_limit: usize,
}

/// A connection to a run, and to the store of this process's node.
#[derive(Debug)]
pub struct Home {
    /// The socket to the head or the agent.
    pub link: Arc<Link>,
    role: Role,
    place: OnceLock<Place>,
    store: Mutex<Option<Client>>,
    /// Values that were put and may not be published yet: their leases keep them readable until then.
    fresh: Mutex<Vec<Weak<Stored>>>,
}

impl Home {
    /// A place that the welcome has not named yet.
    pub fn new(link: Arc<Link>, role: Role) -> Arc<Self> {
        Arc::new(Self {
            link,
            role,
            place: OnceLock::new(),
            store: Mutex::default(),
            fresh: Mutex::default(),
        })
    }

    /// What the welcome says of the store.
    pub fn settle(&self, path: &str, node: u32, inline_limit: u32) {
        let inline_limit = inline_limit as usize;
        let path = path.into();
        let _ = self.place.set(Place {
            path,
            node,
            inline_limit,
        }); // A second welcome changes nothing.
    }

    /// Values up to this many bytes travel in messages.
    pub fn inline_limit(&self) -> usize {
        self.place.get().map_or(usize::MAX, |place| place.inline_limit)
    }

    /// Whether an object's bytes are on another node.
    pub fn is_away(&self, object: &ObjectRef) -> bool {
        self.place.get().is_some_and(|place| place.node != object.node)
    }

    /// The connection to the store, made when first needed; a forked child makes its own.
    fn store(&self) -> Result<Client, ClientError> {
        let mut store = lock(&self.store);
        if let Some(client) = store.as_ref().filter(|client| client.is_own()) {
            return Ok(client.clone());
        }
        let Some(place) = self.place.get() else {
            return Err(ClientError::Never("this process was told of no store".to_owned()));
        };
        let client = Client::connect(&place.path)?;
        *store = Some(client.clone());
        Ok(client)
    }

    /// Holds an object's bytes where they are.
    ///
    /// # Errors
    /// `ResultLost`: it is not on this node, or its run is over.
    pub fn lease(&self, py: Python<'_>, object: &ObjectRef) -> PyResult<Lease> {
        py.detach(|| self.store()?.lease(object))
            .map_err(|e| raise(py, &e, "lost"))
    }

    /// Tells of an object that this process wrote; it is the run's from then on, with a hold for this process.
    fn tell_put(&self, object: &ObjectRef) {
        let object = Some(object.clone());
        self.tell(PutObject { object });
    }

    fn tell_release(&self, object: &ObjectRef) {
        let objects = vec![object.clone()];
        self.tell(ReleaseObjects { objects });
        if self.role == Role::Guest {
            let _ = self.link.write_some(); // Nobody else sends it soon; a broken connection is noticed by who asks.
        }
    }

    fn tell_hold(&self, object: &ObjectRef) {
        let objects = vec![object.clone()];
        self.tell(HoldObjects { objects });
    }

    /// Says something to who this process is connected to.
    fn tell<M: Into<ClientToHead> + Into<WorkerToAgent> + Into<GuestToAgent>>(&self, message: M) {
        match self.role {
            Role::Driver => drop(self.link.send(|out| Into::<ClientToHead>::into(message).encode(out))),
            Role::Worker => drop(self.link.add(|out| Into::<WorkerToAgent>::into(message).encode(out))),
            Role::Guest => drop(self.link.add(|out| Into::<GuestToAgent>::into(message).encode(out))),
        }
    }

    /// A hold of this process's own on an object that something which it got holds for now.
    pub fn hold(self: &Arc<Self>, object: ObjectRef) -> Held {
        self.tell_hold(&object);
        let home = self.clone();
        Held { object, home }
    }

    /// Makes an object that this process wrote the run's, with a hold for this process.
    pub fn hold_put(self: &Arc<Self>, object: ObjectRef) -> Held {
        self.tell_put(&object);
        let home = self.clone();
        Held { object, home }
    }

    /// Looks at an object in the memory of a GPU of this node; where it is in none, it is copied to `gpu`.
    ///
    /// # Errors
    /// `StoreFull`: that GPU has no room. `ResultLost`: it is not on this node, or its GPU is hidden from this process.
    pub fn device_view(&self, py: Python<'_>, object: &ObjectRef, gpu: u32) -> PyResult<DeviceView> {
        py.detach(|| self.store()?.device_view(object, Some(gpu)))
            .map_err(|e| match e {
                ClientError::Full(_) => raise(py, &e, "too_large"),
                _ => raise(py, &e, "lost"),
            })
    }

    /// Lets values go to disk that have been published since they were put.
    fn settle_fresh(&self) {
        let Some(store) = lock(&self.store).clone() else { return };
        lock(&self.fresh).retain(|weak| {
            let Some(stored) = weak.upgrade() else { return false };
            let published = store.is_published(&stored.held.object);
            if published {
                lock(&stored.fresh).take();
            }
            !published
        });
    }

    /// In a small store what this process has put and holds until it is published may be all the room there is, which a put
    /// would wait for in vain: it waits for the publishing instead.
    fn wait_for_publishing(&self) {
        let Some(store) = lock(&self.store).clone() else { return };
        let until = Instant::now() + PUBLISHING;
        let most = store.capacity() / 4;
        loop {
            let fresh = lock(&self.fresh).iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
            let held: u64 = fresh.iter().map(|stored| stored.held.object.len).sum();
            if held <= most || Instant::now() >= until {
                return;
            }
            drop(fresh);
            std::thread::sleep(Duration::from_micros(200));
            self.settle_fresh();
        }
    }

    /// Writes a value into the store for good: the run's, with a hold for this process.
    ///
    /// # Errors
    /// `StoreFull`: there is no room.
    pub fn put(self: &Arc<Self>, layout: &Layout<'_>) -> PyResult<Arc<Stored>> {
        self.make_room(layout.py());
        let (object, lease) = write(self, layout)?;
        Ok(self.keep(object, lease))
    }

    /// Before a value is written: what was put before and has been let go of makes room for it.
    pub fn make_room(&self, py: Python<'_>) {
        self.settle_fresh();
        py.detach(|| self.wait_for_publishing());
    }

    /// Makes an object that this process wrote and sealed the run's, with a hold and a lease for this process.
    pub fn keep(self: &Arc<Self>, object: ObjectRef, lease: Lease) -> Arc<Stored> {
        let held = self.hold_put(object);
        let stored = Arc::new(Stored {
            held,
            fresh: Mutex::new(Some(lease)),
        });
        lock(&self.fresh).push(Arc::downgrade(&stored));
        stored
    }

    /// Waits until a value that was put is published, and lets go of its bytes then, so that they can leave host memory.
    fn publish(&self, stored: &Stored) {
        let until = Instant::now() + PUBLISHING;
        self.settle_fresh();
        while lock(&stored.fresh).is_some() && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
            self.settle_fresh();
        }
    }
}

/// Writes a value into the store of this node. It is nobody's until a message names it.
///
/// # Errors
/// `StoreFull`: there is no room.
pub fn write(home: &Home, layout: &Layout<'_>) -> PyResult<(ObjectRef, Lease)> {
    let mut reservation = reserve(home, layout)?;
    layout.write(reservation.bytes())?;
    let id = new_id().map_err(PyErr::from)?;
    Ok(layout.py().detach(|| reservation.seal(id))) // Where objects have sums it takes a while.
}

/// A range of the store for a value to come.
///
/// # Errors
/// `StoreFull`: there is no room.
pub fn reserve(home: &Home, layout: &Layout<'_>) -> PyResult<Reservation> {
    let (py, len) = (layout.py(), layout.len());
    let reserved = py.detach(|| home.store()?.reserve(len));
    reserved.map_err(|e| raise(py, &e, "too_large"))
}

/// An error of the store as the exception that `bridgehead._failures` names for it.
fn raise(py: Python<'_>, error: &ClientError, how: &str) -> PyErr {
    let made = api(py).and_then(|api| api.failures.bind(py).call_method1(how, (error.to_string(),)));
    made.map_or_else(|_| PyOSError::new_err(error.to_string()), PyErr::from_value)
}

/// A hold on an object of the run, given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    /// The object.
    pub object: ObjectRef,
    /// Whose hold it is.
    pub home: Arc<Home>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.home.tell_release(&self.object);
    }
}

/// A value that this process put into the store.
#[derive(Debug)]
pub struct Stored {
    /// Dropped before the hold, so that the agent finds no lease when it hears of the release and frees the bytes at once.
    fresh: Mutex<Option<Lease>>,
    held: Held,
}

/// A value that was put: its bytes in this process, or an object of a run.
#[pyclass(frozen, module = "bridgehead._bridgehead")]
#[derive(Debug)]
pub struct Kept {
    value: Value,
    /// Copies in the stores of other runs that the value was given to.
    copies: Mutex<Vec<Arc<Stored>>>,
}

#[derive(Debug)]
enum Value {
    Here(Bytes),
    Stored(Arc<Stored>),
}

impl Kept {
    /// A value whose packed bytes stay in this process.
    pub fn here(bytes: Bytes) -> Self {
        Self {
            value: Value::Here(bytes),
            copies: Mutex::default(),
        }
    }

    /// A value in a run's store.
    pub fn stored(stored: Arc<Stored>) -> Self {
        Self {
            value: Value::Stored(stored),
            copies: Mutex::default(),
        }
    }

    /// An object of a run that something which this process got holds for now; from here on this does too.
    pub fn adopted(home: &Arc<Home>, object: ObjectRef) -> Self {
        let held = home.hold(object);
        Self::stored(Arc::new(Stored {
            held,
            fresh: Mutex::default(),
        }))
    }

    /// The object, where it is one, and the run that it is of.
    pub fn object(&self) -> Option<(&ObjectRef, &Arc<Home>)> {
        match &self.value {
            Value::Stored(stored) => Some((&stored.held.object, &stored.held.home)),
            Value::Here(_) => None,
        }
    }

    fn lease(&self, py: Python<'_>, stored: &Stored) -> PyResult<Lease> {
        if let Some(lease) = &*lock(&stored.fresh) {
            return Ok(lease.clone());
        }
        stored.held.home.lease(py, &stored.held.object)
    }

    /// What a call over `home` names as its input.
    ///
    /// # Errors
    /// `StoreFull`, `ResultLost`: the value had to be copied from one run to another, and could not.
    pub fn input(&self, py: Python<'_>, home: &Arc<Home>) -> PyResult<bridgehead_wire::Value> {
        let bytes = match &self.value {
            Value::Stored(stored) if Arc::ptr_eq(&stored.held.home, home) => {
                return Ok(bridgehead_wire::Value::stored(stored.held.object.clone()));
            }
            Value::Here(bytes) if bytes.len() <= home.inline_limit() => {
                return Ok(bridgehead_wire::Value::inline(bytes.clone()));
            }
            Value::Here(bytes) => bytes.clone(),
            Value::Stored(stored) => Bytes::copy_from_slice(self.lease(py, stored)?.bytes()),
        };
        let known = lock(&self.copies)
            .iter()
            .find(|copy| Arc::ptr_eq(&copy.held.home, home))
            .cloned();
        let copy = match known {
            Some(copy) => copy,
            None => {
                let copy = home.put(&Layout::raw(py, &bytes))?;
                lock(&self.copies).push(copy.clone());
                copy
            }
        };
        Ok(bridgehead_wire::Value::stored(copy.held.object.clone()))
    }
}

#[pymethods]
impl Kept {
    /// The value; arrays in it are read-only views, or `own`: this process's.
    #[pyo3(signature = (own = false))]
    fn load<'py>(&self, py: Python<'py>, own: bool) -> PyResult<Bound<'py, PyAny>> {
        match &self.value {
            Value::Here(bytes) if own => crate::own::unpack(py, bytes),
            Value::Here(bytes) => crate::pack::unpack(py, bytes),
            Value::Stored(stored) => {
                stored.held.home.settle_fresh();
                let lease = self.lease(py, stored)?;
                let unpack = if own {
                    crate::own::unpack_lease
                } else {
                    crate::pack::unpack_lease
                };
                crate::pack::reading(&stored.held.home, || unpack(py, lease))
            }
        }
    }

    /// The packed bytes, where they are on this node; `None` where they have to be fetched.
    fn view<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Value::Stored(stored) = &self.value else {
            return Ok(None);
        };
        stored.held.home.settle_fresh();
        let fresh = lock(&stored.fresh).clone();
        let lease = match fresh {
            Some(lease) => lease,
            None if stored.held.home.is_away(&stored.held.object) => return Ok(None),
            None => self.lease(py, stored)?,
        };
        view_of(py, lease).map(Some)
    }

    /// Whether it is an object that has to be fetched to this node first.
    fn away(&self) -> bool {
        match &self.value {
            Value::Stored(stored) => lock(&stored.fresh).is_none() && stored.held.home.is_away(&stored.held.object),
            Value::Here(_) => false,
        }
    }

    /// The fields of the object, for a process that names it while this one holds it; `None` for a value that is none.
    fn fields(&self) -> Option<crate::pack::Numbers> {
        self.object().map(|(object, _)| crate::pack::numbers(object))
    }

    /// The node that it lies on; `None` for a value that this process keeps.
    fn node(&self) -> Option<u32> {
        self.object().map(|(object, _)| object.node)
    }

    /// The NUMA node of its node in whose memory it was placed on purpose.
    fn numa(&self) -> Option<u32> {
        self.object().and_then(|(object, _)| object.numa.checked_sub(1))
    }

    /// The number of its node's GPU in whose memory it was put or placed; `None` where that is no GPU's.
    fn gpu(&self) -> Option<u32> {
        self.object()?.0.gpu.checked_sub(1)
    }

    /// Waits until the store has it, so that it can be moved.
    fn settle(&self, py: Python<'_>) {
        if let Value::Stored(stored) = &self.value {
            py.detach(|| stored.held.home.publish(stored));
        }
    }

    /// Its bytes in the memory of a GPU of this node, where it is; copied to `gpu` where it is in none.
    fn device(&self, py: Python<'_>, gpu: u32) -> PyResult<DeviceBuffer> {
        let Value::Stored(stored) = &self.value else {
            return Err(PyValueError::new_err("the value is in no store"));
        };
        py.detach(|| stored.held.home.publish(stored));
        let view = stored.held.home.device_view(py, &stored.held.object, gpu)?;
        Ok(DeviceBuffer::new(view))
    }

    /// The packed bytes of a value that this process keeps.
    fn packed<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        match &self.value {
            Value::Here(bytes) => Some(PyBytes::new(py, bytes)),
            Value::Stored(_) => None,
        }
    }

    /// Bytes of the packed value.
    fn nbytes(&self) -> u64 {
        match &self.value {
            Value::Here(bytes) => bytes.len() as u64,
            Value::Stored(stored) => stored.held.object.len,
        }
    }
}

/// Fills `view` with `len` bytes from `start` on, which `owner` keeps alive.
///
/// # Safety
/// `view` is a valid view that Python gave to `__getbuffer__` of `owner`. The bytes stay where they are while `owner` lives, and
/// nobody else writes them, or nobody at all where they are `read_only`.
#[allow(unsafe_code)]
pub unsafe fn fill_view(
    owner: &Bound<'_, PyAny>,
    view: *mut pyo3::ffi::Py_buffer,
    (start, len): (*mut u8, usize),
    read_only: bool,
    flags: std::ffi::c_int,
) -> PyResult<()> {
    let len = isize::try_from(len).map_err(|_| PyBufferError::new_err("an object beyond this machine"))?;
    // SAFETY: by the caller's word.
    let failed =
        unsafe { pyo3::ffi::PyBuffer_FillInfo(view, owner.as_ptr(), start.cast(), len, read_only.into(), flags) };
    if failed == -1 {
        Err(PyErr::fetch(owner.py()))
    } else {
        Ok(())
    }
}

/// The bytes of an object, for views: they stay where they are while anything looks at them.
#[pyclass(frozen, module = "bridgehead._bridgehead")]
pub struct StoreBuffer(pub Lease);

#[pymethods]
impl StoreBuffer {
    #[allow(unsafe_code)]
    // SAFETY of both: Python calls them with a valid view. The bytes neither move nor change while the lease lives, which is
    // as long as this object, which the view keeps alive; they are given out as read-only.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut pyo3::ffi::Py_buffer,
        flags: std::ffi::c_int,
    ) -> PyResult<()> {
        let bytes = slf.get().0.bytes();
        let range = (bytes.as_ptr().cast_mut(), bytes.len());
        // SAFETY: as above.
        unsafe { fill_view(slf.as_any(), view, range, true, flags) }
    }

    #[allow(unsafe_code)]
    unsafe fn __releasebuffer__(&self, _view: *mut pyo3::ffi::Py_buffer) {}
}

/// The bytes of a lease as Python sees them.
pub fn view_of(py: Python<'_>, lease: Lease) -> PyResult<Bound<'_, PyAny>> {
    let buffer = Bound::new(py, StoreBuffer(lease))?;
    Ok(PyMemoryView::from(buffer.as_any())?.into_any())
}

/// The home of a connection; `None` where `owner` is none (a pipeline, for instance).
pub fn home_of(owner: &Bound<'_, PyAny>) -> Option<Arc<Home>> {
    if let Ok(client) = owner.cast::<crate::client::Client>() {
        return Some(client.get().home().clone());
    }
    if let Ok(guest) = owner.cast::<crate::guest::Guest>() {
        return Some(guest.get().home().clone());
    }
    let worker = owner.cast::<crate::worker::Worker>().ok()?;
    Some(worker.get().home().clone())
}
