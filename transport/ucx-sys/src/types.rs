//! Structures, constants and callback types of UCP. Names are C's without their prefix, in Rust's spelling.

use std::ffi::{c_char, c_int, c_uint, c_void};

/// `ucs_status_t`, which C packs into one byte: 0 is success, 1 in progress, negative numbers are errors.
pub type Status = i8;
/// `ucs_status_ptr_t`: null for success, a small negative number for an error, else a request.
pub type StatusPtr = *mut c_void;

/// Success.
pub const OK: Status = 0;
/// Not finished yet.
pub const IN_PROGRESS: Status = 1;
/// There is no memory for it.
pub const ERR_NO_MEMORY: Status = -4;
/// There is no way to the peer.
pub const ERR_UNREACHABLE: Status = -6;
/// Something is to be done first.
pub const ERR_BUSY: Status = -15;
/// It was cancelled.
pub const ERR_CANCELED: Status = -16;
/// The transport cannot do it.
pub const ERR_UNSUPPORTED: Status = -22;
/// The lowest error.
pub const ERR_LAST: Status = -100;

/// An opaque object of the library.
macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident),*) => {
        $($(#[$doc])*
        #[repr(C)]
        #[derive(Debug)]
        pub struct $name {
            _opaque: [u8; 0],
        })*
    };
}

opaque!(
    /// `ucp_config_t`: settings for a context.
    Config,
    /// `ucp_context_h` points to it: devices and memory domains.
    Context,
    /// `ucp_worker_h` points to it: what makes progress.
    Worker,
    /// `ucp_ep_h` points to it: a way to a peer's worker.
    Endpoint,
    /// `ucp_address_t`: where a worker is found.
    Address,
    /// `ucp_mem_h` points to it: registered memory.
    Memory,
    /// `ucp_rkey_h` points to it: a peer's registered memory.
    RemoteKey,
    /// C's `FILE`.
    File
);

/// `ucp_params_t`.
#[repr(C)]
#[derive(Debug)]
pub struct Params {
    /// Which fields are set.
    pub field_mask: u64,
    /// `FEATURE_*`.
    pub features: u64,
    /// Bytes of the caller's in each request.
    pub request_size: usize,
    /// Unused here.
    pub request_init: *mut c_void,
    /// Unused here.
    pub request_cleanup: *mut c_void,
    /// Unused here.
    pub tag_sender_mask: u64,
    /// Whether workers of several threads share the context.
    pub mt_workers_shared: c_int,
    /// How many endpoints are to be expected.
    pub estimated_num_eps: usize,
    /// How many processes of a node are to be expected.
    pub estimated_num_ppn: usize,
    /// Name for logs.
    pub name: *const c_char,
}

/// `Params::features` is set.
pub const PARAM_FIELD_FEATURES: u64 = 1;
/// `Params::mt_workers_shared` is set.
pub const PARAM_FIELD_MT_WORKERS_SHARED: u64 = 1 << 5;
/// `Params::estimated_num_eps` is set.
pub const PARAM_FIELD_ESTIMATED_NUM_EPS: u64 = 1 << 6;

/// Remote memory access.
pub const FEATURE_RMA: u64 = 1 << 1;
/// Sleeping on a file descriptor.
pub const FEATURE_WAKEUP: u64 = 1 << 4;
/// Active messages.
pub const FEATURE_AM: u64 = 1 << 6;

/// `ucp_worker_params_t`.
#[repr(C)]
#[derive(Debug)]
pub struct WorkerParams {
    /// Which fields are set.
    pub field_mask: u64,
    /// `THREAD_MODE_*`.
    pub thread_mode: c_uint,
    /// Unused here.
    pub cpu_mask: [u64; 16],
    /// Unused here.
    pub events: c_uint,
    /// Unused here.
    pub user_data: *mut c_void,
    /// Unused here.
    pub event_fd: c_int,
    /// Unused here.
    pub flags: u64,
    /// Name for logs.
    pub name: *const c_char,
    /// Unused here.
    pub am_alignment: usize,
    /// Unused here.
    pub client_id: u64,
}

