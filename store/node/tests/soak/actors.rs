//! Who takes part in the soak: clients (always processes of their own) and nodes (threads over the simulated network, processes over
//! TCP). Owns their text protocol: a line a command, `TOKEN VERB WORDS...`, a line an answer, `TOKEN WORD TEXT...`. What is right
//! is decided in `driver`, but that bytes are right is looked at where they are read.

use bridgehead_fabric::Fabric;
use bridgehead_spec::ObjectId;
use bridgehead_store_node::{Client, ClientError, Lease, Node, NodeOptions, new_id};
use bridgehead_tcp::TcpFabric;
use bridgehead_wire::ObjectRef;
use bytes::Bytes;
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// The variable that tells this program that it is an actor, and which.
pub const ROLE: &str = "BRIDGEHEAD_SOAK_ACTOR";
/// Begins an answer in what an actor prints; the rest of that is the test harness's.
const MARK: char = '\u{1}';
/// A put or a read waits so long for room.
const PATIENCE: Duration = Duration::from_secs(4);

/// The bytes of an object repeat with this period, a prime, so that no chunk of the transports is a multiple of it.
const PERIOD: usize = 65_521;

/// Bytes `from` to `from + len` of the object written under `seed`.
pub fn pattern(seed: u64, from: usize, len: usize) -> Vec<u8> {
    static TABLE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let mut state = 88_172_645_463_325_252_u64;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..PERIOD).map(next).collect()
    });
    let mut at = (from + (seed as usize % PERIOD) * 131) % PERIOD;
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        let part = (PERIOD - at).min(len - out.len());
        out.extend_from_slice(&TABLE[at..at + part]);
        at = (at + part) % PERIOD;
    }
    out
}

pub fn text_of(object: &ObjectRef) -> String {
    let ObjectRef {
        id_hi,
        id_lo,
        len,
        node,
        offset,
        slot,
        sum,
        ..
    } = object;
    format!("{id_hi} {id_lo} {len} {node} {offset} {slot} {sum}")
}

/// Words of a line, read from the left.
pub struct Words<'a>(std::str::SplitWhitespace<'a>);

impl<'a> Words<'a> {
    pub fn of(line: &'a str) -> Self {
        Self(line.split_whitespace())
    }

    pub fn word(&mut self) -> &'a str {
        self.0.next().expect("a word")
    }

    pub fn number<T: std::str::FromStr>(&mut self) -> T {
        let word = self.word();
        word.parse().unwrap_or_else(|_| panic!("{word} is no number"))
    }

    pub fn object(&mut self) -> ObjectRef {
        let (high, low): (u64, u64) = (self.number(), self.number());
        let id = ObjectId(u128::from(high) << 64 | u128::from(low));
        let object = ObjectRef::new(id, self.number(), self.number(), self.number(), self.number());
        ObjectRef {
            sum: self.number(),
            ..object
        }
    }

    pub fn rest(self) -> String {
        self.0.collect::<Vec<_>>().join(" ")
    }
}

pub type Reply = Arc<dyn Fn(String) + Send + Sync>;

/// Reads what is leased: right, or not.
fn look(lease: &Lease, seed: u64, from: usize, wanted: &Part) -> &'static str {
    let bytes = match wanted {
        Part::All => lease.bytes(),
        Part::At(at, len) => &lease.bytes()[*at..*at + *len],
    };
    if bytes == pattern(seed, from, bytes.len()) {
        "ok"
    } else {
        "wrong"
    }
}

/// Which bytes of a leased object are looked at.
#[derive(Debug, Clone, Copy)]
enum Part {
    All,
    At(usize, usize),
}

/// A writable copy of what is leased takes whatever is written, and the lease stays as it is.
#[allow(unsafe_code)]
fn scribble(lease: &Lease) {
    let own = lease.clone().own();
    // SAFETY: the copy is this function's alone, as long as it says.
    unsafe { std::slice::from_raw_parts_mut(own.as_mut_ptr(), own.len()) }.fill(0xee);
}

