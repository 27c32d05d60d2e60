//! Runs an MPI program as a gang on pretended nodes of this machine, without mpirun:
//! `launch mpich|openmpi RANKS NODES REPEAT [--libpmix FILE] PROGRAM [ARGUMENT...]`. Prints how long each run took. It is for trying out
//! and measuring; agents start the gangs of pipelines.
#![allow(clippy::unwrap_used)] // A wrong command line ends it.

mod gang;

use bridgehead_mpi::Family;
use gang::{Gang, Machine};
use std::ffi::OsString;

fn main() {
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| word == "pmix-server") {
        // It is its own helper.
        match bridgehead_mpi::serve_pmix() {
            Ok(never) => match never {},
            Err(reason) => panic!("{reason}"),
        }
    }
    assert!(
        words.len() > 4,
        "launch mpich|openmpi RANKS NODES REPEAT [--libpmix FILE] PROGRAM [ARGUMENT...]"
    );
    let number = |at: usize| words[at].to_str().unwrap().parse::<u32>().unwrap();
    let (ranks, nodes, repeat) = (number(1), number(2), number(3));
    let family = if words[0] == "mpich" {
        Family::Mpich
    } else {
        Family::OpenMpi
    };
    let mut command = words.split_off(4);
    let mut libpmix = None;
    if command[0] == "--libpmix" {
        libpmix = Some(command[1].clone().into());
        command.drain(..2);
    }
    let gang = Gang {
        family,
        libpmix,
        ranks,
        command,
        env: Vec::new(),
        loud: true,
    };
    let mut machine = Machine::new(nodes as usize, &gang::helper());
    for _ in 0..repeat {
        let outcome = machine.run(&gang);
        eprintln!(
            "{:.1} ms, {} messages, {:?}",
            outcome.took.as_secs_f64() * 1e3,
            outcome.sent,
            outcome.events
        );
        for (rank, status) in outcome
            .statuses
            .iter()
            .enumerate()
            .filter(|(_, status)| !status.success())
        {
            eprintln!("rank {rank}: {status}");
        }
    }
}
