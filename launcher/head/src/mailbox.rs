//! The mailbox: requests in the run folder from clients that cannot reach the head. Owns the file form.

use bridgehead_spec::RunFolder;
use serde::{Deserialize, Serialize};

/// A request; today there is one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// Always `cancel`.
    pub kind: String,
    /// For people.
    pub reason: String,
}

/// Takes the requests that lie in the mailbox; what cannot be read is removed and logged.
#[must_use]
pub fn take(folder: &RunFolder) -> Vec<CancelRequest> {
    let Ok(entries) = std::fs::read_dir(folder.mailbox()) else {
        return Vec::new();
    };
    let mut requests = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.extension().is_none_or(|e| e != "json") {
            continue; // Still being written.
        }
        let request = std::fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let _ = std::fs::remove_file(&path);
        match request {
            Some(CancelRequest { kind, reason }) if kind == "cancel" => requests.push(CancelRequest { kind, reason }),
            _ => tracing::warn!(path = %path.display(), "removed a mailbox file that is no request"),
        }
    }
    requests
}

/// Throws away what lies in the mailbox: a new life of the run must not obey what an earlier one was told.
pub fn clear(folder: &RunFolder) {
    for request in take(folder) {
        tracing::info!(reason = %request.reason, "threw away a request that came too late");
    }
}

/// Leaves a request in the mailbox, whole or not at all.
///
/// # Errors
/// The file system refuses.
pub fn leave(folder: &RunFolder, request: &CancelRequest) -> std::io::Result<()> {
    let mailbox = folder.mailbox();
    std::fs::create_dir_all(&mailbox)?;
    let part = mailbox.join(format!("{}.part", std::process::id()));
    std::fs::write(&part, serde_json::to_vec(request)?)?;
    std::fs::rename(&part, part.with_extension("json"))
}