/// A client: obeys until there are no more lines.
fn serve_client(socket: &Path, lines: impl Iterator<Item = String>, reply: &Reply) {
    let client = Client::connect(socket).expect("a connection to the store");
    let mut held: HashMap<u64, (Lease, u64, usize, Part)> = HashMap::new();
    reply("0 ready".to_owned());
    for line in lines {
        let mut words = Words::of(&line);
        let token: u64 = words.number();
        let answer = match words.word() {
            "put" => {
                let (seed, len): (u64, usize) = (words.number(), words.number());
                match client.reserve(len) {
                    Ok(mut reservation) => {
                        reservation.bytes().copy_from_slice(&pattern(seed, 0, len));
                        let (object, lease) = reservation.seal(new_id().expect("randomness"));
                        held.insert(token, (lease, seed, 0, Part::All));
                        format!("ok {}", text_of(&object))
                    }
                    Err(ClientError::Never(text)) => format!("never {text}"),
                    Err(error) => format!("err {error}"),
                }
            }
            "lease" => {
                let keep = words.word() == "keep";
                let object = words.object();
                // Of the whole object `from` is cut out here; a part is an object of its own that begins there.
                let (seed, from, len): (u64, usize, usize) = (words.number(), words.number(), words.number());
                match client.lease(&object) {
                    Ok(lease) => {
                        let range = if lease.bytes().len() == len {
                            Part::All
                        } else {
                            Part::At(from, len)
                        };
                        let found = look(&lease, seed, from, &range);
                        scribble(&lease);
                        let found = if found == "ok" {
                            look(&lease, seed, from, &range)
                        } else {
                            found
                        };
                        if keep {
                            held.insert(token, (lease, seed, from, range));
                        }
                        found.to_owned()
                    }
                    Err(error) => format!("err {error}"),
                }
            }
            "look" => match held.get(&words.number()) {
                Some((lease, seed, from, range)) => look(lease, *seed, *from, range).to_owned(),
                None => "err it is not held".to_owned(),
            },
            "drop" => {
                held.remove(&words.number());
                "ok".to_owned()
            }
            other => panic!("an unknown command {other}"),
        };
        reply(format!("{token} {answer}"));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Bytes {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// A node: obeys until there are no more lines.
fn serve_node(options: NodeOptions, fabric: Arc<dyn Fabric>, lines: impl Iterator<Item = String>, reply: &Reply) {
    let address = hex(&fabric.address());
    let mut node = Node::start(options).expect("a store");
    node.connect(fabric).expect("a network");
    reply(format!("0 ready {address}"));
    for line in lines {
        let mut words = Words::of(&line);
        let token: u64 = words.number();
        let later = reply.clone();
        let arrived = move |arrival: Result<ObjectRef, String>| match arrival {
            Ok(object) => later(format!("{token} ok {}", text_of(&object))),
            Err(reason) => later(format!("{token} err {reason}")),
        };
        let answer = match words.word() {
            "publish" => match node.publish(&words.object()) {
                Ok(()) => "ok".to_owned(),
                Err(error) => format!("err {error}"),
            },
            "bring" => {
                node.bring(&words.object(), Box::new(arrived));
                continue;
            }
            "range" => {
                let object = words.object();
                node.bring_range(&object, words.number(), words.number(), Box::new(arrived));
                continue;
            }
            "persist" => {
                let (id, path) = (words.object().id(), words.word().to_owned());
                let later = reply.clone();
                let done = move |written: Result<u64, String>| match written {
                    Ok(len) => later(format!("{token} ok {len}")),
                    Err(reason) => later(format!("{token} err {reason}")),
                };
                node.persist(id, Path::new(&path), Box::new(done));
                continue;
            }
            "unpin" => {
                node.unpin(words.object().id());
                "ok".to_owned()
            }
            "release" => {
                node.release(words.object().id());
                "ok".to_owned()
            }
            "trim" => {
                node.trim();
                "ok".to_owned()
            }
            "peers" => {
                let peers = words.rest();
                let peer = |pair: &str| {
                    let (agent, address) = pair.split_once(':').expect("a pair");
                    (agent.parse().expect("a number"), from_hex(address))
                };
                node.set_peers(peers.split(' ').map(peer).collect());
                "ok".to_owned()
            }
            "usage" => {
                let (usage, moved) = (node.usage(), node.traffic());
                let spills = moved.spilled.operations;
                format!(
                    "ok {} {} {} {} {} {spills}",
                    usage.objects, usage.used, usage.spilled, usage.pinned, usage.granted
                )
            }
            other => panic!("an unknown command {other}"),
        };
        reply(format!("{token} {answer}"));
    }
}

/// What a node needs to know: it travels in the environment of its process.
#[derive(Debug, Clone)]
pub struct Place {
    pub agent: u32,
    pub folder: String,
    pub limit: u64,
    pub verify: bool,
}

impl Place {
    pub fn socket(&self) -> String {
        format!("{}/store.sock", self.folder)
    }

    fn options(&self) -> NodeOptions {
        NodeOptions {
            patience: PATIENCE,
            verify: self.verify,
            ..NodeOptions::new(self.agent, self.folder.as_ref(), self.limit)
        }
    }
}

fn tcp(agent: u32) -> Arc<dyn Fabric> {
    let options = bridgehead_tcp::Options::new(agent, [7; 32], IpAddr::V4(Ipv4Addr::LOCALHOST));
    Arc::new(TcpFabric::start(options).expect("a network"))
}

/// The body of a process that is an actor; `false` where this process is none.
pub fn act() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    let reply: Reply = Arc::new(|text| {
        let mut out = std::io::stdout().lock();
        // A driver that has gone needs no answer; the end of its lines follows.
        let _ = writeln!(out, "{MARK}{text}").and_then(|()| out.flush());
    });
    let lines = std::io::stdin().lines().map_while(Result::ok);
    let mut words = Words::of(&role);
    match words.word() {
        "client" => serve_client(Path::new(words.word()), lines, &reply),
        _ => {
            let (agent, limit, verify) = (words.number(), words.number(), words.number::<u8>() == 1);
            let folder = words.word().to_owned();
            let place = Place {
                agent,
                folder,
                limit,
                verify,
            };
            serve_node(place.options(), tcp(agent), lines, &reply);
        }
    }
    true
}

/// A line of an actor; `None` is its end.
pub type Said = (u64, Option<String>);

enum Body {
    Process(Box<Child>),
    Thread(Option<Sender<String>>),
}

/// An actor as the driver has it. Killed when dropped, unless it was ended.
pub struct Actor {
    body: Body,
    reader: Option<JoinHandle<()>>,
}

impl Actor {
    fn process(name: u64, role: String, said: Sender<Said>) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "actor_process", "--nocapture"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let out = child.stdout.take().expect("piped");
        let reader = std::thread::spawn(move || {
            for line in std::io::BufReader::new(out).lines().map_while(Result::ok) {
                if let Some((_, text)) = line.split_once(MARK) {
                    let _ = said.send((name, Some(text.to_owned()))); // The driver may be unwinding.
                }
            }
            let _ = said.send((name, None));
        });
        Self {
            body: Body::Process(Box::new(child)),
            reader: Some(reader),
        }
    }

    pub fn client(name: u64, socket: &str, said: Sender<Said>) -> Self {
        Self::process(name, format!("client {socket}"), said)
    }

    /// A node in a process of its own, over TCP.
    pub fn node(name: u64, place: &Place, said: Sender<Said>) -> Self {
        let Place {
            agent,
            folder,
            limit,
            verify,
        } = place;
        Self::process(
            name,
            format!("node {agent} {limit} {} {folder}", u8::from(*verify)),
            said,
        )
    }

    /// A node in a thread, over the fabric that is given.
    pub fn node_here(name: u64, place: &Place, fabric: Arc<dyn Fabric>, said: Sender<Said>) -> Self {
        let (lines, queue) = channel::<String>();
        let options = place.options();
        let work = move || {
            let answers = said.clone();
            let reply: Reply = Arc::new(move |text| drop(answers.send((name, Some(text)))));
            serve_node(options, fabric, queue.into_iter(), &reply);
            let _ = said.send((name, None));
        };
        Self {
            body: Body::Thread(Some(lines)),
            reader: Some(std::thread::spawn(work)),
        }
    }

    /// Tells it something; one that is gone says so by its end.
    pub fn tell(&mut self, line: String) {
        match &mut self.body {
            Body::Process(child) => {
                if let Some(stdin) = &mut child.stdin {
                    let _ = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
                }
            }
            Body::Thread(lines) => {
                if let Some(lines) = lines {
                    let _ = lines.send(line);
                }
            }
        }
    }

    /// The process, where it is one.
    pub fn pid(&self) -> Option<u32> {
        match &self.body {
            Body::Process(child) => Some(child.id()),
            Body::Thread(_) => None,
        }
    }

    /// Ends it by the end of its lines, and waits for that.
    pub fn end(mut self) {
        match &mut self.body {
            Body::Process(child) => {
                drop(child.stdin.take());
                let status = child.wait().expect("it ends");
                assert!(status.success(), "an actor ended with {status}");
            }
            Body::Thread(lines) => drop(lines.take()),
        }
        self.join();
    }

    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            let ended = reader.join();
            assert!(ended.is_ok() || std::thread::panicking(), "an actor's thread panicked");
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        match &mut self.body {
            Body::Process(child) => {
                let _ = child.kill(); // SIGKILL; it may be gone.
                let _ = child.wait();
            }
            Body::Thread(lines) => drop(lines.take()),
        }
        self.join();
    }
}
