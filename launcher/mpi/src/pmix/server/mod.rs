//! The helper process: a PMIx server for the ranks of this node, which is Open MPI's own libpmix, opened at run time.
//!
//! `sys` declares what is used of libpmix, `library` opens it, `infos` makes the values that it is told, `calls` are the functions that it calls, and
//! this file is the loop: orders of the agent come from the socket, reports go to it. It ends when the socket does. Nothing here
//! blocks libpmix's own thread: reports are written by a thread of their own.
#![allow(unsafe_code)] // Everything below this module is calls to and from a C library.

mod calls;
mod infos;
#[cfg(test)]
mod layout;
mod library;
mod sys;

use super::frames::{Do, Forget, Frames, Order, Ready, Register, Report, Tell, Variables, frame};
use crate::world::{NodePart, World};
use library::Library;
use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

/// Which of libpmix's modules serve and are used by its clients: values are kept in memory and told over the socket, so that no
/// file is left when ranks are killed.
pub(crate) const MODULES: &[(&str, &str)] = &[("PMIX_MCA_gds", "hash")];

/// Variables of each rank of a gang with these folders for files and for shared memory, beside those that libpmix sets.
pub(crate) fn variables(scratch: &str, shared: &str) -> Vec<(String, String)> {
    let own = [
        // Open MPI 4 asks its modules who launched it; the one that takes everybody for a singleton is left out, and so are those
        // that do it in an allocation of their scheduler. The choice is made here. Open MPI 5 sees a PMIx server and asks nobody.
        ("OMPI_MCA_schizo", "^orte,slurm,jsm,alps,flux"),
        ("OMPI_MCA_ess", "pmi"),
        // Where ranks run is the agent's matter.
        ("OMPI_MCA_hwloc_base_binding_policy", "none"),
        ("OMPI_MCA_orte_tmpdir_base", scratch),
        ("OMPI_MCA_btl_vader_backing_directory", shared),
        ("OMPI_MCA_btl_sm_backing_directory", shared),
    ];
    let all = own.iter().chain(MODULES);
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Serves an agent over standard input, a socket: the whole life of the helper process, which ends when the socket is closed.
///
/// # Errors
/// A sentence: standard input is no socket of an agent, or libpmix refuses.
pub fn serve() -> Result<Infallible, String> {
    let socket = take_input().map_err(|error| format!("standard input is no socket of an agent: {error}"))?;
    let mut reader = File::from(socket.try_clone().map_err(|error| error.to_string())?);
    let (reports, received) = channel::<Report>();
    let mut writer = File::from(socket);
    std::thread::spawn(move || {
        for report in received {
            if writer.write_all(&frame(&report)).is_err() {
                break; // The agent is gone; the reader sees it too and ends the process.
            }
        }
    });
    let mut frames = Frames::default();
    let mut library = None;
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        match reader.read(&mut buffer) {
            // SAFETY: it ends the process at once; libpmix's own end would wait for threads of its that may be stuck.
            Ok(0) => unsafe { libc::_exit(0) },
            Ok(count) => frames.feed(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
        while let Some(order) = frames.next::<Order>().map_err(|garbage| garbage.to_string())? {
            let Some(what) = order.what else {
                return Err("an order says nothing".to_owned());
            };
            match (&library, what) {
                (None, Do::Begin(begin)) => {
                    let opened = Library::open(Path::new(&begin.libpmix));
                    let begun = opened.map(Arc::new).and_then(|opened| {
                        calls::begin(&opened, reports.clone())?;
                        infos::init(&opened, &begin).map(|()| opened)
                    });
                    match begun {
                        Ok(opened) => library = Some(opened),
                        Err(reason) => return fail(&reports, &reason),
                    }
                }
                (Some(library), what) => run(library, order.gang, what, &reports),
                (None, _) => return Err("the first order is not to begin".to_owned()),
            }
        }
    }
}

/// Tells the agent and waits until it closes the socket, so that the report is read.
fn fail(reports: &std::sync::mpsc::Sender<Report>, reason: &str) -> Result<Infallible, String> {
    let _ = reports.send(Report {
        gang: 0,
        what: Some(Tell::Failed(reason.to_owned())),
    });
    std::thread::sleep(std::time::Duration::from_millis(200));
    Err(reason.to_owned())
}

fn run(library: &Arc<Library>, gang: u64, what: Do, reports: &std::sync::mpsc::Sender<Report>) {
    match what {
        Do::Register(register) => {
            let tell = match join(library, gang, &register) {
                Ok(ranks) => Tell::Ready(Ready { ranks }),
                Err(reason) => Tell::Failed(reason),
            };
            // The writer ends only with the process.
            let _ = reports.send(Report { gang, what: Some(tell) });
        }
        Do::Forget(_) => {
            if let Some(name) = calls::forget(gang) {
                // One that does not answer is ended by the agent, which waits for this report.
                if infos::deregister(library, &name).is_ok() {
                    let _ = reports.send(Report {
                        gang,
                        what: Some(Tell::Forgotten(Forget {})),
                    });
                }
            }
        }
        Do::Give(blob) => calls::give(gang, blob),
        Do::Fetch(want) => calls::fetch(library, gang, &want),
        Do::Begin(_) => {} // It has begun; an agent of this build says it once.
    }
}

fn join(library: &Library, gang: u64, register: &Register) -> Result<Vec<Variables>, String> {
    let part = |node: &super::frames::Node| NodePart {
        agent: node.first,
        host: node.host.clone(),
        first: node.first,
        count: node.count,
    };
    let nodes = register.nodes.iter().map(part).collect();
    let world = World {
        name: register.name.clone(),
        nodes,
        here: register.here as usize,
    };
    world.check().map_err(|error| error.to_string())?;
    calls::know(gang, &world);
    infos::register(library, &world, &register.folder)?;
    let here = world.part();
    let ranks = here.first..here.first + here.count;
    ranks
        .map(|rank| infos::client(library, &world.name, rank).map(|set| Variables { set }))
        .collect()
}

/// Standard input under another number, with nothing in its place: libpmix and what it loads must not find the socket there.
fn take_input() -> std::io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3)?;
    let nothing = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::net::sockopt::socket_type(&socket)?;
    Ok(socket)
}
