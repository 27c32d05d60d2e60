//! What a UCX fabric is started with. Owns the defaults and their reasons.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The run's data key: 32 random bytes that every agent gets over the control channel.
#[derive(Clone)]
pub(crate) struct DataKey(pub [u8; 32]);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(secret)")
    }
}

/// How bytes are read from and written to a peer's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moving {
    /// UCX's gets and puts. For devices that reach a peer's memory by themselves: elsewhere UCX emulates them, which can end the process when a
    /// peer is lost, and gives whoever reaches UCX's port what is in this process (`docs/decisions/0011-ucx.md`).
    OneSided,
    /// Messages that carry a code, in parts that their receiver checks and copies. Taken for a pair as soon as one of its two wants it.
    Messages,
}

/// The settings of a `UcxFabric`.
#[derive(Debug, Clone)]
pub struct Options {
    /// This agent's number; peers know it by that.
    pub number: u32,
    pub(crate) key: DataKey,
    /// Where libucp may be, in order (`bridgehead_ucx_sys::candidates`).
    pub libraries: Vec<PathBuf>,
    /// Which of UCX's transports may be used, as in `UCX_TLS`; if `None`, what UCX was told by its own settings, else all.
    pub transports: Option<String>,
    /// Which network devices may be used, as in `UCX_NET_DEVICES`.
    pub devices: Option<String>,
    /// How bytes are moved.
    pub moving: Moving,
    /// A peer that owes something and gives no sign of life for so long is lost.
    pub timeout: Duration,
    /// Operations in flight with one peer before `Posted::Busy`.
    pub max_in_flight: usize,
    /// Bytes of messages that a peer has not taken yet before `Posted::Busy`.
    pub max_queued: usize,
    /// How long a thread looks for more work before it sleeps: a wake-up costs some 40 µs.
    pub spin: Duration,
}

impl Options {
    /// Defaults for an agent whose UCX has no device for RDMA.
    #[must_use]
    pub fn new(number: u32, key: [u8; 32], libraries: Vec<PathBuf>) -> Self {
        let alone = std::thread::available_parallelism().map_or(1, usize::from) < 2;
        Self {
            number,
            key: DataKey(key),
            libraries,
            transports: None,
            devices: None,
            moving: Moving::Messages,
            timeout: Duration::from_secs(30),
            max_in_flight: 256,
            max_queued: 8 << 20,
            spin: if alone {
                Duration::ZERO
            } else {
                Duration::from_micros(50)
            },
        }
    }
}
