//! Frozen bytes: every message of every direction is written today as it was when it was frozen, and what was frozen is
//! still read. A line of `frozen.txt` is never changed or removed while the protocol's version stays; a new message adds one.
//! `BRIDGEHEAD_FREEZE=1 cargo test -p bridgehead-wire` adds the lines of new messages.

use bridgehead_wire::*;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;

fn object() -> ObjectRef {
    ObjectRef::new(bridgehead_spec::ObjectId(1 << 100 | 7), 4096, 2, 64, 9)
}

fn amounts() -> Amounts {
    Amounts {
        cpu_millis: 1500,
        memory: 1 << 30,
        gpus: 1,
        named: vec![NamedAmount {
            key: "licence".to_owned(),
            value: 2,
        }],
    }
}

fn pair() -> Pair {
    Pair {
        key: "K".to_owned(),
        value: "v".to_owned(),
    }
}

fn program() -> ProgramCall {
    ProgramCall {
        argv: vec!["/bin/true".to_owned(), "-x".to_owned()],
        env: vec![pair()],
        cwd: "/tmp".to_owned(),
        outputs: vec![pair()],
    }
}

fn put_function() -> PutFunction {
    PutFunction {
        index: 3,
        digest: Bytes::from_static(&[5; 32]),
        name: "m.f".to_owned(),
        code: Bytes::from_static(b"code"),
    }
}

fn submit() -> TaskSubmit {
    let input = |kind| Input {
        kind: Some(kind),
        lazy: false,
    };
    TaskSubmit {
        token: 11,
        function: 3,
        args: Some(Value::inline(Bytes::from_static(b"args"))),
        inputs: vec![
            input(input::Kind::Task(4)),
            input(input::Kind::Value(Value::stored(object()))),
        ],
        resources: Some(amounts()),
        priority: -2,
        retry: Some(Retry {
            lost_node: 3,
            preempted: 2,
            walltime: 1,
            oom: 4,
            user: 5,
        }),
        timeout_ms: 1000,
        name: "n".to_owned(),
        program: Some(program()),
        from_worker: Some(1),
        parent: Some(2),
        after: vec![6, 7],
    }
}

fn call() -> TaskCall {
    TaskCall {
        task: 12,
        attempt: 2,
        function: 3,
        args: Some(Value::file(FileRef {
            path: "blobs/a".to_owned(),
            len: 9,
        })),
        inputs: vec![Value::stored(object())],
        program: Some(program()),
        resources: Some(amounts()),
        timeout_ms: 1000,
        name: "n".to_owned(),
        devices: vec![0, 2],
        lazy: Vec::new(),
    }
}

fn failure() -> Outcome {
    let mut failure = Failure::new(FailureCause::OutOfMemory, "kind", "message");
    failure.traceback = "Traceback".to_owned();
    failure.pickled = Bytes::from_static(b"p");
    failure.exit_code = Some(-3);
    failure.signal = Some(9);
    failure.root = Some(1);
    Outcome::failure(failure)
}

fn done() -> TaskDone {
    TaskDone {
        task: 12,
        attempt: 2,
        outcome: Some(failure()),
        started_ns: 77,
        elapsed_ns: 88,
        worker: 1,
    }
}

fn outcome() -> TaskOutcome {
    let program = value::Kind::Program(ProgramResult {
        exit_code: 0,
        stdout: Bytes::from_static(b"out"),
        stderr: Bytes::from_static(b"err"),
        outputs: vec![pair()],
        dropped: 1,
    });
    TaskOutcome {
        token: 11,
        task: 12,
        outcome: Some(Outcome::value(Value {
            kind: Some(program),
            refs: Vec::new(),
        })),
        for_worker: Some(1),
        attempts: 2,
        elapsed_ns: 88,
    }
}

fn cancel() -> CancelTasks {
    CancelTasks {
        tasks: vec![1, 300],
        all: true,
        reason: "why".to_owned(),
        from_worker: Some(1),
    }
}

fn release() -> ReleaseObjects {
    ReleaseObjects {
        objects: vec![object()],
    }
}

fn put() -> PutObject {
    PutObject { object: Some(object()) }
}

fn fetch() -> Fetch {
    Fetch {
        token: 5,
        object: Some(object()),
        ..Fetch::default()
    }
}

fn fetched() -> Fetched {
    Fetched {
        token: 5,
        outcome: Some(Outcome::cancelled("gone")),
        ranged: false,
    }
}

