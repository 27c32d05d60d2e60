//! The head's loop: takes events in batches, lets the core decide, commits the journal, then sends. Nothing is sent before
//! the records that it follows from are with the kernel. Hot path: `Head::turn`, once a batch.

use crate::connection::Event;
use crate::core::{ConnId, Core, Effects};
use crate::gang::JoinWait;
use crate::journal::{self, RunStarted, Writer};
use crate::listen::listen;
use crate::options::{AgentLink, HeadError, HeadOptions, RunOutcome, io_error};
use crate::server::{self, ConnIds};
use crate::silence::Silence;
use crate::state::RunState;
use crate::syncer::Syncer;
use crate::tls;
use bridgehead_plan::LaunchPlan;
use bridgehead_spec::{HeadInfo, RunConfig, RunFolder};
use bridgehead_wire::{AgentJoin, AgentToHead, HeadToAgent, HeadToClient, Heartbeat, Refused};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Runs the head until the run has ended. Must be called inside a `LocalSet`.
///
/// # Errors
/// The journal, the pipeline or the system forbid to begin. Once begun, failures are the run's outcome.
pub async fn run(options: HeadOptions) -> Result<RunOutcome, HeadError> {
    let signals = Signals::listen(options.allocation.is_some())?; // Before anything that must not be left half done.
    let (events, queue) = unbounded_channel();
    let mut head = Head::start(&options, events).await?;
    let wait = JoinWait::new(&options.config, &options.expected_hosts);
    let driven = head.drive(options.agent0, queue, signals, wait).await;
    let ended = driven.and_then(|outcome| head.finish().map(|()| outcome));
    if let Err(error) = &ended {
        head.say_why(error);
        for _ in 0..WRITER_TURNS {
            tokio::task::yield_now().await; // The connections' writers run beside this task, and end with the process.
        }
    }
    ended
}

/// What the system, or a scheduler by way of it, says to the head.
struct Signals {
    /// The head is to go.
    term: Signal,
    /// The allocation is about to end.
    notice: Option<Signal>,
}

impl Signals {
    fn listen(allocated: bool) -> Result<Self, HeadError> {
        let listen = |kind, name: &str| signal(kind).map_err(io_error("listen for", name.into()));
        let notice = allocated.then(|| listen(SignalKind::user_defined1(), "SIGUSR1"));
        Ok(Self {
            term: listen(SignalKind::terminate(), "SIGTERM")?,
            notice: notice.transpose()?,
        })
    }

    async fn notice(notice: &mut Option<Signal>) {
        match notice {
            Some(notice) => _ = notice.recv().await,
            None => std::future::pending().await,
        }
    }
}

enum Out {
    Local(UnboundedSender<HeadToAgent>),
    Remote(UnboundedSender<Vec<u8>>),
}

struct Head {
    core: Core,
    journal: Writer,
    syncer: Syncer,
    clients: HashMap<ConnId, UnboundedSender<Vec<u8>>>,
    agents: HashMap<u32, Out>,
    /// Which agent speaks over which connection. One that came a second time has none, so that nothing it says counts.
    agent_conns: HashMap<ConnId, u32>,
    silence: Silence,
    store_socket: String,
    folder: RunFolder,
    run_dir: String,
    remote_buffers: BTreeMap<u32, Vec<u8>>,
    client_buffers: HashMap<ConnId, Vec<u8>>,
    changed: bool,
    had_client: bool,
    started: std::time::Instant,
    allocated: bool,
    /// Ticks until it looks whether another head took over.
    look: u32,
    /// Ticks so far.
    ticks: u32,
}

/// Turns that the writers of connections get to send a head's last words.
const WRITER_TURNS: u32 = 32;
/// How long an attached run that is over waits for the client that started it.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// Ticks between two signs of life to agents of other nodes, which take a head for lost after six of them.
const BEAT_EVERY: u32 = 50;
/// Ticks between two looks at the run folder, and two snapshots, where it lies on a shared file system.
const RARELY: u32 = 5;
/// Ticks after which the snapshot is written even if nothing has changed, where the head's node may be lost.
const SHOW_EVERY: u32 = 100;
/// Ticks between two looks for a newer journal segment.
const LOOK_EVERY: u32 = 10;
/// A scheduler that takes an allocation kills what is left after some seconds; the head is gone before, nanoseconds.
const GRACE_NS: u64 = 2_000_000_000;

