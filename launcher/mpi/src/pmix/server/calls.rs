//! The functions that libpmix calls, on its own thread: each becomes a report to the agent, and what waits for an answer is kept
//! until the agent gives it. Owns these waits and the names of gangs. Nothing here blocks.

use super::infos::proc_of;
use super::library::Library;
use super::sys::{self, Info, ModexCallback, Module, OpCallback, Proc, Status};
use crate::peer::Span;
use crate::pmix::frames::{Aborted, Blob, Gather, Report, Tell, Want};
use crate::world::World;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// There is one server in a process, and its functions get no pointer of ours.
static SHARED: OnceLock<Shared> = OnceLock::new();

struct Shared {
    reports: Sender<Report>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    gangs: HashMap<String, (u64, u32)>,
    waits: HashMap<u64, Waiting>,
    next: u64,
}

/// Somebody in libpmix waits.
struct Waiting {
    gang: u64,
    callback: Callback,
    data: *mut c_void,
}

/// For bytes, or for leave to go on.
enum Callback {
    Bytes(ModexCallback),
    Leave(OpCallback),
}

// SAFETY: the pointer is libpmix's own and only handed back to it, which may be done from any thread.
unsafe impl Send for Waiting {}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, gang: u64, tell: Tell) {
        // The writer ends only with the process.
        let _ = self.reports.send(Report { gang, what: Some(tell) });
    }
}

/// From now on reports go there.
pub fn begin(_library: &Library, reports: Sender<Report>) -> Result<(), String> {
    let shared = Shared {
        reports,
        table: Mutex::default(),
    };
    SHARED
        .set(shared)
        .map_err(|_| "a process has one PMIx server".to_owned())
}

/// The functions, for ever.
pub fn module() -> *mut Module {
    let module = Module {
        client_connected: Some(connected),
        client_finalized: Some(finalized),
        abort: Some(abort),
        fence_nb: Some(fence),
        direct_modex: Some(modex),
        between: [0; 22],
        client_connected2: Some(connected2),
        newer: [0; 32],
    };
    Box::into_raw(Box::new(module))
}

/// A gang has this number and these ranks.
pub fn know(gang: u64, world: &World) {
    if let Some(shared) = SHARED.get() {
        shared.table().gangs.insert(world.name.clone(), (gang, world.size()));
    }
}

/// A gang is over: what waits in it is never answered, because libpmix drops it with the gang.
pub fn forget(gang: u64) -> Option<String> {
    let mut table = SHARED.get()?.table();
    table.waits.retain(|_, waiting| waiting.gang != gang);
    let name = table
        .gangs
        .iter()
        .find(|(_, (number, _))| *number == gang)
        .map(|(name, _)| name.clone())?;
    table.gangs.remove(&name);
    Some(name)
}

/// The agent's answer to a report.
pub fn give(gang: u64, blob: Blob) {
    let Some(shared) = SHARED.get() else { return };
    let waiting = {
        let mut table = shared.table();
        let ours = table.waits.get(&blob.id).is_some_and(|waiting| waiting.gang == gang);
        if ours { table.waits.remove(&blob.id) } else { None }
    };
    let Some(Waiting { callback, data, .. }) = waiting else {
        return;
    };
    let callback = match callback {
        Callback::Bytes(Some(callback)) => callback,
        // SAFETY: the callback and its data are libpmix's, handed back once.
        Callback::Leave(Some(callback)) => return unsafe { callback(blob.status, data) },
        Callback::Bytes(None) | Callback::Leave(None) => return,
    };
    let bytes = Box::new(blob.bytes);
    let (start, length) = (bytes.as_ptr().cast(), bytes.len());
    let held = Box::into_raw(bytes).cast();
    // SAFETY: the callback and its data are libpmix's, handed back once; the bytes live until it calls `release`.
    unsafe { callback(blob.status, start, length, data, Some(release), held) };
}

unsafe extern "C" fn release(held: *mut c_void) {
    // SAFETY: it is the box that `give` made, released once.
    drop(unsafe { Box::from_raw(held.cast::<bytes::Bytes>()) });
}

