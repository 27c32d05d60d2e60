//! A head of two channels, a run folder that goes away, and the proof that nothing is left behind.

use bridgehead_agent::{AgentEnd, AgentOptions, FarFolder, Link, run, sweep};
use bridgehead_spec::{AgentId, Digest, Resources, RunFolder};
use bridgehead_topology::NumaNode;
use bridgehead_wire::{
    AgentToHead, AgentWelcome, Failure, HeadToAgent, Outcome, Pair, ProgramCall, ProgramResult, PutFunction, Shutdown,
    TaskCall, TaskDone, outcome, value,
};
use bytes::Bytes;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, LocalSet};

/// No case takes nearly as long.
const LIMIT: Duration = Duration::from_secs(60);

/// How a case wants its agent.
pub struct Wish {
    pub resources: Resources,
    pub python: Option<String>,
    /// The machine's NUMA nodes.
    pub numa: Vec<NumaNode>,
    /// The head's run folder, where it is another one than the agent's.
    pub far: Option<Arc<dyn FarFolder>>,
}

impl Default for Wish {
    fn default() -> Self {
        let resources = Resources {
            cpu_millis: 2000,
            ..Resources::default()
        };
        Self {
            resources,
            python: None,
            numa: Vec::new(),
            far: None,
        }
    }
}

/// The head's side of a run.
pub struct Head {
    pub dir: tempfile::TempDir,
    pub to_agent: UnboundedSender<HeadToAgent>,
    pub from_agent: UnboundedReceiver<AgentToHead>,
    /// Messages that were passed by while waiting for another one.
    pub others: Vec<AgentToHead>,
    done: HashMap<u64, TaskDone>,
    agent: JoinHandle<Result<AgentEnd, bridgehead_agent::AgentError>>,
    incarnation: String,
}

/// Runs `case` against an agent and proves that the agent ends and leaves no process behind.
pub fn check(wish: Wish, case: impl AsyncFnOnce(&mut Head)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let mut head = Head::start(&wish);
        tokio::time::timeout(LIMIT, case(&mut head))
            .await
            .expect("the case ends in time");
        let reason = "the case is over".to_owned();
        let _ = head.to_agent.send(
            Shutdown {
                reason: reason.clone(),
                goes_on: false,
            }
            .into(),
        ); // A case may have ended it already.
        let end = tokio::time::timeout(LIMIT, head.agent).await;
        let end = end
            .expect("the agent ends in time")
            .expect("no panic")
            .expect("no error");
        assert!(!end.reason.is_empty());
        assert_eq!(sweep(&head.incarnation), 0, "processes were left behind");
    });
}

/// A program that stands in for another one: runs the ignored test `name` of this very file.
pub fn stand_in(dir: &Path, name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("this program has a path");
    std::fs::write(dir.join("this"), format!("{}\n", this.display())).expect("a file");
    let path = dir.join(name);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/stand-in.sh");
    std::os::unix::fs::symlink(script, &path).expect("a link");
    path
}

/// Options for an agent with all its folders in `dir`.
pub fn options(dir: &Path, incarnation: &str, resources: &Resources) -> AgentOptions {
    let folder = RunFolder::new(dir.join("run"));
    let socket_dir = dir.join("sockets");
    for path in [
        folder.logs(),
        folder.path().join("blobs"),
        socket_dir.clone(),
        dir.join("work"),
    ] {
        std::fs::create_dir_all(path).expect("folders can be made");
    }
    AgentOptions {
        agent: AgentId(0),
        folder,
        resources: resources.clone(),
        store_limit: 40 << 20,
        verify_objects: false,
        gpu_memory: bridgehead_store_gpu::devices(resources.gpus, 16 << 20),
        topology: bridgehead_topology::Topology::default(),
        incarnation: incarnation.to_owned(),
        socket_dir,
        reaper: stand_in(dir, "leftovers::as_reaper"),
        ticket: Vec::new(),
        run: "test".to_owned(),
        host: "here".to_owned(),
        fabric: bridgehead_agent::FabricMaker(Box::new(|_, _| Err("a case has no network".to_owned()))),
        known: None,
        far: None,
    }
}

/// What the head says to a new agent.
pub fn welcome(dir: &Path, python: Option<&str>) -> AgentWelcome {
    let worker = || stand_in(dir, "fake_worker::as_worker").display().to_string();
    AgentWelcome {
        run: "test".to_owned(),
        run_dir: dir.join("run").display().to_string(),
        python: python.map_or_else(worker, str::to_owned),
        cwd: dir.join("work").display().to_string(),
        inline_limit: 16 << 10,
        allocation_end_ns: 7,
        env: vec![Pair {
            key: "OF_THE_RUN".to_owned(),
            value: "yes".to_owned(),
        }],
        ..AgentWelcome::default()
    }
}