fn hold() -> HoldObjects {
    let objects = vec![object()];
    HoldObjects { objects }
}

fn place() -> PlaceObjects {
    PlaceObjects {
        token: 11,
        objects: vec![object()],
        placing: Placing::Near.into(),
        near: vec![1],
        replicas: 2,
        from_worker: Some(4),
    }
}

fn placed() -> Placed {
    Placed {
        token: 11,
        objects: vec![object()],
        error: "no".to_owned(),
        for_worker: Some(4),
    }
}

fn locate() -> Locate {
    Locate {
        token: 5,
        object: Some(object()),
    }
}

fn located() -> Located {
    Located {
        token: 5,
        outcome: Some(Outcome::value(Value::stored(object()))),
    }
}

fn shutdown() -> Shutdown {
    Shutdown {
        reason: "over".to_owned(),
    }
}

fn refused() -> Refused {
    Refused {
        kind: "run".to_owned(),
        message: "no".to_owned(),
    }
}

fn beat() -> Heartbeat {
    Heartbeat {
        store_used: 1,
        store_limit: 2,
        store_spilled: 3,
        ..Heartbeat::default()
    }
}

fn name_request() -> NameRequest {
    NameRequest {
        token: 11,
        op: NameOp::Next.into(),
        name: "field".to_owned(),
        version: Some(3),
        value: Some(Value::stored(object())),
        keep: 2,
        wait: true,
        about: 5,
        from_worker: Some(4),
        task: Some(12),
    }
}

fn name_reply() -> NameReply {
    NameReply {
        token: 11,
        outcome: Some(Outcome::value(Value::stored(object()))),
        version: 4,
        versions: vec![3, 4],
        names: vec!["field".to_owned()],
        ended: true,
        for_worker: Some(4),
    }
}

fn client_to_head() -> Vec<ClientToHead> {
    vec![
        ClientHello {
            run: "r".to_owned(),
            pid: 9,
            owner: true,
        }
        .into(),
        put_function().into(),
        submit().into(),
        cancel().into(),
        release().into(),
        fetch().into(),
        Subscribe {
            progress: true,
            outcomes: true,
        }
        .into(),
        Close {
            mode: CloseMode::Cancel.into(),
        }
        .into(),
        StatusRequest {}.into(),
        put().into(),
        name_request().into(),
        hold().into(),
        place().into(),
    ]
}

fn head_to_client() -> Vec<HeadToClient> {
    vec![
        Welcome {
            run: "r".to_owned(),
            store_socket: "/s".to_owned(),
            total: Some(amounts()),
            agents: 2,
            node: 1,
            inline_limit: 16384,
        }
        .into(),
        outcome().into(),
        fetched().into(),
        Progress {
            waiting: 1,
            running: 2,
            finished: 3,
            failed: 4,
            cancelled: 5,
        }
        .into(),
        RunEnd {
            phase: "finished".to_owned(),
            message: "m".to_owned(),
        }
        .into(),
        refused().into(),
        StatusReply { json: "{}".to_owned() }.into(),
        name_reply().into(),
        placed().into(),
    ]
}

fn head_to_agent() -> Vec<HeadToAgent> {
    vec![
        AgentWelcome {
            run: "r".to_owned(),
            run_dir: "/r".to_owned(),
            python: "/py".to_owned(),
            sys_path: vec!["/p".to_owned()],
            cwd: "/w".to_owned(),
            inline_limit: 16384,
            data_key: Bytes::from_static(&[1; 32]),
            env: vec![pair()],
            agents: 2,
            allocation_end_ns: 0,
        }
        .into(),
        put_function().into(),
        call().into(),
        cancel().into(),
        release().into(),
        fetch().into(),
        Persist {
            task: 12,
            object: Some(object()),
            path: "results/12.bhv".to_owned(),
        }
        .into(),
        Peers {
            peers: vec![Peer {
                agent: 1,
                fabric_address: Bytes::from_static(b"addr"),
            }],
        }
        .into(),
        outcome().into(),
        shutdown().into(),
        refused().into(),
        beat().into(),
        put().into(),
        name_reply().into(),
        placed().into(),
        located().into(),
    ]
}