/// Another node wants what a rank here has published.
pub fn fetch(library: &Library, gang: u64, want: &Want) {
    let Some(shared) = SHARED.get() else { return };
    let name = shared
        .table()
        .gangs
        .iter()
        .find(|(_, (number, _))| *number == gang)
        .map(|(name, _)| name.clone());
    let Some(name) = name else { return };
    let process = proc_of(&name, want.rank);
    let asked = Box::into_raw(Box::new((gang, want.id)));
    // SAFETY: libpmix copies the process; the box is taken back by `fetched`, or below when that is never called.
    let status = unsafe { (library.dmodex_request)(&raw const process, Some(fetched), asked.cast()) };
    if status != sys::SUCCESS {
        // SAFETY: no answer follows, so nobody else has the box.
        drop(unsafe { Box::from_raw(asked) });
        shared.report(
            gang,
            Tell::Fetched(Blob {
                id: want.id,
                status,
                bytes: bytes::Bytes::new(),
            }),
        );
    }
}

unsafe extern "C" fn fetched(status: Status, data: *mut c_char, size: usize, asked: *mut c_void) {
    // SAFETY: it is the box that `fetch` made; libpmix answers once.
    let (gang, id) = *unsafe { Box::from_raw(asked.cast::<(u64, u64)>()) };
    // SAFETY: libpmix gives this many bytes, and frees them itself.
    let bytes = unsafe { copied(data, size) };
    if let Some(shared) = SHARED.get() {
        shared.report(gang, Tell::Fetched(Blob { id, status, bytes }));
    }
}

unsafe extern "C" fn connected(process: *const Proc, _: *mut c_void, _: OpCallback, _: *mut c_void) -> Status {
    // SAFETY: libpmix gives a process that lives during the call.
    told(unsafe { &*process }, Tell::Joined)
}

unsafe extern "C" fn connected2(
    process: *const Proc,
    _: *mut c_void,
    _: *mut Info,
    _: usize,
    _: OpCallback,
    _: *mut c_void,
) -> Status {
    // SAFETY: as above.
    told(unsafe { &*process }, Tell::Joined)
}

unsafe extern "C" fn finalized(
    process: *const Proc,
    _: *mut c_void,
    callback: OpCallback,
    waits: *mut c_void,
) -> Status {
    // SAFETY: as above.
    let process = unsafe { &*process };
    told_and_waits(process, callback, waits, |rank, id| Tell::Left(Want { id, rank }))
}

unsafe extern "C" fn abort(
    process: *const Proc,
    _: *mut c_void,
    code: c_int,
    message: *const c_char,
    _: *mut Proc,
    _: usize,
    callback: OpCallback,
    waits: *mut c_void,
) -> Status {
    // SAFETY: the message is null or a string that lives during the call.
    let message = (!message.is_null()).then(|| unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned());
    let message = message.unwrap_or_default();
    // SAFETY: as above.
    let process = unsafe { &*process };
    told_and_waits(process, callback, waits, |rank, id| {
        Tell::Aborted(Aborted {
            rank,
            code,
            message,
            id,
        })
    })
}

unsafe extern "C" fn fence(
    processes: *const Proc,
    count: usize,
    _: *const Info,
    _: usize,
    data: *mut c_char,
    size: usize,
    callback: ModexCallback,
    waits: *mut c_void,
) -> Status {
    let Some(shared) = SHARED.get() else {
        return sys::ERR_NOT_SUPPORTED;
    };
    // SAFETY: libpmix gives this many processes, which live during the call.
    let processes = unsafe { std::slice::from_raw_parts(processes, if processes.is_null() { 0 } else { count }) };
    let mut table = shared.table();
    let Some((gang, spans)) = spans(&table, processes) else {
        return sys::ERR_NOT_SUPPORTED;
    };
    let id = wait_in(
        &mut table,
        Waiting {
            gang,
            callback: Callback::Bytes(callback),
            data: waits,
        },
    );
    drop(table);
    // SAFETY: so many bytes are there.
    let bytes = unsafe { copied(data, size) };
    // SAFETY: with success the bytes are the host's, and they came from malloc.
    unsafe { libc::free(data.cast()) };
    shared.report(gang, Tell::Gather(Gather { id, spans, bytes }));
    sys::SUCCESS
}