/// `WorkerParams::thread_mode` is set.
pub const WORKER_PARAM_FIELD_THREAD_MODE: u64 = 1;
/// Any thread, one at a time.
pub const THREAD_MODE_SERIALIZED: c_uint = 1;

/// `ucp_worker_attr_t`.
#[repr(C)]
#[derive(Debug)]
pub struct WorkerAttr {
    /// Which fields are asked for.
    pub field_mask: u64,
    /// Thread mode that is in force.
    pub thread_mode: c_uint,
    /// Which parts of the address are wanted.
    pub address_flags: u32,
    /// The worker's address, to be released.
    pub address: *mut Address,
    /// Its length in bytes.
    pub address_length: usize,
    /// Longest header of an active message.
    pub max_am_header: usize,
    /// Name for logs.
    pub name: [c_char; 32],
    /// Unused here.
    pub max_debug_string: usize,
}

/// `WorkerAttr::thread_mode` is asked for.
pub const WORKER_ATTR_FIELD_THREAD_MODE: u64 = 1;
/// `WorkerAttr::address` and its length are asked for.
pub const WORKER_ATTR_FIELD_ADDRESS: u64 = 1 << 1;

/// `ucs_sock_addr_t`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SockAddr {
    /// A `struct sockaddr`.
    pub addr: *const c_void,
    /// Its length.
    pub addrlen: u32,
}

/// Called with `ErrorHandler::arg` when an endpoint fails.
pub type ErrorCallback = unsafe extern "C" fn(arg: *mut c_void, ep: *mut Endpoint, status: Status);

/// `ucp_err_handler_t`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ErrorHandler {
    /// The callback.
    pub cb: Option<ErrorCallback>,
    /// Its argument.
    pub arg: *mut c_void,
}

/// `ucp_ep_params_t`.
#[repr(C)]
#[derive(Debug)]
pub struct EndpointParams {
    /// Which fields are set.
    pub field_mask: u64,
    /// The peer's worker.
    pub address: *const Address,
    /// `ERR_HANDLING_MODE_*`.
    pub err_mode: c_uint,
    /// What hears of failures.
    pub err_handler: ErrorHandler,
    /// Argument of the handler if it is set.
    pub user_data: *mut c_void,
    /// Unused here.
    pub flags: c_uint,
    /// Unused here.
    pub sockaddr: SockAddr,
    /// Unused here.
    pub conn_request: *mut c_void,
    /// Name for logs.
    pub name: *const c_char,
    /// Unused here.
    pub local_sockaddr: SockAddr,
}

/// `EndpointParams::address` is set.
pub const EP_PARAM_FIELD_REMOTE_ADDRESS: u64 = 1;
/// `EndpointParams::err_mode` is set.
pub const EP_PARAM_FIELD_ERR_HANDLING_MODE: u64 = 1 << 1;
/// `EndpointParams::err_handler` is set.
pub const EP_PARAM_FIELD_ERR_HANDLER: u64 = 1 << 2;
/// Failures of the peer are reported.
pub const ERR_HANDLING_MODE_PEER: c_uint = 1;
/// For `RequestParam::flags` of a close: do not wait for the peer.
pub const EP_CLOSE_FLAG_FORCE: u32 = 1;

/// `ucp_mem_map_params_t`.
#[repr(C)]
#[derive(Debug)]
pub struct MemMapParams {
    /// Which fields are set.
    pub field_mask: u64,
    /// First byte.
    pub address: *mut c_void,
    /// Length in bytes.
    pub length: usize,
    /// Unused here.
    pub flags: c_uint,
    /// `MEM_MAP_PROT_*`.
    pub prot: c_uint,
    /// Never set: its numbers differ between releases.
    pub memory_type: c_uint,
}

/// `MemMapParams::address` is set.
pub const MEM_MAP_PARAM_FIELD_ADDRESS: u64 = 1;
/// `MemMapParams::length` is set.
pub const MEM_MAP_PARAM_FIELD_LENGTH: u64 = 1 << 1;
/// `MemMapParams::prot` is set.
pub const MEM_MAP_PARAM_FIELD_PROT: u64 = 1 << 3;
/// This side reads it.
pub const MEM_MAP_PROT_LOCAL_READ: c_uint = 1;
/// This side writes it.
pub const MEM_MAP_PROT_LOCAL_WRITE: c_uint = 1 << 1;
/// Peers read it.
pub const MEM_MAP_PROT_REMOTE_READ: c_uint = 1 << 8;
/// Peers write it.
pub const MEM_MAP_PROT_REMOTE_WRITE: c_uint = 1 << 9;