fn agent_to_head() -> Vec<AgentToHead> {
    vec![
        AgentJoin {
            agent: 1,
            ticket: Bytes::from_static(&[2; 32]),
            resources: Some(amounts()),
            host: "h".to_owned(),
            pid: 9,
            run: "r".to_owned(),
        }
        .into(),
        TaskStarted {
            task: 12,
            attempt: 2,
            worker: 1,
            pid: 9,
            started_ns: 77,
        }
        .into(),
        done().into(),
        Copied {
            object: Some(object()),
            started_ns: 77,
            elapsed_ns: 88,
        }
        .into(),
        fetched().into(),
        Persisted {
            task: 12,
            error: "full".to_owned(),
            path: "results/12.bhv".to_owned(),
            len: 4096,
        }
        .into(),
        submit().into(),
        Functions {
            functions: vec![put_function()],
        }
        .into(),
        Blocked {
            task: 12,
            blocked: true,
        }
        .into(),
        beat().into(),
        release().into(),
        cancel().into(),
        put().into(),
        FabricAddress {
            address: Bytes::from_static(b"addr"),
        }
        .into(),
        name_request().into(),
        hold().into(),
        place().into(),
        locate().into(),
    ]
}

fn agent_to_worker() -> Vec<AgentToWorker> {
    vec![
        WorkerConfig {
            run: "r".to_owned(),
            agent: 1,
            worker: 2,
            store_socket: "/s".to_owned(),
            inline_limit: 16384,
            sys_path: vec!["/p".to_owned()],
            run_dir: "/r".to_owned(),
            allocation_end_ns: 0,
        }
        .into(),
        put_function().into(),
        call().into(),
        outcome().into(),
        fetched().into(),
        shutdown().into(),
        name_reply().into(),
        placed().into(),
    ]
}

fn worker_to_agent() -> Vec<WorkerToAgent> {
    vec![
        WorkerReady {
            pid: 9,
            python: "3.11.7".to_owned(),
        }
        .into(),
        done().into(),
        ReturnedTasks { tasks: vec![1, 2] }.into(),
        LogText {
            task: 12,
            attempt: 2,
            stream: "stdout".to_owned(),
            text: "hello\n".to_owned(),
        }
        .into(),
        submit().into(),
        put_function().into(),
        fetch().into(),
        Blocked {
            task: 12,
            blocked: true,
        }
        .into(),
        release().into(),
        cancel().into(),
        put().into(),
        name_request().into(),
        hold().into(),
        place().into(),
    ]
}

fn frozen_file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frozen.txt")
}

fn frozen() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(frozen_file()).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, hex)| (name.to_owned(), hex.to_owned())).collect()
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// The message of `direction` with this number, written and read.
fn check_one<M: PartialEq + std::fmt::Debug>(
    known: &mut BTreeMap<String, String>,
    (direction, kind): (&str, u16),
    message: &M,
    encode: impl Fn(&M, &mut Vec<u8>),
    decode: impl Fn(u16, &[u8]) -> Result<M, FrameError>,
) {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("{direction}.{kind}");
    if std::env::var_os("BRIDGEHEAD_FREEZE").is_some() {
        known.entry(name.clone()).or_insert_with(|| hex.clone());
    }
    let kept = known.get(&name);
    assert_eq!(kept, Some(&hex), "{name} is not written as it was frozen");
    let mut frames = Frames::new();
    let bytes = from_hex(&hex);
    frames.space(bytes.len())[..bytes.len()].copy_from_slice(&bytes);
    frames.filled(bytes.len());
    let (found, body) = frames.next_frame().expect("a frame").expect("a whole one");
    assert_eq!(found, kind, "{name}: kinds are numbered in order");
    assert_eq!(
        decode(found, body).as_ref(),
        Ok(message),
        "{name} is not read as it was frozen"
    );
}

/// Keeps the samples of new messages, where that was asked for.
fn freeze(known: &BTreeMap<String, String>) {
    if std::env::var_os("BRIDGEHEAD_FREEZE").is_some() {
        let text: String = known.iter().map(|(name, hex)| format!("{name} {hex}\n")).collect();
        std::fs::write(frozen_file(), text).expect("the file can be written");
    }
}

/// All messages of a direction are written as they were frozen, and read back from that.
fn check<M: PartialEq + std::fmt::Debug>(
    direction: &str,
    messages: &[M],
    encode: impl Fn(&M, &mut Vec<u8>),
    decode: impl Fn(u16, &[u8]) -> Result<M, FrameError>,
) {
    let mut known = frozen();
    for (kind, message) in (1..).zip(messages) {
        check_one(&mut known, (direction, kind), message, &encode, &decode);
    }
    freeze(&known);
    let of_direction = |name: &&String| name.split('.').next() == Some(direction);
    assert_eq!(
        known.keys().filter(of_direction).count(),
        messages.len(),
        "a message of {direction} has gone"
    );
    let beyond = u16::try_from(messages.len() + 1).expect("few kinds");
    assert_eq!(
        decode(beyond, &[]),
        Err(FrameError::UnknownKind(beyond)),
        "each kind of {direction} has a sample"
    );
}

