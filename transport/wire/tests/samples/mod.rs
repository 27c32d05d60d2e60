//! A sample of every message, for the tests of the frozen bytes.

use bridgehead_wire::*;
use bytes::Bytes;

pub fn object() -> ObjectRef {
    ObjectRef::new(bridgehead_spec::ObjectId(1 << 100 | 7), 4096, 2, 64, 9)
}

pub fn amounts() -> Amounts {
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

pub fn pair() -> Pair {
    Pair {
        key: "K".to_owned(),
        value: "v".to_owned(),
    }
}

pub fn program() -> ProgramCall {
    ProgramCall {
        argv: vec!["/bin/true".to_owned(), "-x".to_owned()],
        env: vec![pair()],
        cwd: "/tmp".to_owned(),
        outputs: vec![pair()],
    }
}

pub fn put_function() -> PutFunction {
    PutFunction {
        index: 3,
        digest: Bytes::from_static(&[5; 32]),
        name: "m.f".to_owned(),
        code: Bytes::from_static(b"code"),
    }
}

pub fn submit() -> TaskSubmit {
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
        ranks: None,
    }
}

pub fn call() -> TaskCall {
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
        gang: None,
    }
}

pub fn failure() -> Outcome {
    let mut failure = Failure::new(FailureCause::OutOfMemory, "kind", "message");
    failure.traceback = "Traceback".to_owned();
    failure.pickled = Bytes::from_static(b"p");
    failure.exit_code = Some(-3);
    failure.signal = Some(9);
    failure.root = Some(1);
    Outcome::failure(failure)
}

pub fn done() -> TaskDone {
    TaskDone {
        task: 12,
        attempt: 2,
        outcome: Some(failure()),
        started_ns: 77,
        elapsed_ns: 88,
        worker: 1,
        shards: Vec::new(),
    }
}

pub fn outcome() -> TaskOutcome {
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

pub fn cancel() -> CancelTasks {
    CancelTasks {
        tasks: vec![1, 300],
        all: true,
        reason: "why".to_owned(),
        from_worker: Some(1),
    }
}

pub fn release() -> ReleaseObjects {
    ReleaseObjects {
        objects: vec![object()],
    }
}

pub fn put() -> PutObject {
    PutObject { object: Some(object()) }
}

pub fn fetch() -> Fetch {
    Fetch {
        token: 5,
        object: Some(object()),
        ..Fetch::default()
    }
}

pub fn fetched() -> Fetched {
    Fetched {
        token: 5,
        outcome: Some(Outcome::cancelled("gone")),
        ranged: false,
    }
}

pub fn hold() -> HoldObjects {
    let objects = vec![object()];
    HoldObjects { objects }
}

pub fn place() -> PlaceObjects {
    PlaceObjects {
        token: 11,
        objects: vec![object()],
        placing: Placing::Near.into(),
        near: vec![1],
        replicas: 2,
        from_worker: Some(4),
        gpu: 0,
    }
}

pub fn placed() -> Placed {
    Placed {
        token: 11,
        objects: vec![object()],
        error: "no".to_owned(),
        for_worker: Some(4),
    }
}

pub fn locate() -> Locate {
    Locate {
        token: 5,
        object: Some(object()),
    }
}

pub fn located() -> Located {
    Located {
        token: 5,
        outcome: Some(Outcome::value(Value::stored(object()))),
    }
}

pub fn shutdown() -> Shutdown {
    Shutdown {
        reason: "over".to_owned(),
        goes_on: false,
    }
}

pub fn refused() -> Refused {
    Refused {
        kind: "run".to_owned(),
        message: "no".to_owned(),
    }
}

pub fn beat() -> Heartbeat {
    Heartbeat {
        store_used: 1,
        store_limit: 2,
        store_spilled: 3,
        ..Heartbeat::default()
    }
}

pub fn name_request() -> NameRequest {
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

pub fn name_reply() -> NameReply {
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

pub fn client_to_head() -> Vec<ClientToHead> {
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

pub fn head_to_client() -> Vec<HeadToClient> {
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

pub fn head_to_agent() -> Vec<HeadToAgent> {
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
        relay().into(),
        EndGang {
            task: 12,
            attempt: 2,
            reason: "rank 1 died".to_owned(),
        }
        .into(),
    ]
}

fn relay() -> Relay {
    Relay {
        task: 12,
        attempt: 2,
        agent: 3,
        bytes: Bytes::from_static(b"put"),
    }
}

fn bound() -> RanksBound {
    RanksBound {
        task: 12,
        attempt: 2,
        mpi: "Open MPI".to_owned(),
        ranks: vec![RankBound {
            rank: 1,
            processors: "2-3".to_owned(),
            numa: Some(0),
            gpus: vec![1],
            network: "mlx5_0:1".to_owned(),
            reason: "beside its GPU".to_owned(),
        }],
    }
}

pub fn agent_to_head() -> Vec<AgentToHead> {
    vec![
        AgentJoin {
            agent: 1,
            ticket: Bytes::from_static(&[2; 32]),
            resources: Some(amounts()),
            host: "h".to_owned(),
            pid: 9,
            run: "r".to_owned(),
            gpu_memory: Vec::new(),
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
        relay().into(),
        RankFailed {
            task: 12,
            attempt: 2,
            failure: Some(Failure::new(FailureCause::User, "signal", "rank 1 died")),
        }
        .into(),
        bound().into(),
    ]
}

pub fn config() -> WorkerConfig {
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
}

pub fn agent_to_worker() -> Vec<AgentToWorker> {
    vec![
        config().into(),
        put_function().into(),
        call().into(),
        outcome().into(),
        fetched().into(),
        shutdown().into(),
        name_reply().into(),
        placed().into(),
    ]
}

pub fn worker_to_agent() -> Vec<WorkerToAgent> {
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

pub fn agent_to_guest() -> Vec<AgentToGuest> {
    vec![
        config().into(),
        Refused {
            kind: "task".to_owned(),
            message: "m".to_owned(),
        }
        .into(),
        fetched().into(),
        name_reply().into(),
        shutdown().into(),
    ]
}

pub fn guest_to_agent() -> Vec<GuestToAgent> {
    vec![
        GuestHello {
            task: 12,
            attempt: 2,
            rank: Some(3),
            pid: 9,
        }
        .into(),
        put().into(),
        hold().into(),
        release().into(),
        fetch().into(),
        name_request().into(),
    ]
}
