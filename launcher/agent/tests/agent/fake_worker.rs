//! A worker that speaks the protocol and does what its "function" says: the code is the name of a behaviour.

use bridgehead_wire::{
    AgentToWorker, Blocked, FileRef, Frames, LogText, Outcome, PutFunction, ReturnedTasks, TaskCall, TaskDone,
    TaskSubmit, Value, WorkerReady, WorkerToAgent, outcome, value,
};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

struct Worker {
    stream: UnixStream,
    frames: Frames,
    queue: VecDeque<AgentToWorker>,
    functions: HashMap<u32, String>,
    allocation_end_ns: u64,
    run_dir: PathBuf,
}

/// Started by an agent as if it were Python.
#[test]
#[ignore = "a process of other tests"]
fn as_worker() {
    let Ok(fd) = std::env::var("BRIDGEHEAD_WORKER_FD") else {
        return;
    };
    assert_eq!(std::env::var("ARGS").as_deref(), Ok("-m bridgehead._worker"));
    let fd = fd.parse().expect("a number");
    // SAFETY: the agent made this descriptor for this process, and nothing else here uses it.
    #[allow(unsafe_code)]
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    stream.set_nonblocking(false).expect("a socket");
    let mut worker = Worker {
        stream,
        frames: Frames::new(),
        queue: VecDeque::new(),
        functions: HashMap::new(),
        allocation_end_ns: 0,
        run_dir: PathBuf::new(),
    };
    let Some(AgentToWorker::Config(config)) = worker.next() else {
        return;
    };
    eprintln!("worker {} is up", config.worker);
    worker.allocation_end_ns = config.allocation_end_ns;
    worker.run_dir = PathBuf::from(&config.run_dir);
    let (pid, python) = (std::process::id(), "3.11".to_owned());
    worker.say(WorkerReady { pid, python });
    while let Some(message) = worker.next() {
        match message {
            AgentToWorker::Call(call) => worker.call(&call),
            AgentToWorker::Shutdown(_) => return,
            _ => {}
        }
    }
}

impl Worker {
    fn say(&mut self, message: impl Into<WorkerToAgent>) {
        let mut bytes = Vec::new();
        message.into().encode(&mut bytes);
        self.stream.write_all(&bytes).expect("the agent listens");
    }

    /// The next message that is no function: a function is taken in wherever the worker happens to read, also in the middle
    /// of a call, because it is sent only once.
    fn next(&mut self) -> Option<AgentToWorker> {
        loop {
            match self.read()? {
                AgentToWorker::PutFunction(put) => {
                    let code = String::from_utf8(put.code.to_vec()).expect("text");
                    self.functions.insert(put.index, code);
                }
                other => return Some(other),
            }
        }
    }

    fn read(&mut self) -> Option<AgentToWorker> {
        while self.queue.is_empty() {
            let n = self.stream.read(self.frames.space(4096)).ok()?;
            if n == 0 {
                return None;
            }
            self.frames.filled(n);
            while let Some((kind, body)) = self.frames.next_frame().expect("frames") {
                self.queue
                    .push_back(AgentToWorker::decode(kind, body).expect("a message"));
            }
        }
        self.queue.pop_front()
    }

    /// What the real worker does when a call runs long.
    fn give_back(&mut self) {
        let limit = Some(Duration::from_millis(5));
        self.stream.set_read_timeout(limit).expect("a limit");
        let mut tasks = Vec::new();
        while let Some(message) = self.next() {
            if let AgentToWorker::Call(call) = message {
                tasks.push(call.task);
            }
        }
        self.stream.set_read_timeout(None).expect("no limit");
        if !tasks.is_empty() {
            self.say(ReturnedTasks { tasks });
        }
    }

    fn done(&mut self, call: &TaskCall, text: &str) {
        let outcome = Some(Outcome::value(Value::inline(Bytes::copy_from_slice(text.as_bytes()))));
        let (task, attempt) = (call.task, call.attempt);
        self.say(TaskDone {
            task,
            attempt,
            outcome,
            ..TaskDone::default()
        });
    }

    /// What a file of the run folder says, or that it is not there.
    fn text_of(&self, file: &FileRef) -> String {
        std::fs::read_to_string(self.run_dir.join(&file.path)).unwrap_or_else(|e| e.to_string())
    }

    fn call(&mut self, call: &TaskCall) {
        let code = self.functions.get(&call.function).cloned().unwrap_or_default();
        let argument = match call.args.as_ref().and_then(|v| v.kind.clone()) {
            Some(value::Kind::Inline(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Some(value::Kind::File(file)) => self.text_of(&file),
            _ => String::new(),
        };
        match code.as_str() {
            "echo" => self.done(call, &argument),
            "pid" => self.done(call, &std::process::id().to_string()),
            "variable" => self.done(call, &std::env::var(&argument).unwrap_or_default()),
            "end of the allocation" => self.done(call, &self.allocation_end_ns.to_string()),
            "devices" => self.done(call, &format!("{:?}", call.devices)),
            "exit" => std::process::exit(argument.parse().expect("a number")),
            "abort" => {
                eprintln!("about to abort");
                std::process::abort();
            }
            "kill" => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
            "nonsense" => self.stream.write_all(&[0xff; 64]).expect("the agent listens"),
            "hang" => loop {
                self.give_back();
            },
            "until" => {
                while !std::path::Path::new(&argument).exists() {
                    self.give_back();
                }
                self.done(call, "there");
            }
            "say" => {
                self.say(LogText {
                    task: call.task,
                    attempt: call.attempt,
                    stream: "stdout".to_owned(),
                    text: argument,
                });
                self.done(call, "said");
            }
            "leave-child" => {
                let child = std::process::Command::new("setsid").args(["sleep", "1000"]).spawn();
                self.done(call, &child.expect("a child").id().to_string());
            }
            "submit" => self.submit(call, &argument),
            other => panic!("no such behaviour: {other:?}"),
        }
    }

    /// Adds a task and waits for it.
    fn submit(&mut self, call: &TaskCall, argument: &str) {
        let code = Bytes::from_static(b"echo");
        let digest = Bytes::copy_from_slice(&bridgehead_spec::Digest::of(&code).0);
        let (index, name) = (7, "echo".to_owned());
        self.say(PutFunction {
            index,
            digest,
            name,
            code,
        });
        self.say(TaskSubmit {
            token: 1,
            function: 7,
            args: Some(Value::inline(Bytes::copy_from_slice(argument.as_bytes()))),
            parent: Some(call.task),
            ..TaskSubmit::default()
        });
        let task = call.task;
        self.say(Blocked { task, blocked: true });
        loop {
            match self.next() {
                Some(AgentToWorker::Outcome(o)) => {
                    let text = match o.outcome.and_then(|o| o.kind) {
                        Some(outcome::Kind::Value(Value {
                            kind: Some(value::Kind::File(file)),
                            ..
                        })) => self.text_of(&file),
                        Some(outcome::Kind::Value(v)) => format!("{v:?}"),
                        other => format!("{other:?}"),
                    };
                    assert_eq!(o.token, 1);
                    self.say(Blocked { task, blocked: false });
                    return self.done(call, &text);
                }
                Some(AgentToWorker::Call(call)) => self.say(ReturnedTasks { tasks: vec![call.task] }),
                Some(_) => {}
                None => return,
            }
        }
    }
}
