//! The secrets of a launch whose nodes share no file system with this machine: certificates of an authority of its own, by which its
//! pods and this machine know one another. Owns where they lie here and which of them go to the pods.

use crate::error::{CliError, SYSTEM};
use bridgehead_head::tls::{self, Authority};
use bridgehead_spec::{RunFolder, RunId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The folder of a launch's secrets on this machine.
pub(crate) fn folder_of(folder: &RunFolder, launch: u32) -> PathBuf {
    folder.tls().join(format!("launch-{launch}"))
}

/// Files of a launch's secrets that go to its pods; the client's key stays here.
const FOR_PODS: [&str; 6] = [
    "authority.pem",
    "head.pem",
    "head.key",
    "agent.pem",
    "agent.key",
    "client.pem",
];

/// The secrets of a launch, made the first time that they are asked for: certificates of an authority of its own, whose key is
/// thrown away. What its pods get, by file name.
///
/// # Errors
/// Keys cannot be made, or the file system refuses.
pub(crate) fn for_pods(folder: &RunFolder, run: &RunId, launch: u32) -> Result<BTreeMap<String, Vec<u8>>, CliError> {
    let dir = folder_of(folder, launch);
    let refused = |e: std::io::Error| CliError::system("write", &dir, &e);
    if !dir.join("client.key").exists() {
        make(folder, run, &dir)?;
    }
    let read = |name: &str| Ok((name.to_owned(), std::fs::read(dir.join(name)).map_err(refused)?));
    FOR_PODS.into_iter().map(read).collect()
}

fn make(folder: &RunFolder, run: &RunId, dir: &Path) -> Result<(), CliError> {
    let refused = |e: std::io::Error| CliError::system("write", dir, &e);
    let no_keys = |e: tls::TlsError| CliError::new(SYSTEM, format!("cannot make certificates: {e}"));
    tls::secret_folder(folder).map_err(refused)?;
    std::fs::create_dir_all(dir).map_err(refused)?;
    let authority = Authority::new(run).map_err(no_keys)?;
    let write = |name: &str, text: &str| tls::write_secret(&dir.join(name), text.as_bytes()).map_err(refused);
    write("authority.pem", authority.pem())?;
    // The client's key last: where it is, all are.
    for (role, name) in [("head", tls::HEAD_NAME), ("agent", "agent"), ("client", "client")] {
        let (certificate, key) = authority.issue(name).map_err(no_keys)?;
        write(&format!("{role}.pem"), &certificate)?;
        write(&format!("{role}.key"), &key)?;
    }
    Ok(())
}