/// A random name.
pub fn incarnation() -> String {
    let path = tempfile::TempDir::new().expect("a folder");
    let name = path
        .path()
        .file_name()
        .expect("it has a name")
        .to_string_lossy()
        .into_owned();
    format!("{name}-{}", std::process::id())
}

impl Head {
    fn start(wish: &Wish) -> Self {
        let dir = tempfile::TempDir::new().expect("a folder");
        let incarnation = incarnation();
        let (to_agent, from_head) = unbounded_channel();
        let (to_head, from_agent) = unbounded_channel();
        let mut options = options(dir.path(), &incarnation, &wish.resources);
        options.topology.numa.clone_from(&wish.numa);
        options.far.clone_from(&wish.far);
        let agent = tokio::task::spawn_local(run(options, Link { to_head, from_head }));
        let _ = to_agent.send(welcome(dir.path(), wish.python.as_deref()).into());
        Self {
            dir,
            to_agent,
            from_agent,
            others: Vec::new(),
            done: HashMap::new(),
            agent,
            incarnation,
        }
    }

    pub fn send(&self, message: impl Into<HeadToAgent>) {
        self.to_agent.send(message.into()).expect("the agent listens");
    }

    /// Where programs and workers run.
    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Teaches the agent a function of the fake worker.
    pub fn function(&self, index: u32, code: &str) {
        self.send(PutFunction {
            index,
            digest: Bytes::copy_from_slice(&Digest::of(code.as_bytes()).0),
            name: code.to_owned(),
            code: Bytes::copy_from_slice(code.as_bytes()),
        });
    }

    /// The next message of the agent that `pick` takes; others are kept aside.
    pub async fn wait<T>(&mut self, mut pick: impl FnMut(&AgentToHead) -> Option<T>) -> T {
        loop {
            let message = self.from_agent.recv().await.expect("the agent is there");
            if let Some(found) = pick(&message) {
                return found;
            }
            if let AgentToHead::Done(done) = message {
                self.done.insert(done.task, done);
            } else {
                self.others.push(message);
            }
        }
    }

    /// How a task ended.
    pub async fn done(&mut self, task: u64) -> TaskDone {
        if let Some(done) = self.done.remove(&task) {
            return done;
        }
        self.wait(|message| match message {
            AgentToHead::Done(done) if done.task == task => Some(done.clone()),
            _ => None,
        })
        .await
    }

    /// That a task has been running for a while.
    pub async fn started(&mut self, task: u64) {
        self.wait(|message| matches!(message, AgentToHead::Started(s) if s.task == task).then_some(()))
            .await;
    }

    pub async fn failure(&mut self, task: u64) -> Failure {
        match self.done(task).await.outcome.and_then(|o| o.kind) {
            Some(outcome::Kind::Failure(failure)) => failure,
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    pub async fn program(&mut self, task: u64) -> ProgramResult {
        match kind_of(self.done(task).await.outcome) {
            value::Kind::Program(result) => result,
            other => panic!("expected a program's result, got {other:?}"),
        }
    }

    /// The inline value of a task, as text.
    pub async fn text(&mut self, task: u64) -> String {
        match kind_of(self.done(task).await.outcome) {
            value::Kind::Inline(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            other => panic!("expected an inline value, got {other:?}"),
        }
    }

    pub async fn cancelled(&mut self, task: u64) -> String {
        match self.done(task).await.outcome.and_then(|o| o.kind) {
            Some(outcome::Kind::Cancelled(reason)) => reason,
            other => panic!("expected a cancelled task, got {other:?}"),
        }
    }
}

fn kind_of(outcome: Option<Outcome>) -> value::Kind {
    match outcome.and_then(|o| o.kind) {
        Some(outcome::Kind::Value(value)) => value.kind.expect("a value has a kind"),
        other => panic!("expected a value, got {other:?}"),
    }
}

/// A call of a shell line as a program.
pub fn shell(task: u64, line: &str) -> TaskCall {
    program(task, &["/bin/sh", "-c", line])
}

/// A call of a program.
pub fn program(task: u64, argv: &[&str]) -> TaskCall {
    TaskCall {
        task,
        attempt: 1,
        program: Some(ProgramCall {
            argv: argv.iter().map(|&a| a.to_owned()).collect(),
            ..ProgramCall::default()
        }),
        ..TaskCall::default()
    }
}

/// A call of a function with a text as its argument.
pub fn call(task: u64, function: u32, argument: &str) -> TaskCall {
    TaskCall {
        task,
        attempt: 1,
        function,
        args: Some(bridgehead_wire::Value::inline(Bytes::copy_from_slice(
            argument.as_bytes(),
        ))),
        ..TaskCall::default()
    }
}
