//! Tickets: what an agent needs to join a run. A ticket is a secret: a file of mode 0600, never an argument or a variable.

use serde::{Deserialize, Serialize};

/// The name in the head's certificate; peers check it whatever address they dialled.
pub const HEAD_NAME: &str = "head.bridgehead.internal";
/// Application protocol of agents on the head's TLS port.
pub const ALPN_AGENT: &[u8] = b"bridgehead-agent/1";
/// Application protocol of clients on the head's TLS port.
pub const ALPN_CLIENT: &[u8] = b"bridgehead-client/1";

/// `tls/agent-K.json`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// Version of this document.
    pub version: u32,
    /// The run.
    pub run: String,
    /// The agent's number.
    pub agent: u32,
    /// `host:port` of the head, to be tried in order.
    pub addresses: Vec<String>,
    /// The run's certificate authority, PEM.
    pub authority: String,
    /// The agent's certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
    /// The life of the launch that it is for: a job that is started again has another one. Empty on this machine.
    #[serde(default)]
    pub life: String,
    /// The attempt whose head wrote it.
    #[serde(default)]
    pub attempt: u32,
    /// Proves that the bearer was given this ticket: 32 bytes, sent inside TLS only.
    pub secret: Vec<u8>,
}

impl Ticket {
    /// The version that this program writes and reads.
    pub const VERSION: u32 = 1;
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket {{ run: {:?}, agent: {}, .. }}", self.run, self.agent) // Keys must not reach a log.
    }
}
