//! Ranks that are functions: each is a fork that becomes a worker of its own, with one call. Owns the time between the question and the
//! process.

use super::{Agent, Event, GRACE, RankProcess, mpi};
use crate::calls::{Given, threads};
use crate::environment::Environment;
use crate::forks::{Fork, Forks, Server};
use crate::ranks::RankStart;
use crate::spawn::Process;
use bridgehead_spec::Resources;
use bridgehead_wire::{Failure, Outcome, TaskCall};
use std::fs::OpenOptions;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// A rank that was asked for.
#[derive(Debug)]
pub(super) struct Forking {
    worker: u32,
    call: TaskCall,
    socket: UnixStream,
    log: PathBuf,
}

impl Agent {
    /// Asks for a process for a rank.
    pub(super) fn fork_rank(
        &mut self,
        call: TaskCall,
        start: RankStart,
        env: &Environment,
    ) -> Result<Forking, Failure> {
        let trouble = |what: &str, e: std::io::Error| mpi::trouble(format!("cannot start a rank: {what}: {e}"));
        let worker = self.next_worker;
        self.next_worker += 1;
        let log = self.options.folder.worker_log(self.options.agent.0, worker);
        let file = OpenOptions::new().append(true).create(true).open(&log);
        let file = file.map_err(|e| trouble(&log.display().to_string(), e))?;
        let (socket, theirs) = UnixStream::pair().map_err(|e| trouble("a socket", e))?;
        socket.set_nonblocking(true).map_err(|e| trouble("its socket", e))?;
        let (events, task, attempt, rank) = (self.events.clone(), call.task, call.attempt, start.rank);
        let fork = Fork {
            start,
            socket: theirs,
            log: file,
            answer: Box::new(move |forked| {
                let _ = events.send(Event::Forked(task, attempt, rank, forked)); // The loop is gone only at the end.
            }),
        };
        self.forks(env).map_err(|e| trouble("a thread", e))?.fork(fork);
        Ok(Forking {
            worker,
            call,
            socket,
            log,
        })
    }

    /// The way to the process that ranks are forked from, which is started with the first one.
    fn forks(&mut self, env: &Environment) -> std::io::Result<&Forks> {
        if self.gangs.forks.is_none() {
            let mut env = env.clone();
            env.unset("PYTHONUNBUFFERED"); // Each print of a rank would be a system call.
            let agent = self.options.agent.0;
            self.gangs.forks = Some(Forks::open(Server {
                python: self
                    .welcome
                    .as_ref()
                    .map(|welcome| welcome.python.clone())
                    .unwrap_or_default(),
                cwd: self.surroundings.cwd.clone(),
                env,
                log: self.options.folder.logs().join(format!("forks-{agent}.log")),
            })?);
        }
        self.gangs
            .forks
            .as_ref()
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    /// A rank's process is there, or cannot be had. It is given its call at once, unless its gang ends already.
    pub(in crate::agent) fn on_forked(&mut self, task: u64, attempt: u32, rank: u32, forked: Result<Process, String>) {
        let part = self
            .gangs
            .parts
            .get_mut(&task)
            .filter(|part| part.given.call.attempt == attempt);
        let Some(part) = part else { return }; // Its end waits for this, so it is there.
        let ends = part.end.is_some();
        let Some(here) = part.rank(rank) else { return };
        let RankProcess::Forking(forking) = std::mem::replace(&mut here.process, RankProcess::Ended) else {
            return;
        };
        let taken = forked.and_then(|process| self.employ(*forking, process, (task, rank)));
        match taken {
            Ok(id) => {
                if let Some(here) = self.gangs.parts.get_mut(&task).and_then(|part| part.rank(rank)) {
                    here.process = RankProcess::Worker(id);
                }
                if let Some(worker) = self.workers.get_mut(&id).filter(|_| ends) {
                    worker.kill(Outcome::cancelled("its gang ends"));
                }
            }
            Err(reason) => {
                self.fail_part(task, mpi::trouble(format!("cannot start rank {rank}: {reason}")));
                self.close_if_ended(task);
            }
        }
    }

    /// The process becomes a worker for this rank alone.
    fn employ(&mut self, forking: Forking, process: Process, rank: (u64, u32)) -> Result<u32, String> {
        let Forking {
            worker: id,
            call,
            socket,
            log,
        } = forking;
        self.take_in(id, process, socket, log, threads(&call), GRACE)?;
        let given = Given {
            call,
            holds: Resources::zero(),
            devices: Vec::new(),
            small: false,
        };
        self.give(id, given);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.rank = Some(rank);
            worker.deadline = None; // The gang's limit is its part's.
            worker.told = true;
        }
        Ok(id)
    }
}