impl Head {
    async fn start(o: &HeadOptions, events: UnboundedSender<Event>) -> Result<Self, HeadError> {
        refuse_second(o)?;
        let (state, attempt) = replay(&o.folder, &o.config)?;
        let journal = Writer::create(&o.folder.journal(), attempt)?;
        let mut core = Core::new(o.config.clone(), state, tls::random()?, now_ns());
        core.set_allocation(o.allocation);
        if let Some(gang) = o.gang {
            core.set_gang(read_plan(&o.folder)?, gang);
        }
        core.load(&o.folder, attempt)?;
        core.look_at_time(); // Before anything starts.
        let addresses = listen(o, attempt, events.clone()).await?;
        let socket = o.socket_dir.join("head.sock");
        let listener = server::bind_clients(&socket).map_err(io_error("listen on", socket.clone()))?;
        tokio::task::spawn_local(server::accept_clients(listener, ConnIds::default(), events));
        let info = HeadInfo {
            version: 1,
            pid: std::process::id(),
            host: o.host.clone(),
            attempt,
            socket,
            address: addresses.first().cloned().unwrap_or_default(),
            addresses,
        };
        let text = serde_json::to_vec(&info).expect("plain data can be written");
        write_whole(o.folder.head(), &text)?;
        if o.listen.is_loopback() {
            let _ = std::fs::remove_file(o.folder.client_ticket()); // An earlier attempt's lets nobody in any more.
        }
        Ok(Self {
            core,
            journal,
            syncer: Syncer::start(),
            clients: HashMap::new(),
            agents: HashMap::new(),
            agent_conns: HashMap::new(),
            silence: Silence::default(),
            store_socket: o.store_socket.display().to_string(),
            run_dir: o.folder.path().display().to_string(),
            folder: o.folder.clone(),
            remote_buffers: BTreeMap::new(),
            client_buffers: HashMap::new(),
            changed: true,
            had_client: false,
            started: std::time::Instant::now(),
            allocated: o.allocation.is_some(),
            look: LOOK_EVERY,
            ticks: 0,
        })
    }

    async fn drive(
        &mut self,
        link: AgentLink,
        mut queue: UnboundedReceiver<Event>,
        mut signals: Signals,
        mut wait: JoinWait,
    ) -> Result<RunOutcome, HeadError> {
        let AgentLink {
            to_agent,
            mut from_agent,
        } = link;
        self.agents.insert(0, Out::Local(to_agent));
        let mut batch = Vec::with_capacity(1024);
        let mut local = Vec::with_capacity(1024);
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.flush()?;
        loop {
            tokio::select! {
                biased;
                n = from_agent.recv_many(&mut local, 1024) => {
                    if n == 0 {
                        self.core.on_agent_lost(0, "the agent in the head's process ended");
                        self.agents.remove(&0);
                        from_agent = never();
                    }
                    self.core.set_now(now_ns());
                    for message in local.drain(..) {
                        self.on_local(message);
                    }
                }
                _ = queue.recv_many(&mut batch, 1024) => {
                    self.core.set_now(now_ns());
                    for event in batch.drain(..) {
                        self.on_event(event);
                    }
                }
                _ = signals.term.recv() => self.on_term(),
                () = Signals::notice(&mut signals.notice) => {
                    self.core.set_now(now_ns());
                    self.core.on_notice();
                }
                _ = tick.tick() => {
                    self.core.set_now(now_ns());
                    self.on_tick(&mut wait);
                }
            }
            self.turn()?;
            if self.core.is_over() && self.may_leave() {
                return Ok(self.outcome());
            }
        }
    }