unsafe extern "C" fn modex(
    process: *const Proc,
    _: *const Info,
    _: usize,
    callback: ModexCallback,
    waits: *mut c_void,
) -> Status {
    let Some(shared) = SHARED.get() else {
        return sys::ERR_NOT_SUPPORTED;
    };
    // SAFETY: libpmix gives a process that lives during the call.
    let process = unsafe { &*process };
    let mut table = shared.table();
    let gang = table.gangs.get(&name_of(process)).copied();
    let Some((gang, _)) = gang.filter(|(_, size)| process.rank < *size) else {
        return sys::ERR_NOT_FOUND;
    };
    let id = wait_in(
        &mut table,
        Waiting {
            gang,
            callback: Callback::Bytes(callback),
            data: waits,
        },
    );
    drop(table);
    shared.report(gang, Tell::Want(Want { id, rank: process.rank }));
    sys::SUCCESS
}

fn told(process: &Proc, tell: impl FnOnce(u32) -> Tell) -> Status {
    if let Some(shared) = SHARED.get() {
        let gang = shared.table().gangs.get(&name_of(process)).copied();
        if let Some((gang, _)) = gang {
            shared.report(gang, tell(process.rank));
        }
    }
    sys::OPERATION_SUCCEEDED
}

/// The rank goes on when the agent has taken note.
fn told_and_waits(
    process: &Proc,
    callback: OpCallback,
    data: *mut c_void,
    tell: impl FnOnce(u32, u64) -> Tell,
) -> Status {
    let Some(shared) = SHARED.get() else {
        return sys::OPERATION_SUCCEEDED;
    };
    let mut table = shared.table();
    let Some((gang, _)) = table.gangs.get(&name_of(process)).copied() else {
        return sys::OPERATION_SUCCEEDED;
    };
    let id = wait_in(
        &mut table,
        Waiting {
            gang,
            callback: Callback::Leave(callback),
            data,
        },
    );
    drop(table);
    shared.report(gang, tell(process.rank, id));
    sys::SUCCESS
}

fn wait_in(table: &mut Table, waiting: Waiting) -> u64 {
    table.next += 1;
    table.waits.insert(table.next, waiting);
    table.next
}

fn name_of(process: &Proc) -> String {
    let bytes = process
        .nspace
        .iter()
        .map(|byte| *byte as u8)
        .take_while(|byte| *byte != 0);
    String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
}

/// The gang of these processes and which of its ranks they are. None: they are of several gangs or of none.
fn spans(table: &Table, processes: &[Proc]) -> Option<(u64, Vec<Span>)> {
    let name = name_of(processes.first()?);
    let (gang, size) = *table.gangs.get(&name)?;
    if processes.iter().any(|process| name_of(process) != name) {
        return None;
    }
    if processes.iter().any(|process| process.rank == sys::RANK_WILDCARD) {
        return Some((gang, vec![Span { first: 0, count: size }]));
    }
    let mut ranks: Vec<u32> = processes.iter().map(|process| process.rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let mut spans: Vec<Span> = Vec::new();
    for rank in ranks {
        match spans.last_mut() {
            Some(span) if span.first + span.count == rank => span.count += 1,
            _ => spans.push(Span { first: rank, count: 1 }),
        }
    }
    spans
        .last()
        .is_some_and(|span| span.first < size)
        .then_some((gang, spans))
}

/// # Safety
/// So many bytes are there, or it is null.
unsafe fn copied(data: *const c_char, size: usize) -> bytes::Bytes {
    if data.is_null() || size == 0 {
        return bytes::Bytes::new();
    }
    // SAFETY: the caller's.
    bytes::Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) })
}