#[test]
fn every_message_is_written_and_read_as_it_was_frozen() {
    check(
        "client-to-head",
        &client_to_head(),
        ClientToHead::encode,
        ClientToHead::decode,
    );
    check(
        "head-to-client",
        &head_to_client(),
        HeadToClient::encode,
        HeadToClient::decode,
    );
    check(
        "head-to-agent",
        &head_to_agent(),
        HeadToAgent::encode,
        HeadToAgent::decode,
    );
    check(
        "agent-to-head",
        &agent_to_head(),
        AgentToHead::encode,
        AgentToHead::decode,
    );
    check(
        "agent-to-worker",
        &agent_to_worker(),
        AgentToWorker::encode,
        AgentToWorker::decode,
    );
    check(
        "worker-to-agent",
        &worker_to_agent(),
        WorkerToAgent::encode,
        WorkerToAgent::decode,
    );
}

#[test]
fn fields_that_came_later_are_written_and_read_as_they_were_frozen() {
    let allocation_end_ns = 1_700_000_000_000_000_000;
    let welcome = AgentWelcome {
        allocation_end_ns,
        ..AgentWelcome::default()
    };
    let mut known = frozen();
    let name = ("head-to-agent-later", 1);
    check_one(
        &mut known,
        name,
        &welcome.into(),
        HeadToAgent::encode,
        HeadToAgent::decode,
    );
    let config = WorkerConfig {
        allocation_end_ns,
        ..WorkerConfig::default()
    };
    let name = ("agent-to-worker-later", 1);
    check_one(
        &mut known,
        name,
        &config.into(),
        AgentToWorker::encode,
        AgentToWorker::decode,
    );
    let range = Fetch {
        offset: 4096,
        len: 64,
        ..Fetch::default()
    };
    let name = ("client-to-head-later", 6);
    check_one(
        &mut known,
        name,
        &range.into(),
        ClientToHead::encode,
        ClientToHead::decode,
    );
    let ranged = Fetched {
        ranged: true,
        ..Fetched::default()
    };
    let name = ("head-to-client-later", 3);
    check_one(
        &mut known,
        name,
        &ranged.into(),
        HeadToClient::encode,
        HeadToClient::decode,
    );
    let lazy = TaskCall {
        lazy: vec![0, 2],
        ..TaskCall::default()
    };
    let name = ("head-to-agent-later", 3);
    check_one(&mut known, name, &lazy.into(), HeadToAgent::encode, HeadToAgent::decode);
    let beat = Heartbeat {
        local_operations: 4,
        local_bytes: 5,
        remote_operations: 6,
        remote_bytes: 7,
        lent_operations: 8,
        lent_bytes: 9,
        spill_operations: 10,
        spill_bytes: 11,
        restore_operations: 12,
        restore_bytes: 13,
        views: 14,
        objects: 15,
        ..Heartbeat::default()
    };
    let name = ("agent-to-head-later", 10);
    check_one(&mut known, name, &beat.into(), AgentToHead::encode, AgentToHead::decode);
    let refs = TaskSubmit {
        args: Some(Value {
            kind: None,
            refs: vec![object()],
        }),
        inputs: vec![Input { kind: None, lazy: true }],
        ..TaskSubmit::default()
    };
    let name = ("client-to-head-later", 3);
    check_one(
        &mut known,
        name,
        &refs.into(),
        ClientToHead::encode,
        ClientToHead::decode,
    );
    freeze(&known);
}

#[test]
fn whatever_body_comes_decoding_gives_a_message_or_an_error() {
    let mut state = 11_u64;
    for len in 0..200 {
        let body: Vec<u8> = (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        for kind in 0..20 {
            let known = (1..=13).contains(&kind);
            let client = ClientToHead::decode(kind, &body);
            assert!(known || client == Err(FrameError::UnknownKind(kind)));
            let _ = (HeadToAgent::decode(kind, &body), AgentToHead::decode(kind, &body)); // Neither may panic.
            let _ = (AgentToWorker::decode(kind, &body), WorkerToAgent::decode(kind, &body));
        }
    }
}
