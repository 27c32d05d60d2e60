//! What a TCP fabric is started with. Owns the defaults and their reasons.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// How bytes are protected on the way. Both sides must use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// A code with the connection's key (AEGIS-128L without a plaintext) over every frame: altered, replayed or cut bytes are
    /// found. The default.
    Mac,
    /// A CRC32C over every frame: finds accidents, not attackers. The connection is authenticated when it is made, its bytes are not.
    Crc32c,
    /// AES-128-GCM over every payload and, without a plaintext, over every header, whose fields stay readable.
    Encrypt,
}

/// The run's data key: 32 random bytes that every agent gets over the control channel.
#[derive(Clone)]
pub struct DataKey(pub(crate) [u8; 32]);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(secret)")
    }
}

/// The settings of a `TcpFabric`.
#[derive(Debug, Clone)]
pub struct Options {
    /// This agent's number; peers know it by that.
    pub number: u32,
    /// The run's key.
    pub key: DataKey,
    /// Where to listen; the port is always chosen by the system. Peers are given this address.
    pub bind: IpAddr,
    /// Protection of the bytes.
    pub integrity: Integrity,
    /// A peer that owes something and gives no sign of life for so long is lost; also the limit of the system for dead hosts.
    pub timeout: Duration,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Connections that are not authenticated yet; the oldest is dropped for a new one.
    pub max_strangers: usize,
    /// Operations in flight with one peer before `Posted::Busy`; at most 4096.
    pub max_in_flight: usize,
    /// Bytes of messages that wait to be sent to one peer before `Posted::Busy`, and bytes that wait to be polled from one
    /// peer before nothing more is read from it.
    pub max_queued: usize,
    /// Connections for large operations to each peer; operations are spread over them.
    pub bulk_lanes: usize,
    /// How long a thread looks for more work before it sleeps: a wake-up costs some 40 µs.
    pub spin: Duration,
}

impl Options {
    /// Defaults for an agent.
    #[must_use]
    pub fn new(number: u32, key: [u8; 32], bind: IpAddr) -> Self {
        let alone = std::thread::available_parallelism().map_or(1, usize::from) < 2;
        Self {
            number,
            key: DataKey(key),
            bind,
            integrity: Integrity::Mac,
            timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(5),
            max_strangers: 64,
            max_in_flight: 256,
            max_queued: 8 << 20,
            bulk_lanes: 1,
            spin: if alone {
                Duration::ZERO
            } else {
                Duration::from_micros(50)
            },
        }
    }
}
