//! Runs a plan on this machine: run folders, head and agents as processes of their own session, and a way to reach them.

mod client;
mod folders;
mod processes;
mod tls;

pub use client::{Client, ClientError};
pub use folders::{FolderError, create_run, home, list_runs, new_run_id, resolve_run, socket_dir, stale_socket_dirs};
pub use processes::{HEAD_PROCESS, Local, LocalManifest, head_is_gone, is_alive, process_start};
pub use tls::tls_config;
