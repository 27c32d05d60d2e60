//! Laws of a head's ends, on a whole head whose only agent is played by the test: a scheduler's signals pause the run, and a
//! head that another one took over from stops and leaves the run folder alone.

#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use bridgehead_head::journal::{Event, Writer, attempts, read_all};
use bridgehead_head::{AgentLink, Allocation, HeadOptions, RunOutcome};
use bridgehead_spec::{AgentConfig, HeadInfo, Resources, RunConfig, RunFolder, RunId};
use bridgehead_wire::{AgentJoin, AgentToHead, Amounts, HeadToAgent};
use rustix::process::{Signal, getpid, kill_process};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// A signal reaches every head of this process.
static ONE_HEAD: Mutex<()> = Mutex::new(());
const LIMIT: Duration = Duration::from_secs(30);

fn config() -> RunConfig {
    RunConfig {
        version: 1,
        run: RunId::parse("run-1").unwrap(),
        name: "p".to_owned(),
        has_pipeline: true,
        attached: false,
        agents: vec![AgentConfig {
            resources: Resources::default(),
            store_limit: 1 << 20,
        }],
        min_agents: None,
        python: "python3".into(),
        sys_path: Vec::new(),
        cwd: "/".into(),
        project: None,
        python_version: None,
        env: BTreeMap::new(),
        inline_limit: 0,
        join_timeout_ms: 60_000,
        trace: None,
        target: None,
        store_limit: None,
        max_running: None,
        max_fails: None,
        transport: Default::default(),
        verify_objects: false,
    }
}

/// A head with one task, which its agent has.
struct Scene {
    folder: RunFolder,
    dir: tempfile::TempDir,
    head: JoinHandle<RunOutcome>,
    _to_head: UnboundedSender<AgentToHead>,
    from_head: UnboundedReceiver<HeadToAgent>,
    _lock: MutexGuard<'static, ()>,
}

impl Scene {
    async fn open(listen: &str) -> Self {
        let lock = ONE_HEAD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(dir.path().join("run"));
        std::fs::create_dir(folder.path()).unwrap();
        let task = r#"{"id":0,"name":"t","call":{"program":{"argv":["true"]}}}"#;
        let spec = format!(
            r#"{{"version":1,"name":"p","environment":{{"python":"3.11"}},"functions":{{}},"tasks":[{task}]}}"#
        );
        std::fs::write(folder.spec(), spec).unwrap();
        let plan = r#"{"version":1,"pipeline":"p","backend":"slurm","gangs":[],"reasons":[]}"#;
        std::fs::write(folder.plan(), plan).unwrap();
        std::fs::create_dir(folder.tls()).unwrap();
        std::fs::write(folder.client_ticket(), "an earlier attempt's").unwrap();
        let (to_agent, from_head) = unbounded_channel();
        let (to_head, from_agent) = unbounded_channel();
        let options = HeadOptions {
            folder: folder.clone(),
            config: config(),
            socket_dir: dir.path().to_owned(),
            store_socket: dir.path().join("store.sock"),
            agent0: AgentLink { to_agent, from_agent },
            host: "here".to_owned(),
            listen: listen.parse().unwrap(),
            advertise: vec!["n1".to_owned(), "fe80::1".to_owned()],
            allocation: Some(Allocation {
                end_ns: None,
                notice: Duration::from_secs(20),
            }),
            life: String::new(),
            expected_hosts: Vec::new(),
            gang: Some(0),
        };
        let join = AgentJoin {
            resources: Some(Amounts::from(&Resources::default())),
            ..AgentJoin::default()
        };
        to_head.send(join.into()).unwrap();
        let head = tokio::task::spawn_local(async { bridgehead_head::run(options).await.unwrap() });
        let mut scene = Self {
            folder,
            dir,
            head,
            _to_head: to_head,
            from_head,
            _lock: lock,
        };
        while !matches!(scene.hear().await, HeadToAgent::Call(_)) {}
        scene
    }

    async fn hear(&mut self) -> HeadToAgent {
        let heard = tokio::time::timeout(LIMIT, self.from_head.recv()).await;
        heard.expect("the head speaks in time").expect("the head lives")
    }

