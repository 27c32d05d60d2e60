//! The worker and its endpoints, as safe as they can be: what happens in UCX's callbacks becomes an event that the caller takes after
//! progress was made. Owns every call of UCX that moves bytes, and the lifetimes of what those calls borrow.
#![allow(unsafe_code)] // Calls of a C library.

use crate::context::{Context, check, text_of};
use crate::regions::Region;
use crate::staging::Staging;
use bridgehead_ucx_sys as sys;
use bytes::Bytes;
use std::ffi::c_void;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The one kind of active message.
const AM: u32 = 7;

/// What happened during progress.
pub(crate) enum Event {
    /// A message came.
    Arrived { header: Vec<u8>, payload: Bytes },
    /// What was started under this token is over.
    Completed { token: u64, status: sys::Status },
    /// An endpoint has failed and must be closed.
    Failed { endpoint: u64, status: sys::Status },
}

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Started {
    /// Complete; no event follows.
    Done,
    /// `Event::Completed` follows.
    Pending,
    /// Refused; no event follows.
    Failed(sys::Status),
}

/// Where callbacks leave their events.
struct Inbox {
    ucp: &'static sys::Ucp,
    events: Mutex<Vec<Event>>,
    /// Longest message; longer ones are none of ours.
    limit: usize,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a callback speaks of.
struct Of {
    inbox: *const Inbox,
    number: u64,
}

pub(crate) struct Worker {
    pub context: Arc<Context>,
    raw: *mut sys::Worker,
    /// What failures of endpoints are reported to. Kept as long as the worker: a failure may be reported after a forced close.
    #[allow(clippy::vec_box)] // UCX holds their addresses.
    handlers: Vec<Box<Of>>,
    inbox: Box<Inbox>,
    efd: RawFd,
}

// SAFETY: the worker is of mode "serialized": any thread may use it, one at a time, which the `&mut` of each call ensures.
unsafe impl Send for Worker {}

impl Started {
    /// The status of a call that was not left pending.
    pub fn status(self) -> sys::Status {
        match self {
            Self::Failed(status) => status,
            Self::Done | Self::Pending => sys::OK,
        }
    }
}

/// A way to a peer. Has to be closed by its worker.
pub(crate) struct Endpoint {
    raw: *mut sys::Endpoint,
    number: u64,
}

// SAFETY: only used together with its worker.
unsafe impl Send for Endpoint {}

impl Endpoint {
    /// Its number in `Event::Failed`.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// A peer's memory, as far as an endpoint goes. Has to be destroyed by its worker.
pub(crate) struct Rkey(*mut sys::RemoteKey);

// SAFETY: only used together with its worker.
unsafe impl Send for Rkey {}

/// Bytes of a message that UCX borrows until it is sent.
pub(crate) struct Outgoing {
    pub header: Box<[u8]>,
    pub payload: Bytes,
}

/// What a get or a put moves.
pub(crate) struct Transfer<'a> {
    pub endpoint: &'a Endpoint,
    pub rkey: &'a Rkey,
    /// Address in the peer's memory.
    pub remote: u64,
    pub local: &'a Region,
    pub offset: u64,
    pub len: usize,
}

impl Transfer<'_> {
    fn near(&self) -> *mut c_void {
        self.local.at(self.offset, self.len).cast()
    }
}

impl Worker {
    pub fn new(context: Arc<Context>, limit: usize) -> Result<Self, String> {
        let ucp = context.ucp;
        // SAFETY: all zero is a valid value.
        let mut params: sys::WorkerParams = unsafe { std::mem::zeroed() };
        (params.field_mask, params.thread_mode) = (sys::WORKER_PARAM_FIELD_THREAD_MODE, sys::THREAD_MODE_SERIALIZED);
        let mut raw = null_mut();
        // SAFETY: the arguments live for the call.
        let status = unsafe { (ucp.worker_create)(context.raw, &raw const params, &raw mut raw) };
        check(ucp, status, "UCX's worker")?;
        let inbox = Box::new(Inbox {
            ucp,
            events: Mutex::default(),
            limit,
        });
        let mut worker = Self {
            context,
            raw,
            handlers: Vec::new(),
            inbox,
            efd: -1,
        };
        // SAFETY: UCX writes one number, and owns the descriptor as long as the worker lives.
        let status = unsafe { (ucp.worker_get_efd)(raw, &raw mut worker.efd) };
        check(ucp, status, "UCX's event descriptor")?;
        let handler = sys::AmHandlerParam {
            field_mask: sys::AM_HANDLER_PARAM_FIELDS,
            id: AM,
            flags: sys::AM_FLAG_WHOLE_MSG,
            cb: Some(arrived),
            arg: (&raw const *worker.inbox).cast_mut().cast(),
        };
        // SAFETY: the inbox has a fixed place and outlives the worker.
        let status = unsafe { (ucp.worker_set_am_recv_handler)(raw, &raw const handler) };
        check(ucp, status, "UCX's messages")?;
        worker.is_serialized()?;
        Ok(worker)
    }