/// Called when a request that was not complete at once is.
pub type SendCallback = unsafe extern "C" fn(request: *mut c_void, status: Status, user_data: *mut c_void);

/// `ucp_request_param_t`.
#[repr(C)]
#[derive(Debug)]
pub struct RequestParam {
    /// Which fields are set.
    pub op_attr_mask: u32,
    /// Flags of the operation.
    pub flags: u32,
    /// Unused here.
    pub request: *mut c_void,
    /// A union of callback types in C; only the one for sends is used here.
    pub cb: Option<SendCallback>,
    /// Unset: bytes.
    pub datatype: u64,
    /// Argument of the callback.
    pub user_data: *mut c_void,
    /// Unused here.
    pub reply_buffer: *mut c_void,
    /// Never set: its numbers differ between releases.
    pub memory_type: c_uint,
    /// Unused here.
    pub recv_info: *mut c_void,
    /// Registration of the local memory.
    pub memh: *mut Memory,
}

/// `RequestParam::cb` is set.
pub const OP_ATTR_FIELD_CALLBACK: u32 = 1 << 1;
/// `RequestParam::user_data` is set.
pub const OP_ATTR_FIELD_USER_DATA: u32 = 1 << 2;
/// `RequestParam::flags` is set.
pub const OP_ATTR_FIELD_FLAGS: u32 = 1 << 4;
/// `RequestParam::memh` is set.
pub const OP_ATTR_FIELD_MEMH: u32 = 1 << 8;

/// `ucp_am_recv_param_t`.
#[repr(C)]
#[derive(Debug)]
pub struct AmRecvParam {
    /// What there is.
    pub recv_attr: u64,
    /// An endpoint to the sender, if it asked for one.
    pub reply_ep: *mut Endpoint,
}

/// The data is a descriptor of a rendezvous, not the bytes.
pub const AM_RECV_ATTR_FLAG_RNDV: u64 = 1 << 17;

/// Called for each active message; `OK` gives the data back to the library.
pub type AmCallback = unsafe extern "C" fn(
    arg: *mut c_void,
    header: *const c_void,
    header_length: usize,
    data: *mut c_void,
    length: usize,
    param: *const AmRecvParam,
) -> Status;

/// `ucp_am_handler_param_t`.
#[repr(C)]
#[derive(Debug)]
pub struct AmHandlerParam {
    /// Which fields are set.
    pub field_mask: u64,
    /// Number of the kind of message.
    pub id: c_uint,
    /// `AM_FLAG_*`.
    pub flags: u32,
    /// The callback.
    pub cb: Option<AmCallback>,
    /// Its argument.
    pub arg: *mut c_void,
}

/// `id`, `flags`, `cb` and `arg` of `AmHandlerParam` are set.
pub const AM_HANDLER_PARAM_FIELDS: u64 = 0b1111;
/// The callback gets whole messages.
pub const AM_FLAG_WHOLE_MSG: u32 = 1;
/// For `RequestParam::flags` of an active message: send the bytes at once.
pub const AM_SEND_FLAG_EAGER: u32 = 1 << 1;

/// Severity of a line of the log; a larger number is less severe.
pub const LOG_LEVEL_ERROR: c_uint = 1;
/// See above.
pub const LOG_LEVEL_WARN: c_uint = 2;
/// No further handler sees the line.
pub const LOG_STOP: c_int = 0;
/// `ucs_log_func_t`. The arguments are C's `va_list`, which every platform we know hands over as a pointer.
pub type LogHandler = unsafe extern "C" fn(
    file: *const c_char,
    line: c_uint,
    function: *const c_char,
    level: c_uint,
    component: *const c_void,
    message: *const c_char,
    arguments: *mut c_void,
) -> c_int;