    fn on_local(&mut self, message: AgentToHead) {
        if let AgentToHead::Join(join) = message {
            self.core.on_join(join, &self.run_dir);
        } else {
            self.core.on_agent(0, message);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::ClientCame { conn, out } => {
                self.clients.insert(conn, out);
            }
            Event::Client(conn, bridgehead_wire::ClientToHead::Hello(hello)) => {
                self.had_client |= hello.owner;
                self.core.on_client(conn, &hello, &self.store_socket);
            }
            Event::Client(conn, message) => self.core.on_message(conn, message),
            Event::ClientGone(conn) => {
                self.clients.remove(&conn);
                self.core.on_client_gone(conn);
            }
            Event::AgentCame { conn, agent, join, out } => self.on_agent_came(conn, agent, join, out),
            Event::Agent(conn, message) => {
                if let Some(&agent) = self.agent_conns.get(&conn) {
                    self.silence.heard(agent);
                    self.core.on_agent(agent, message);
                }
            }
            Event::AgentGone(conn, reason) => {
                if let Some(agent) = self.agent_conns.remove(&conn) {
                    self.lose(agent, &reason);
                }
            }
        }
    }

    /// An agent is gone, or is taken for gone: dropping its sender closes its connection, which ends it if it lives.
    fn lose(&mut self, agent: u32, reason: &str) {
        self.agents.remove(&agent);
        self.silence.forget(agent);
        self.agent_conns.retain(|_, other| *other != agent);
        self.core.on_agent_lost(agent, reason);
    }

    fn on_agent_came(&mut self, conn: ConnId, agent: u32, join: AgentJoin, out: UnboundedSender<Vec<u8>>) {
        if let Entry::Vacant(place) = self.agents.entry(agent) {
            place.insert(Out::Remote(out));
            self.agent_conns.insert(conn, agent);
            self.silence.heard(agent);
            self.core.on_join(join, &self.run_dir);
            return;
        }
        tracing::warn!(agent, "refused an agent: its rank is here already");
        let mut bytes = Vec::new();
        HeadToAgent::from(Refused {
            kind: "rank".to_owned(),
            message: format!("agent {agent} of this run is here already"),
        })
        .encode(&mut bytes);
        let _ = out.send(bytes); // It may have gone by itself.
    }