    /// The head ends like this, and its agent is told to end.
    async fn check_end(&mut self, phase: &str, cause: &str) {
        while !matches!(self.hear().await, HeadToAgent::Shutdown(_)) {}
        let outcome = tokio::time::timeout(LIMIT, &mut self.head).await.unwrap().unwrap();
        assert_eq!(
            (outcome.phase.as_str(), outcome.cause.as_str()),
            (phase, cause),
            "{outcome:?}"
        );
        let last = read_all(&self.folder.journal())
            .unwrap()
            .remove(0)
            .records
            .pop()
            .unwrap();
        assert!(matches!(last.event, Some(Event::RunPaused(paused)) if paused.cause == cause));
    }

    /// Nothing before the head wrote the first one.
    fn status(&self) -> serde_json::Value {
        let bytes = std::fs::read(self.folder.status()).unwrap_or_else(|_| b"null".to_vec());
        serde_json::from_slice(&bytes).unwrap()
    }
}

fn check(play: impl AsyncFnOnce(Scene)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { play(Scene::open("127.0.0.1").await).await });
}

#[test]
fn sigterm_from_a_scheduler_is_a_preemption_and_no_cancel() {
    check(async |mut scene: Scene| {
        kill_process(getpid(), Signal::TERM).unwrap();
        scene.check_end("paused", "preempted").await;
        let status = scene.status();
        assert_eq!(
            (&status["phase"], &status["paused"]["cause"]),
            (&"paused".into(), &"preempted".into())
        );
        assert_eq!(
            (&status["tasks"]["waiting"], &status["interruptions"]["preempted"]),
            (&1.into(), &1.into())
        );
    });
}

#[test]
fn sigusr1_lets_what_runs_end_and_then_pauses() {
    check(async |mut scene: Scene| {
        kill_process(getpid(), Signal::USR1).unwrap();
        let draining = async {
            while scene.status()["phase"] != "draining" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, draining).await.expect("the status says so");
        assert!(!scene.head.is_finished(), "a task runs");
        kill_process(getpid(), Signal::TERM).unwrap();
        scene.check_end("paused", "walltime").await;
    });
}

#[test]
fn a_head_that_was_taken_over_from_stops_and_leaves_the_folder_alone() {
    check(async |mut scene: Scene| {
        std::fs::remove_file(scene.folder.head()).unwrap();
        let shown = async {
            while !scene.folder.status().exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, shown)
            .await
            .expect("the head writes its status");
        drop(Writer::create(&scene.folder.journal(), 2).unwrap());
        std::fs::write(scene.folder.status(), "the other's").unwrap();
        while !matches!(scene.hear().await, HeadToAgent::Shutdown(_)) {}
        let outcome = tokio::time::timeout(LIMIT, &mut scene.head).await.unwrap().unwrap();
        assert_eq!(
            (outcome.phase.as_str(), outcome.cause.as_str()),
            ("superseded", "superseded")
        );
        assert!(!scene.folder.head().exists());
        assert_eq!(std::fs::read_to_string(scene.folder.status()).unwrap(), "the other's");
        assert_eq!(attempts(&scene.folder.journal()).unwrap(), [1, 2]);
        drop(scene.dir);
    });
}

#[test]
fn a_head_that_is_reachable_from_elsewhere_writes_a_secret_ticket_for_clients_and_one_on_loopback_does_not() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for (listen, reachable) in [("127.0.0.1", false), ("0.0.0.0", true)] {
        tokio::task::LocalSet::new().block_on(&runtime, async {
            use std::os::unix::fs::PermissionsExt;
            let mut scene = Scene::open(listen).await;
            let info: HeadInfo = serde_json::from_slice(&std::fs::read(scene.folder.head()).unwrap()).unwrap();
            let path = scene.folder.client_ticket();
            assert_eq!(path.exists(), reachable);
            if reachable {
                assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
                let ticket: bridgehead_wire::Ticket = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                let port = info.address.rsplit(':').next().unwrap();
                assert_eq!(ticket.addresses, [format!("n1:{port}"), format!("[fe80::1]:{port}")]);
                assert_eq!(info.addresses, ticket.addresses);
            } else {
                assert_eq!((info.address.as_str(), info.addresses.len()), ("", 0));
            }
            kill_process(getpid(), Signal::TERM).unwrap();
            scene.check_end("paused", "preempted").await;
        });
    }
}
