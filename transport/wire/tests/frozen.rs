//! Frozen bytes: every message of every direction is written today as it was when it was frozen, and what was frozen is
//! still read. A line of `frozen.txt` is never changed or removed while the protocol's version stays; a new message adds one.
//! `BRIDGEHEAD_FREEZE=1 cargo test -p bridgehead-wire` adds the lines of new messages.

mod samples;

use bridgehead_wire::*;
use samples::*;
use std::collections::BTreeMap;
use std::path::Path;

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
    check(
        "agent-to-guest",
        &agent_to_guest(),
        AgentToGuest::encode,
        AgentToGuest::decode,
    );
    check(
        "guest-to-agent",
        &guest_to_agent(),
        GuestToAgent::encode,
        GuestToAgent::decode,
    );
}

/// What makes a task one of several ranks.
fn check_gangs(known: &mut BTreeMap<String, String>) {
    let ranks = Ranks {
        least: 4,
        most: 16,
        per_node: 2,
        map: Map::Gpu.into(),
        mpi: Mpi::Openmpi.into(),
        srun: true,
        shards: true,
    };
    let submit = TaskSubmit {
        ranks: Some(ranks),
        ..TaskSubmit::default()
    };
    let name = ("client-to-head-gang", 3);
    check_one(known, name, &submit.into(), ClientToHead::encode, ClientToHead::decode);
    let node = RanksAt {
        agent: 1,
        first: 4,
        count: 2,
        host: "n1".to_owned(),
    };
    let call = TaskCall {
        gang: Some(GangCall {
            ranks,
            nodes: vec![node],
            rank: 5,
        }),
        ..TaskCall::default()
    };
    let name = ("head-to-agent-gang", 3);
    check_one(known, name, &call.into(), HeadToAgent::encode, HeadToAgent::decode);
    let done = TaskDone {
        shards: vec![Value::stored(object())],
        ..TaskDone::default()
    };
    let name = ("agent-to-head-gang", 3);
    check_one(known, name, &done.into(), AgentToHead::encode, AgentToHead::decode);
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
    let placed = Fetch {
        object: Some(ObjectRef {
            numa: 2,
            gpu: 1,
            ..object()
        }),
        memory: Memory::Numa.into(),
        turn: 3,
        ..Fetch::default()
    };
    let name = ("head-to-agent-later", 6);
    check_one(
        &mut known,
        name,
        &placed.into(),
        HeadToAgent::encode,
        HeadToAgent::decode,
    );
    let join = AgentJoin {
        gpu_memory: vec![GpuMemory {
            name: "g".to_owned(),
            stand_in: true,
            why: "w".to_owned(),
            limit: 7,
        }],
        ..AgentJoin::default()
    };
    let name = ("agent-to-head-later", 1);
    check_one(&mut known, name, &join.into(), AgentToHead::encode, AgentToHead::decode);
    let beat = Heartbeat {
        gpu_used: 1,
        to_gpu_operations: 2,
        to_gpu_bytes: 3,
        from_gpu_operations: 4,
        from_gpu_bytes: 5,
        ..Heartbeat::default()
    };
    let name = ("agent-to-head-devices", 10);
    check_one(&mut known, name, &beat.into(), AgentToHead::encode, AgentToHead::decode);
    let place = PlaceObjects {
        gpu: 2,
        ..PlaceObjects::default()
    };
    let name = ("client-to-head-later", 13);
    check_one(
        &mut known,
        name,
        &place.into(),
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
    check_gangs(&mut known);
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
            let _ = (AgentToGuest::decode(kind, &body), GuestToAgent::decode(kind, &body));
        }
    }
}
