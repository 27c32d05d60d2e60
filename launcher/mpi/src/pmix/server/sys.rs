//! Declarations of libpmix's server interface, as far as the helper uses it. Owns layouts and constants; no behaviour. Written from the
//! headers of PMIx 4.2; what is declared here has kept its layout from 3.0 to 5.0. `layout` checks it against the
//! headers where they are.

use std::ffi::{c_char, c_int, c_void};

/// Most bytes of a namespace's name and of a key, without their ends.
pub const MAX_NSLEN: usize = 255;
pub const MAX_KEYLEN: usize = 511;

pub const RANK_WILDCARD: u32 = u32::MAX - 1;

pub type Status = c_int;
pub const SUCCESS: Status = 0;
pub const ERR_NOT_FOUND: Status = -46;
pub const ERR_NOT_SUPPORTED: Status = -47;
/// Done at once; no callback follows.
pub const OPERATION_SUCCEEDED: Status = -157;

/// Kinds of values.
pub const BOOL: u16 = 1;
pub const STRING: u16 = 3;
pub const UINT16: u16 = 13;
pub const UINT32: u16 = 14;
pub const INFO: u16 = 24;
pub const DATA_ARRAY: u16 = 39;
pub const PROC_RANK: u16 = 40;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Proc {
    pub nspace: [c_char; MAX_NSLEN + 1],
    pub rank: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub union Data {
    pub flag: bool,
    pub string: *mut c_char,
    pub uint16: u16,
    pub uint32: u32,
    pub darray: *mut DataArray,
    /// The largest member is an `envar` of two pointers and a character.
    pub room: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Value {
    pub kind: u16,
    pub data: Data,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Info {
    pub key: [c_char; MAX_KEYLEN + 1],
    pub flags: u32,
    pub value: Value,
}

#[repr(C)]
pub struct DataArray {
    pub kind: u16,
    pub size: usize,
    pub array: *mut c_void,
}

pub type OpCallback = Option<unsafe extern "C" fn(Status, *mut c_void)>;
pub type ReleaseCallback = Option<unsafe extern "C" fn(*mut c_void)>;
pub type ModexCallback =
    Option<unsafe extern "C" fn(Status, *const c_char, usize, *mut c_void, ReleaseCallback, *mut c_void)>;
pub type DmodexResponse = Option<unsafe extern "C" fn(Status, *mut c_char, usize, *mut c_void)>;

pub type ClientConnected = unsafe extern "C" fn(*const Proc, *mut c_void, OpCallback, *mut c_void) -> Status;
pub type ClientConnected2 =
    unsafe extern "C" fn(*const Proc, *mut c_void, *mut Info, usize, OpCallback, *mut c_void) -> Status;
pub type Abort = unsafe extern "C" fn(
    *const Proc,
    *mut c_void,
    c_int,
    *const c_char,
    *mut Proc,
    usize,
    OpCallback,
    *mut c_void,
) -> Status;
pub type FenceNb = unsafe extern "C" fn(
    *const Proc,
    usize,
    *const Info,
    usize,
    *mut c_char,
    usize,
    ModexCallback,
    *mut c_void,
) -> Status;
pub type DirectModex = unsafe extern "C" fn(*const Proc, *const Info, usize, ModexCallback, *mut c_void) -> Status;

/// What libpmix calls of its host. What is not set is not supported.
#[repr(C)]
pub struct Module {
    pub client_connected: Option<ClientConnected>,
    pub client_finalized: Option<ClientConnected>,
    pub abort: Option<Abort>,
    pub fence_nb: Option<FenceNb>,
    pub direct_modex: Option<DirectModex>,
    /// publish to fabric: 22 functions.
    pub between: [usize; 22],
    pub client_connected2: Option<ClientConnected2>,
    /// Newer releases copy a longer structure: what they added reads as not supported.
    pub newer: [usize; 32],
}

pub type ServerInit = unsafe extern "C" fn(*mut Module, *mut Info, usize) -> Status;
pub type Generate = unsafe extern "C" fn(*const c_char, *mut *mut c_char) -> Status;
pub type RegisterNspace =
    unsafe extern "C" fn(*const c_char, c_int, *mut Info, usize, OpCallback, *mut c_void) -> Status;
pub type DeregisterNspace = unsafe extern "C" fn(*const c_char, OpCallback, *mut c_void);
pub type RegisterClient = unsafe extern "C" fn(*const Proc, u32, u32, *mut c_void, OpCallback, *mut c_void) -> Status;
pub type SetupFork = unsafe extern "C" fn(*const Proc, *mut *mut *mut c_char) -> Status;
pub type DmodexRequest = unsafe extern "C" fn(*const Proc, DmodexResponse, *mut c_void) -> Status;
pub type ErrorString = unsafe extern "C" fn(Status) -> *const c_char;
