//! The fake and this machine keep the laws of a backend.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use bridgehead_backend::{Fake, conformance};
use bridgehead_local::Local;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[test]
fn the_fake_keeps_the_laws() {
    let request = conformance::request(Path::new("/r"), Path::new("/p"));
    conformance::check(&Fake::default(), &request);
}

#[test]
fn this_machine_keeps_the_laws() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("logs")).unwrap();
    let program = folder.path().join("stay");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let request = conformance::request(folder.path(), &program);
    conformance::check(&Local, &request);
}
