//! Ranks are started: their MPI's start-up first, then each rank's process with what it is told and bound to.

use super::{Agent, Part, Rank, RankProcess, environment, mpi};
use crate::calls::cpu_millis;
use crate::program::Surroundings;
use crate::ranks::RankStart;
use crate::spawn::EXTRA_FDS;
use bridgehead_mpi::{Bootstrap, Family, NodePart, Options, RankSetup, World};
use bridgehead_wire::{AgentToHead, Failure, RankBound, RanksBound, TaskCall};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An MPI's start-up that is to be served: its family, and where Open MPI's own libpmix is.
type Served = (Family, Option<PathBuf>);

/// Makes a folder that only this user can enter.
pub(super) fn make_scratch(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

impl Agent {
    /// Starts all ranks of a part; `None` serves no MPI.
    pub(super) fn start_ranks(&mut self, task: u64, served: Option<Served>) {
        let family = served.as_ref().map(|(family, _)| *family);
        let boot = match served.map(|served| self.boot(task, served)).transpose() {
            Ok(boot) => boot,
            Err(failure) => return self.fail_part(task, failure),
        };
        let bound = self.bind_ranks(task);
        let run = self.options.run.clone();
        let Some(part) = self.gangs.parts.get_mut(&task) else {
            return;
        };
        part.begun = true;
        part.family = family;
        part.boot = boot;
        let all_bound = bound.iter().all(|(_, processors)| !processors.is_empty());
        let env = environment::of_run(&self.surroundings.env);
        let common = environment::of_part(&env, part, &run, all_bound);
        let around = Arc::new(Surroundings {
            env,
            ..(*self.surroundings).clone()
        });
        let early = self.gangs.early.remove(&(task, part.given.call.attempt));
        self.tell_bound(task, family, bound.iter().map(|(rank, _)| rank.clone()).collect());
        for (rank, processors) in bound {
            if let Err(failure) = self.start_rank(task, &rank, processors, (&around, &common)) {
                return self.fail_part(task, failure);
            }
        }
        let Some(part) = self.gangs.parts.get(&task) else {
            return;
        };
        for (from, bytes) in early.unwrap_or_default() {
            if let Some(boot) = &part.boot {
                boot.deliver(from, bytes);
            }
        }
    }

    fn boot(&self, task: u64, (family, libpmix): Served) -> Result<Bootstrap, Failure> {
        let Some(part) = self.gangs.parts.get(&task) else {
            return Err(mpi::trouble("its call is gone".to_owned()));
        };
        make_scratch(&part.scratch).map_err(|e| mpi::trouble(format!("cannot make a folder for its ranks: {e}")))?;
        let options = Options {
            scratch: part.scratch.clone(),
            helper: self.options.reaper.clone(),
            libpmix,
            helper_env: (self.surroundings.env.iter())
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        };
        let events = self.gang_events(task, part.given.call.attempt);
        Bootstrap::start(&self.servers, family, self.world(part), &options, events)
            .map_err(|error| mpi::trouble(error.to_string()))
    }

    fn world(&self, part: &Part) -> World {
        let call = &part.given.call;
        let nodes = call.gang.iter().flat_map(|gang| &gang.nodes);
        let nodes = apart(nodes.map(|at| NodePart {
            agent: at.agent,
            host: if at.host.is_empty() {
                format!("node{}", at.agent)
            } else {
                at.host.clone()
            },
            first: at.first,
            count: at.count,
        }));
        World {
            name: environment::world_name(&self.options.run, call.task, call.attempt),
            here: nodes
                .iter()
                .position(|node| node.agent == part.at.agent)
                .unwrap_or(usize::MAX),
            nodes,
        }
    }

    fn tell_bound(&self, task: u64, family: Option<Family>, ranks: Vec<RankBound>) {
        let attempt = self.gangs.parts.get(&task).map_or(0, |part| part.given.call.attempt);
        let mpi = match family {
            Some(Family::Mpich) => "MPICH (PMI-1)",
            Some(Family::OpenMpi) => "Open MPI (PMIx)",
            None => "",
        };
        self.tell(AgentToHead::Bound(RanksBound {
            task,
            attempt,
            mpi: mpi.to_owned(),
            ranks,
        }));
    }

    fn start_rank(
        &mut self,
        task: u64,
        bound: &RankBound,
        processors: Vec<u32>,
        (around, common): (&Arc<Surroundings>, &[(String, String)]),
    ) -> Result<(), Failure> {
        let Some(part) = self.gangs.parts.get_mut(&task) else {
            return Ok(());
        };
        let number = bound.rank;
        let setup = match &mut part.boot {
            Some(boot) => boot.setup(number).map_err(|error| mpi::trouble(error.to_string()))?,
            None => RankSetup {
                set: Vec::new(),
                fd: None,
            },
        };
        let network = bound.network.contains(':').then_some(bound.network.as_str());
        let mut env = common.to_vec();
        env.extend(environment::of_rank(number, part.at.first, network));
        env.extend(setup.set);
        let call = rank_call(&part.given.call, bound);
        let is_function = part.is_function();
        let (fd_name, fd) = setup.fd.unzip();
        if let Some(variable) = fd_name.as_ref().filter(|_| !is_function) {
            env.push((variable.clone(), EXTRA_FDS[0].to_string()));
        }
        let start = RankStart {
            rank: number,
            env,
            fd,
            fd_name,
            processors: processors.clone(),
            named: part.size > 1,
        };
        let process = if is_function {
            RankProcess::Forking(Box::new(self.fork_rank(call, start, &around.env)?))
        } else {
            RankProcess::Program(self.programs.start_rank(call, start, around.clone()))
        };
        if let Some(part) = self.gangs.parts.get_mut(&task) {
            // A share of processors is nobody's own.
            let whole = cpu_millis(&part.given.call) == 1000 * processors.len() as u64;
            let processors = if whole { processors } else { Vec::new() };
            self.gangs.bound.extend(&processors);
            part.ranks.push(Rank::new(number, process, processors));
        }
        Ok(())
    }
}

/// Parts with a name each. Agents that share a machine have the same host name, and an MPI that knows its nodes by their names would
/// take the ranks of both for neighbours: Open MPI then looks for some of them in memory that is the others' only.
fn apart(parts: impl Iterator<Item = NodePart>) -> Vec<NodePart> {
    let mut taken = std::collections::HashSet::new();
    let named = |mut part: NodePart| {
        if !taken.insert(part.host.clone()) {
            part.host = format!("{}.agent{}", part.host, part.agent);
        }
        part
    };
    parts.map(named).collect()
}

/// The part's call as one rank gets it.
fn rank_call(call: &TaskCall, bound: &RankBound) -> TaskCall {
    let mut call = call.clone();
    call.devices.clone_from(&bound.gpus);
    if let Some(gang) = &mut call.gang {
        gang.rank = bound.rank;
    }
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_on_one_host_have_names_of_their_own() {
        let part = |(agent, host): (u32, &str)| NodePart {
            agent,
            host: host.to_owned(),
            first: agent,
            count: 1,
        };
        let parts = [(0, "vm"), (1, "vm"), (2, "n2"), (3, "vm")].into_iter().map(part);
        let hosts: Vec<_> = apart(parts).into_iter().map(|part| part.host).collect();
        assert_eq!(hosts, ["vm", "vm.agent1", "n2", "vm.agent3"]);
    }
}