    fn is_serialized(&mut self) -> Result<(), String> {
        let attr = self.query(sys::WORKER_ATTR_FIELD_THREAD_MODE)?;
        if attr.thread_mode < sys::THREAD_MODE_SERIALIZED {
            return Err("this UCX was built for one thread only: use one built with threads".to_owned());
        }
        Ok(())
    }

    fn query(&mut self, field: u64) -> Result<sys::WorkerAttr, String> {
        // SAFETY: all zero is a valid value, and UCX writes the fields that are asked for.
        unsafe {
            let mut attr: sys::WorkerAttr = std::mem::zeroed();
            attr.field_mask = field;
            check(
                self.ucp(),
                (self.ucp().worker_query)(self.raw, &raw mut attr),
                "asking UCX's worker",
            )?;
            Ok(attr)
        }
    }

    fn ucp(&self) -> &'static sys::Ucp {
        self.context.ucp
    }

    /// Where peers find it.
    pub fn address(&mut self) -> Result<Bytes, String> {
        let attr = self.query(sys::WORKER_ATTR_FIELD_ADDRESS)?;
        // SAFETY: the address has that length, and is copied before it is given back.
        unsafe {
            let bytes = Bytes::copy_from_slice(std::slice::from_raw_parts(attr.address.cast(), attr.address_length));
            (self.ucp().worker_release_address)(self.raw, attr.address);
            Ok(bytes)
        }
    }

    /// What becomes readable when there is something to do, after `arm`.
    pub fn descriptor(&self) -> RawFd {
        self.efd
    }

    /// Makes progress, and hands over what happened; whether anything did.
    pub fn progress(&mut self, events: &mut Vec<Event>) -> bool {
        // SAFETY: one thread at a time, by `&mut`; callbacks only touch the inbox.
        let moved = unsafe { (self.ucp().worker_progress)(self.raw) };
        events.append(&mut self.inbox.lock());
        moved > 0 || !events.is_empty()
    }

    /// Prepares for sleep; false if there is something to do first.
    pub fn arm(&mut self) -> bool {
        // SAFETY: as in `progress`.
        let status = unsafe { (self.ucp().worker_arm)(self.raw) };
        status == sys::OK && self.inbox.lock().is_empty()
    }

    /// A way to the worker of that address, whose failures are reported under `number`.
    pub fn connect(&mut self, address: &[u8], number: u64) -> Result<Endpoint, String> {
        let of = Box::new(Of {
            inbox: &raw const *self.inbox,
            number,
        });
        // SAFETY: all zero is a valid value.
        let mut params: sys::EndpointParams = unsafe { std::mem::zeroed() };
        params.field_mask = sys::EP_PARAM_FIELD_REMOTE_ADDRESS
            | sys::EP_PARAM_FIELD_ERR_HANDLING_MODE
            | sys::EP_PARAM_FIELD_ERR_HANDLER;
        params.address = address.as_ptr().cast();
        params.err_mode = sys::ERR_HANDLING_MODE_PEER;
        params.err_handler = sys::ErrorHandler {
            cb: Some(failed),
            arg: (&raw const *of).cast_mut().cast(),
        };
        let mut raw = null_mut();
        // SAFETY: the address lives for the call; `of` has a fixed place and lives as long as the worker.
        let status = unsafe { (self.ucp().ep_create)(self.raw, &raw const params, &raw mut raw) };
        check(self.ucp(), status, "UCX finds no way to the peer")?;
        self.handlers.push(of);
        Ok(Endpoint { raw, number })
    }

    /// Closes it: at once, or after all that was sent has left. Until it is over the endpoint must be kept.
    pub fn close(&mut self, endpoint: &Endpoint, force: bool, token: u64) -> Started {
        self.start(token, |param, ucp| {
            param.op_attr_mask |= sys::OP_ATTR_FIELD_FLAGS;
            param.flags = if force { sys::EP_CLOSE_FLAG_FORCE } else { 0 };
            // SAFETY: the endpoint is open, and is used no more after this.
            unsafe { (ucp.ep_close_nbx)(endpoint.raw, &raw const *param) }
        })
    }

    /// Completes when all that was written before is in the peer's memory.
    pub fn flush(&mut self, endpoint: &Endpoint, token: u64) -> Started {
        self.start(token, |param, ucp| {
            // SAFETY: the endpoint is open.
            unsafe { (ucp.ep_flush_nbx)(endpoint.raw, &raw const *param) }
        })
    }

    /// Sends a message. The caller keeps `message` until it is over.
    pub fn send(&mut self, endpoint: &Endpoint, message: &Outgoing, token: u64) -> Started {
        self.start(token, |param, ucp| {
            param.op_attr_mask |= sys::OP_ATTR_FIELD_FLAGS;
            param.flags = sys::AM_SEND_FLAG_EAGER;
            let (header, payload) = (&message.header, &message.payload);
            // SAFETY: both buffers have fixed places and are kept until the call is over.
            unsafe {
                let (at, len) = (header.as_ptr().cast(), header.len());
                (ucp.am_send_nbx)(
                    endpoint.raw,
                    AM,
                    at,
                    len,
                    payload.as_ptr().cast(),
                    payload.len(),
                    &raw const *param,
                )
            }
        })
    }

    /// Reads from the peer's memory. The caller keeps the region until it is over, and has checked the range.
    /// If there is a staging, which the caller keeps in the same way, the bytes go there.
    pub fn get(&mut self, transfer: &Transfer<'_>, staging: Option<&Staging>, token: u64) -> Started {
        self.start(token, |param, ucp| {
            let near = staging.map_or(transfer.near(), |staging| staging.at(transfer.len).cast());
            if staging.is_none() {
                transfer.local.hand_over(param);
            }
            let (ep, rkey) = (transfer.endpoint.raw, transfer.rkey.0);
            // SAFETY: the range lies in registered memory or a staging that is kept, and nobody holds a reference into it.
            unsafe { (ucp.get_nbx)(ep, near, transfer.len, transfer.remote, rkey, &raw const *param) }
        })
    }

    /// Writes to the peer's memory; over when the source may be used again, which says nothing of the peer.
    pub fn put(&mut self, transfer: &Transfer<'_>, token: u64) -> Started {
        self.start(token, |param, ucp| {
            transfer.local.hand_over(param);
            let (near, ep, rkey) = (transfer.near(), transfer.endpoint.raw, transfer.rkey.0);
            // SAFETY: as in `get`.
            unsafe { (ucp.put_nbx)(ep, near, transfer.len, transfer.remote, rkey, &raw const *param) }
        })
    }

    /// Makes a peer's memory usable over an endpoint. The bytes come from a peer that has proved itself.
    pub fn unpack(&mut self, endpoint: &Endpoint, packed: &[u8]) -> Result<Rkey, String> {
        let mut raw = null_mut();
        // SAFETY: UCX reads as many bytes as the key says of itself; `peer::Opened` has checked that its maker is authenticated.
        let status = unsafe { (self.ucp().ep_rkey_unpack)(endpoint.raw, packed.as_ptr().cast(), &raw mut raw) };
        check(self.ucp(), status, "UCX cannot use the key of the peer's memory")?;
        Ok(Rkey(raw))
    }

    /// The inverse; nothing uses it any more.
    #[allow(clippy::needless_pass_by_value)] // It is gone after this.
    pub fn destroy(&mut self, rkey: Rkey) {
        // SAFETY: it was unpacked by this worker, and no operation uses it.
        unsafe { (self.ucp().rkey_destroy)(rkey.0) };
    }

    /// Whether UCX keeps what it was given for an endpoint until the peer's process goes on, even if the endpoint is closed by force:
    /// it does so over shared memory, seen in 1.13, not seen in 1.22.
    pub fn keeps_what_it_has(&mut self, endpoint: &Endpoint) -> bool {
        let shared = ["posix/", "sysv/"];
        self.ucp().version() < (1, 22, 0) && {
            let lanes = self.describe(endpoint);
            shared.iter().any(|name| lanes.contains(name))
        }
    }

    /// What UCX says of the lanes to a peer.
    pub fn describe(&mut self, endpoint: &Endpoint) -> String {
        // SAFETY: the endpoint is open, and the stream lives for the call.
        text_of(|file| unsafe { (self.ucp().ep_print_info)(endpoint.raw, file) })
    }

    fn start(&mut self, token: u64, call: impl FnOnce(&mut sys::RequestParam, &sys::Ucp) -> sys::StatusPtr) -> Started {
        let of = Box::into_raw(Box::new(Of {
            inbox: &raw const *self.inbox,
            number: token,
        }));
        // SAFETY: all zero is a valid value.
        let mut param: sys::RequestParam = unsafe { std::mem::zeroed() };
        param.op_attr_mask = sys::OP_ATTR_FIELD_CALLBACK | sys::OP_ATTR_FIELD_USER_DATA;
        param.cb = Some(completed);
        param.user_data = of.cast();
        let result = call(&mut param, self.ucp()) as isize;
        let started = match result {
            0 => Started::Done,
            error if (isize::from(sys::ERR_LAST)..0).contains(&error) => {
                Started::Failed(sys::Status::try_from(error).expect("in the range of errors"))
            }
            _ => return Started::Pending,
        };
        // SAFETY: without a request the callback is never called, so that this is the only owner.
        drop(unsafe { Box::from_raw(of) });
        started
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: its endpoints were closed; callbacks that run now still find the inbox.
        unsafe { (self.ucp().worker_destroy)(self.raw) };
    }
}