    /// One turn: decide, commit, send.
    fn turn(&mut self) -> Result<(), HeadError> {
        for agent in self.core.take_unreachable() {
            if self.silence.confirms(agent) {
                let seconds = crate::silence::SUSPECT_SECONDS;
                self.lose(
                    agent,
                    &format!("another node could not reach it, and it said nothing for {seconds} s"),
                );
            }
        }
        self.core.sweep_failed();
        self.core.assign();
        self.core.sweep_failed();
        if self.core.end_if_done() {
            self.changed = true;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), HeadError> {
        let Effects {
            blobs,
            records,
            agents,
            clients,
        } = self.core.take_effects();
        for (digest, code) in blobs {
            if self.core.is_superseded() {
                break; // The folder is another head's.
            }
            write_whole(self.folder.blob(&digest), &code)?;
        }
        if !records.is_empty() {
            self.changed = true;
            for record in &records {
                self.journal.push(record);
            }
            self.journal.commit()?;
            self.syncer.offer(&mut self.journal);
        }
        for (agent, message) in agents {
            match self.agents.get(&agent) {
                Some(Out::Local(sender)) => {
                    let _ = sender.send(message); // A gone agent is noticed by its receiver.
                }
                Some(Out::Remote(_)) => message.encode(self.remote_buffers.entry(agent).or_default()),
                None => {}
            }
        }
        while let Some((agent, bytes)) = self.remote_buffers.pop_first() {
            if let Some(Out::Remote(sender)) = self.agents.get(&agent) {
                let _ = sender.send(bytes);
            }
        }
        self.send_clients(clients);
        Ok(())
    }

    fn send_clients(&mut self, messages: Vec<(ConnId, HeadToClient)>) {
        for (conn, message) in messages {
            message.encode(self.client_buffers.entry(conn).or_default());
        }
        for (conn, bytes) in self.client_buffers.drain() {
            if let Some(sender) = self.clients.get(&conn) {
                let _ = sender.send(bytes);
            }
        }
    }

    /// SIGTERM: from a scheduler that takes the allocation, or from somebody who wants the run to end.
    fn on_term(&mut self) {
        self.core.set_now(now_ns());
        if !self.allocated {
            return self.core.cancel_all("the head was told to end (SIGTERM)");
        }
        self.take_requests(); // Who cancels a run has its job ended too.
        self.core.on_taken(GRACE_NS);
    }

    fn take_requests(&mut self) {
        for request in crate::mailbox::take(&self.folder) {
            self.core.cancel_all(&request.reason);
        }
    }

    /// A head whose node was cut off and came back may find that the run goes on elsewhere.
    fn look_for_successor(&mut self) {
        self.look -= 1;
        if self.look > 0 {
            return;
        }
        self.look = LOOK_EVERY;
        let newest = journal::attempts(&self.folder.journal())
            .ok()
            .and_then(|all| all.last().copied());
        if let Some(newest) = newest.filter(|&newest| newest > self.core.state().attempt) {
            self.core.supersede(newest);
        }
    }

    fn on_tick(&mut self, wait: &mut JoinWait) {
        self.look_for_successor();
        if self.core.is_superseded() {
            return;
        }
        self.beat();
        for agent in self.silence.tick() {
            self.lose(agent, &format!("it said nothing for {} s", crate::silence::SECONDS));
        }
        if let Some(missing) = wait.overdue(self.core.agents().keys().copied()) {
            tracing::error!(missing, "the gang is not whole");
            self.core.fail_all(&missing);
        }
        // The run folder of an allocation lies on a file system that all nodes share, and that is not to be asked all the time.
        let rarely = self.allocated && self.ticks > 10 * RARELY && !self.ticks.is_multiple_of(RARELY);
        if !rarely {
            self.take_requests();
        }
        self.core.give_up_fetches();
        self.core.look_at_time();
        self.syncer.offer(&mut self.journal);
        self.changed |= self.core.take_shown_changed();
        if self.changed {
            self.core.send_progress();
        }
        if !rarely && std::mem::take(&mut self.changed) {
            self.write_status();
        }
    }

    /// Agents of other nodes hear from time to time that the head lives, and on a shared file system everybody sees it.
    fn beat(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(BEAT_EVERY) {
            for (&agent, out) in &self.agents {
                if matches!(out, Out::Remote(_)) {
                    let bytes = self.remote_buffers.entry(agent).or_default();
                    HeadToAgent::from(Heartbeat::default()).encode(bytes);
                }
            }
        }
        self.changed |= self.allocated && self.ticks.is_multiple_of(SHOW_EVERY);
    }

    /// The journal has what counts, so a snapshot that cannot be written is no reason to stop.
    fn write_status(&self) {
        let status = crate::status::snapshot(&self.core).to_string();
        if let Err(error) = write_whole(self.folder.status(), status.as_bytes()) {
            tracing::warn!(%error, "cannot write the status snapshot");
        }
    }

    /// An attached run stays after its end for as long as its client does: results lie in its store.
    fn may_leave(&self) -> bool {
        if self.core.state().paused.is_some() {
            return true; // The allocation does not wait.
        }
        let held = self.core.config().attached && self.core.config().has_pipeline;
        // A run can be over before its client has connected; one that never does must not keep the head for ever.
        let awaited = !self.had_client && self.started.elapsed() < CLIENT_PATIENCE && !self.core.is_cancelling();
        !(held && (self.core.has_clients() || awaited))
    }

    fn outcome(&self) -> RunOutcome {
        let (mut phase, message) = self.core.state().ended.clone().unwrap_or_default();
        let cause = self
            .core
            .state()
            .paused
            .clone()
            .map_or(String::new(), |(cause, _)| cause);
        if self.core.is_superseded() {
            phase = "superseded".to_owned();
        }
        RunOutcome { phase, cause, message }
    }

    fn finish(&mut self) -> Result<(), HeadError> {
        let goes_on = self.core.state().paused.is_some() || self.core.is_superseded();
        self.core
            .shut_down(if goes_on { "the run pauses" } else { "the run has ended" }, goes_on);
        self.flush()?;
        self.journal.sync()?;
        if self.core.is_superseded() {
            return Ok(());
        }
        self.write_status();
        if let (Some(trace), Some(path)) = (self.core.trace(), self.core.config().trace.clone()) {
            let text = trace.to_json(self.core.state().started_ns, |task| self.core.task_name(task));
            write_whole(path, text.as_bytes())?;
        }
        Ok(())
    }
}

impl Head {
    /// Tells the clients why this head cannot go on; its log may lie on the very disk that is full.
    fn say_why(&mut self, error: &HeadError) {
        let message = format!(
            "the head cannot go on: {error}; what has finished is kept: mend this and `bridgehead resume {}` goes on",
            self.core.config().run
        );
        let kind = "head-failed".to_owned();
        let refused = Refused { kind, message };
        let everyone: Vec<ConnId> = self.clients.keys().copied().collect();
        self.send_clients(
            everyone
                .into_iter()
                .map(|conn| (conn, refused.clone().into()))
                .collect(),
        );
    }
}

/// A receiver that never has anything: stands in for a link that ended.
fn never() -> UnboundedReceiver<AgentToHead> {
    let (sender, receiver) = unbounded_channel();
    std::mem::forget(sender); // Once a run, so that the receiver waits for ever instead of ending at once.
    receiver
}

/// A head that is at work here keeps its run: two would run every task twice. (Heads of other hosts are told apart by their
/// journal segments: each writes its own.)
fn refuse_second(o: &HeadOptions) -> Result<(), HeadError> {
    let info = std::fs::read(o.folder.head()).ok();
    let info: Option<HeadInfo> = info.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    match info {
        Some(info) if info.host == o.host && std::os::unix::net::UnixStream::connect(&info.socket).is_ok() => {
            Err(HeadError::AtWork { pid: info.pid })
        }
        _ => Ok(()),
    }
}

fn replay(folder: &RunFolder, config: &RunConfig) -> Result<(RunState, u32), HeadError> {
    let path = folder.journal();
    std::fs::create_dir_all(&path).map_err(io_error("make", path.clone()))?;
    let mut state = RunState::new(config.has_pipeline);
    for segment in journal::read_all(&path)? {
        if let Some((bytes, reason)) = &segment.dropped {
            tracing::warn!(
                attempt = segment.attempt,
                bytes,
                reason,
                "dropped the damaged tail of a journal segment"
            );
        }
        for record in &segment.records {
            state.apply(record);
        }
    }
    let last = journal::attempts(&path)?.last().copied().unwrap_or(0);
    Ok((state, last + 1))
}

fn read_plan(folder: &RunFolder) -> Result<LaunchPlan, HeadError> {
    let path = folder.plan();
    let bytes = std::fs::read(&path).map_err(io_error("read", path.clone()))?;
    LaunchPlan::parse(&bytes).map_err(|source| HeadError::Plan { path, source })
}

/// The first record of an attempt.
pub(crate) fn run_started(config: &RunConfig, attempt: u32, tasks: u64, replayed: u64) -> journal::Event {
    journal::Event::RunStarted(RunStarted {
        run: config.run.to_string(),
        attempt,
        tasks,
        writer: env!("CARGO_PKG_VERSION").to_owned(),
        replayed: Some(replayed),
    })
}

/// Writes a file whole or not at all. Two heads may write the same one, so the part file carries the process's number.
fn write_whole(path: PathBuf, bytes: &[u8]) -> Result<(), HeadError> {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let write = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, &path));
    write.map_err(|source| {
        let _ = std::fs::remove_file(&part); // On a full disk every byte counts.
        io_error("write", path)(source)
    })
}
