//! Gangs that Slurm's `srun` starts, for sites whose MPI starts in no other way: the first agent runs it, the others keep the room
//! that its ranks use. Owns its arguments.

use super::{Agent, Part, Rank, RankProcess, environment, mpi};
use crate::program::Surroundings;
use crate::ranks::RankStart;
use bridgehead_wire::{Mpi, ProgramCall, TaskCall};
use std::sync::Arc;

/// The file that says which rank is on which node.
const HOSTS: &str = "hosts";

impl Agent {
    pub(super) fn start_by_srun(&mut self, task: u64) {
        let Some(part) = self.gangs.parts.get_mut(&task) else {
            return;
        };
        part.begun = true;
        if part.at.first != 0 {
            return; // Its end is that of the first agent's part.
        }
        let Some(call) = call(part) else { return };
        let mut env = environment::of_run(&self.surroundings.env);
        env.unset("SLURM_NTASKS_PER_NODE"); // The agents' step has one task a node, which would contradict what is asked for here.
        let around = Arc::new(Surroundings {
            env,
            ..(*self.surroundings).clone()
        });
        let hosts = hosts(part);
        let written =
            super::start::make_scratch(&part.scratch).and_then(|()| std::fs::write(part.scratch.join(HOSTS), hosts));
        if let Err(error) = written {
            return self.fail_part(
                task,
                mpi::trouble(format!("cannot write the list of its nodes: {error}")),
            );
        }
        let start = RankStart {
            rank: 0,
            env: vec![(
                "SLURM_HOSTFILE".to_owned(),
                part.scratch.join(HOSTS).display().to_string(),
            )],
            fd: None,
            fd_name: None,
            processors: Vec::new(),
            named: false,
        };
        let handle = self.programs.start_rank(call, start, around);
        part.ranks.push(Rank::new(0, RankProcess::Program(handle), Vec::new()));
    }
}

/// One line a rank.
fn hosts(part: &Part) -> String {
    let nodes = part.given.call.gang.iter().flat_map(|gang| &gang.nodes);
    let lines = nodes.flat_map(|at| std::iter::repeat_n(at.host.as_str(), at.count as usize));
    lines.map(|host| format!("{host}\n")).collect()
}

/// The call as `srun` is given it.
fn call(part: &Part) -> Option<TaskCall> {
    let call = part.given.call.clone();
    let (program, gang) = (call.program.clone()?, call.gang.as_ref()?);
    let each = call.resources.clone().unwrap_or_default();
    let mut argv = vec![
        "srun".to_owned(),
        "--overlap".to_owned(),
        // The agents' step has the job's memory, which an overlapping step only shares if it asks for none.
        "--mem=0".to_owned(),
        "--kill-on-bad-exit=1".to_owned(),
        "--label".to_owned(),
        "--distribution=arbitrary".to_owned(),
        format!("--nodes={}", gang.nodes.len()),
        format!("--ntasks={}", part.size),
        format!("--cpus-per-task={}", (each.cpu_millis / 1000).max(1)),
    ];
    // Without a word of the user the site's default decides, which is often no MPI at all.
    argv.extend(match gang.ranks.mpi() {
        Mpi::Mpich => Some("--mpi=pmi2".to_owned()),
        Mpi::Openmpi => Some("--mpi=pmix".to_owned()),
        Mpi::None => Some("--mpi=none".to_owned()),
        Mpi::Auto => None,
    });
    if each.gpus > 0 {
        argv.push(format!("--gpus-per-task={}", each.gpus));
    }
    // Slurm takes what follows for the program even where its name begins with a dash.
    argv.push("--".to_owned());
    argv.extend(program.argv.iter().cloned());
    Some(TaskCall {
        program: Some(ProgramCall { argv, ..program }),
        ..call
    })
}