/// The descriptor of a worker that lives.
pub(crate) fn borrow(descriptor: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the caller only uses it while the fabric, and with it the worker, lives.
    unsafe { BorrowedFd::borrow_raw(descriptor) }
}

unsafe extern "C" fn completed(request: *mut c_void, status: sys::Status, user_data: *mut c_void) {
    // SAFETY: `start` made it, and a callback comes once; the inbox outlives the worker's requests.
    let (of, inbox) = unsafe {
        let of = Box::from_raw(user_data.cast::<Of>());
        let inbox = &*of.inbox;
        (inbox.ucp.request_free)(request);
        (of, inbox)
    };
    inbox.lock().push(Event::Completed {
        token: of.number,
        status,
    });
}

unsafe extern "C" fn failed(arg: *mut c_void, _endpoint: *mut sys::Endpoint, status: sys::Status) {
    // SAFETY: `connect` made it, and it lives as long as the worker.
    let (of, inbox) = unsafe {
        let of = &*arg.cast::<Of>();
        (of, &*of.inbox)
    };
    inbox.lock().push(Event::Failed {
        endpoint: of.number,
        status,
    });
}

unsafe extern "C" fn arrived(
    arg: *mut c_void,
    header: *const c_void,
    header_length: usize,
    data: *mut c_void,
    length: usize,
    param: *const sys::AmRecvParam,
) -> sys::Status {
    // SAFETY: the inbox outlives the worker; UCX lends header and data for the call.
    unsafe {
        let inbox = &*arg.cast::<Inbox>();
        // None of ours: longer than any, or bytes that would have to be fetched first.
        if length > inbox.limit || header_length > inbox.limit || (*param).recv_attr & sys::AM_RECV_ATTR_FLAG_RNDV != 0
        {
            return sys::OK;
        }
        let bytes = |at: *const c_void, len| {
            if len == 0 {
                &[][..]
            } else {
                std::slice::from_raw_parts(at.cast::<u8>(), len)
            }
        };
        let header = bytes(header, header_length).to_vec();
        let payload = Bytes::copy_from_slice(bytes(data.cast_const(), length));
        inbox.lock().push(Event::Arrived { header, payload });
    }
    sys::OK
}
