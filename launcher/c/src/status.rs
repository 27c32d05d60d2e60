//! Codes and words of errors. Owns the numbers, which are never changed, and the last words of each thread.

use bridgehead_guest::GuestError;
use std::cell::RefCell;
use std::ffi::{CString, c_char};

/// What came of a call. The numbers stay as they are; new ones may be added.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum bh_status {
    /// It was done.
    BH_OK = 0,
    /// No version follows: the name was closed, or the run has ended.
    BH_END = 1,
    /// It did not come in time, or nobody made room in time.
    BH_TIMEOUT = 2,
    /// There is no such name or version, and waiting was not asked for.
    BH_UNKNOWN = 3,
    /// The stream has dropped this version.
    BH_VERSION_GONE = 4,
    /// The name was closed: use another one, or delete it first.
    BH_CLOSED = 5,
    /// The task that wrote the name has failed.
    BH_BROKEN = 6,
    /// The only copy went down with its node.
    BH_LOST = 7,
    /// The store has no room.
    BH_FULL = 8,
    /// The value is no plain array: Python put another object.
    BH_NOT_AN_ARRAY = 9,
    /// An argument is wrong.
    BH_INVALID = 10,
    /// This process was started by no run.
    BH_NO_RUN = 11,
    /// The run does not let this process take part: its program does not run on this node.
    BH_REFUSED = 12,
    /// The run is gone, or the connection to it.
    BH_GONE = 13,
    /// A mistake of the library.
    BH_INTERNAL = 14,
}

/// Why a call does not give `BH_OK`.
#[derive(Debug)]
pub(crate) struct Failure {
    pub status: bh_status,
    pub why: String,
}

/// An argument that is wrong.
pub(crate) fn wrong(why: impl Into<String>) -> Failure {
    let (status, why) = (bh_status::BH_INVALID, why.into());
    Failure { status, why }
}

impl From<GuestError> for Failure {
    fn from(error: GuestError) -> Self {
        let why = error.to_string();
        let status = match error {
            GuestError::Outside(_) => bh_status::BH_NO_RUN,
            GuestError::Refused(_) => bh_status::BH_REFUSED,
            GuestError::Gone(_) => bh_status::BH_GONE,
            GuestError::Wrong(_) => bh_status::BH_INVALID,
            GuestError::Unknown(_) => bh_status::BH_UNKNOWN,
            GuestError::VersionGone(_) => bh_status::BH_VERSION_GONE,
            GuestError::Timeout(_) => bh_status::BH_TIMEOUT,
            GuestError::Closed(_) => bh_status::BH_CLOSED,
            GuestError::Broken(_) => bh_status::BH_BROKEN,
            GuestError::Lost(_) => bh_status::BH_LOST,
            GuestError::Full(_) => bh_status::BH_FULL,
            GuestError::NoArray(_) => bh_status::BH_NOT_AN_ARRAY,
            GuestError::Other(_) => bh_status::BH_INTERNAL,
        };
        Self { status, why }
    }
}

thread_local! {
    static WORDS: RefCell<CString> = RefCell::default();
}

/// Keeps the words for `bh_error`.
pub(crate) fn keep(why: &str) {
    let words = CString::new(why.replace('\0', "?")).unwrap_or_default();
    WORDS.replace(words);
}

/// What was wrong with this thread's last call that did not give `BH_OK`, in words; an empty text before there was one. The
/// text stays until the thread's next call of this library.
#[unsafe(no_mangle)]
#[allow(unsafe_code)] // SAFETY: no other function of the program has this name.
pub extern "C" fn bh_error() -> *const c_char {
    WORDS.with_borrow(|words| words.as_ptr())
}
