//! The soak's driver: chooses what is done by its seed, and knows what must come of it. Owns the model: which objects there are, with
//! which bytes, where, and what is under way. One thread; actors answer when they are done.
//!
//! A rule of doubt: what was released, or whose node was killed, while something was under way with it may have ended either way, but
//! never with wrong bytes. Everything else has one right outcome, besides a want of room, which is counted.

use crate::actors::{Actor, Place, Said, text_of};
use bridgehead_fabric::Fabric;
use bridgehead_fabric::sim::{Network, Options};
use bridgehead_wire::ObjectRef;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

const NODES: usize = 3;
const CLIENTS: usize = 2;
/// Bytes of each store: far fewer than all objects have.
const LIMIT: u64 = 12 << 20;
/// Bytes of all objects together.
const MOST: u64 = 60 << 20;
/// Nothing takes so long unless it hangs.
const HANGS: Duration = Duration::from_secs(60);
/// Places of the simulated network: those of nodes that are started anew are taken from behind.
const PLACES: usize = 400;
/// Leases that one client holds.
const HELD: usize = 6;
/// Larger objects are not held: they would take the room of all others.
const HOLD: u64 = 512 << 10;

mod ends;
mod outcomes;

/// The network between the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Simulated; nodes are threads.
    Sim,
    /// TCP; nodes are processes.
    Tcp,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Figures {
    counts: BTreeMap<&'static str, u64>,
}

impl Figures {
    fn add(&mut self, what: &'static str, count: u64) {
        *self.counts.entry(what).or_default() += count;
    }

    pub fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> = self
            .counts
            .iter()
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        f.write_str(&each.join(", "))
    }
}

/// A small generator: the same seed makes the same choices.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides.max(1)
    }

    fn one_of(&mut self, count: usize) -> usize {
        self.roll(count as u64) as usize
    }

    /// Sizes of all scales: as many below a KiB as above a MiB.
    fn size(&mut self) -> u64 {
        let scale = 1_u64 << self.roll(22);
        match self.roll(400) {
            0 => LIMIT + 1 + self.roll(1 << 20),
            _ => scale + self.roll(scale),
        }
    }
}

struct NodeSeat {
    place: Place,
    actor: u64,
    address: String,
    clients: Vec<ClientSeat>,
    _folder: tempfile::TempDir,
}

struct ClientSeat {
    actor: u64,
    /// What it does, by token.
    task: Option<u64>,
    held: BTreeSet<u64>,
}

struct Object {
    /// Where others read it from.
    reference: ObjectRef,
    seed: u64,
    /// Agents that have copies.
    copies: BTreeSet<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Put {
        seed: u64,
        len: u64,
    },
    /// `handle` is the lease that the writer has until then.
    Publish {
        seed: u64,
        reference: Box<ObjectRef>,
        handle: u64,
    },
    Bring {
        keep: bool,
    },
    Range {
        from: u64,
        len: u64,
    },
    /// Reads what was brought; `part` is an object of its own that goes after.
    Lease {
        keep: bool,
        place: Box<ObjectRef>,
        part: bool,
    },
    Look,
    /// A read of what is released, without bringing it.
    Late,
    Persist {
        path: String,
    },
    /// What has no outcome but that it is done.
    Tell,
    Release {
        object: u64,
    },
    Usage,
}

struct Task {
    kind: Kind,
    /// Who answers.
    actor: u64,
    /// The seat that it is done for.
    node: usize,
    client: usize,
    /// The object, by number.
    object: u64,
    /// Agents that have part in it.
    agents: BTreeSet<u32>,
    /// See the rule of doubt.
    doubt: bool,
    begun: Instant,
    step: u64,
}

/// All of it.
pub struct Soak {
    wire: Wire,
    seed: u64,
    step: u64,
    dice: Dice,
    network: Network,
    nodes: Vec<NodeSeat>,
    actors: BTreeMap<u64, Actor>,
    objects: BTreeMap<u64, Object>,
    /// Released, and not heard of yet from so many nodes that have it.
    releasing: BTreeMap<u64, (ObjectRef, u64, usize)>,
    /// Nobody can have these any more.
    released: Vec<(ObjectRef, u64)>,
    tasks: BTreeMap<u64, Task>,
    next: u64,
    next_agent: u32,
    said: Receiver<Said>,
    speak: Sender<Said>,
    figures: Figures,
    /// Objects whose only bytes were on a node that was killed.
    gone: Vec<(ObjectRef, u64)>,
    descriptors: usize,
    /// Objects that each agent has moved to disk, as it said last.
    spills: BTreeMap<u32, u64>,
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

impl Soak {
    pub fn start(wire: Wire, seed: u64) -> Self {
        let descriptors = descriptors();
        let (speak, said) = channel();
        let mut soak = Self {
            wire,
            seed,
            step: 0,
            dice: Dice(seed),
            network: Network::new(seed, PLACES, Options::default()),
            nodes: Vec::new(),
            actors: BTreeMap::new(),
            objects: BTreeMap::new(),
            releasing: BTreeMap::new(),
            released: Vec::new(),
            spills: BTreeMap::new(),
            tasks: BTreeMap::new(),
            next: 1,
            next_agent: 0,
            said,
            speak,
            figures: Figures::default(),
            gone: Vec::new(),
            descriptors,
        };
        for _ in 0..NODES {
            let seat = soak.seat();
            soak.nodes.push(seat);
        }
        soak.introduce();
        soak
    }

    /// The seed and the step stand in every failure.
    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        panic!(
            "soak over {:?} failed: SEED={} step {}: {what}",
            self.wire, self.seed, self.step
        )
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A new node with its clients.
    fn seat(&mut self) -> NodeSeat {
        let folder = tempfile::tempdir().expect("a folder");
        let agent = self.next_agent;
        self.next_agent += 1;
        let place = Place {
            agent,
            folder: folder.path().display().to_string(),
            limit: LIMIT,
            verify: self.seed.is_multiple_of(2),
        };
        let actor = self.number();
        let node = match self.wire {
            Wire::Tcp => Actor::node(actor, &place, self.speak.clone()),
            Wire::Sim => {
                let fabric: std::sync::Arc<dyn Fabric> = self.network.fabric(agent);
                Actor::node_here(actor, &place, fabric, self.speak.clone())
            }
        };
        self.actors.insert(actor, node);
        let address = self.ready(actor);
        let clients = (0..CLIENTS).map(|_| self.client(&place.socket())).collect();
        NodeSeat {
            place,
            actor,
            address,
            clients,
            _folder: folder,
        }
    }

    fn client(&mut self, socket: &str) -> ClientSeat {
        let actor = self.number();
        let client = Actor::client(actor, socket, self.speak.clone());
        self.actors.insert(actor, client);
        self.ready(actor);
        ClientSeat {
            actor,
            task: None,
            held: BTreeSet::new(),
        }
    }

    /// Waits until an actor is ready; what it says of itself. What others say meanwhile is heard.
    fn ready(&mut self, actor: u64) -> String {
        let end = Instant::now() + HANGS;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok((name, Some(line))) if name == actor && line.starts_with("0 ready") => {
                    return line["0 ready".len()..].trim().to_owned();
                }
                Ok(said) => self.hear(said),
                Err(_) => self.fail("an actor does not start"),
            }
        }
    }

    fn introduce(&mut self) {
        let all: Vec<_> = self
            .nodes
            .iter()
            .map(|node| format!("{}:{}", node.place.agent, node.address))
            .collect();
        for at in 0..self.nodes.len() {
            self.ask_node(at, Kind::Tell, 0, &format!("peers {}", all.join(" ")));
        }
    }

    fn ask(&mut self, actor: u64, node: usize, client: usize, kind: Kind, object: u64, command: &str) -> u64 {
        let token = self.number();
        let mut agents = BTreeSet::from([self.nodes[node].place.agent]);
        agents.extend(self.objects.get(&object).map(|object| object.reference.node));
        let task = Task {
            kind,
            actor,
            node,
            client,
            object,
            agents,
            doubt: false,
            begun: Instant::now(),
            step: self.step,
        };
        self.tasks.insert(token, task);
        if let Some(actor) = self.actors.get_mut(&actor) {
            actor.tell(format!("{token} {command}"));
        }
        token
    }

    fn ask_node(&mut self, node: usize, kind: Kind, object: u64, command: &str) -> u64 {
        let actor = self.nodes[node].actor;
        self.ask(actor, node, usize::MAX, kind, object, command)
    }

    /// Does things at random for so long, then ends all and looks at what is left.
    pub fn run(mut self, time: Duration) -> Figures {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.step += 1;
            self.act();
            self.listen();
        }
        self.finish()
    }

    /// Hears what has been said; waits for something where every client is busy.
    fn listen(&mut self) {
        let busy = self
            .nodes
            .iter()
            .flat_map(|node| &node.clients)
            .all(|client| client.task.is_some());
        let wait = Duration::from_millis(if busy { 1000 } else { 0 });
        match self.said.recv_timeout(wait) {
            Ok(said) => self.hear(said),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.fail("all actors are gone"),
        }
        while let Ok(said) = self.said.try_recv() {
            self.hear(said);
        }
        let late = self.tasks.values().find(|task| task.begun.elapsed() > HANGS);
        if let Some(task) = late {
            self.fail(&format!("{:?} of step {} hangs", task.kind, task.step));
        }
    }

    fn act(&mut self) {
        match self.dice.roll(20_000) {
            0..6 => return self.kill_node(),
            6..60 => return self.kill_client(),
            _ => {}
        }
        let (node, client) = (self.dice.one_of(self.nodes.len()), self.dice.one_of(CLIENTS));
        if self.nodes[node].clients[client].task.is_some() {
            return;
        }
        match self.dice.roll(100) {
            0..25 => self.put(node, client),
            25..55 => self.read(node, client),
            55..67 => self.read_part(node, client),
            67..77 => self.look(node, client),
            77..83 => self.drop_lease(node, client),
            83..95 => self.release_one(),
            95..98 => self.read_late(node, client),
            98 => self.persist(node, client),
            _ if self.dice.roll(2) == 0 => drop(self.ask_node(node, Kind::Tell, 0, "trim")),
            _ => drop(self.ask_node(node, Kind::Usage, 0, "usage")),
        }
    }

    fn begin(&mut self, node: usize, client: usize, token: u64) {
        self.nodes[node].clients[client].task = Some(token);
    }

    fn ask_client(&mut self, node: usize, client: usize, kind: Kind, object: u64, command: &str) -> u64 {
        let actor = self.nodes[node].clients[client].actor;
        let token = self.ask(actor, node, client, kind, object, command);
        self.begin(node, client, token);
        token
    }

    fn put(&mut self, node: usize, client: usize) {
        let there: u64 = self.objects.values().map(|object| object.reference.len).sum();
        if there > MOST {
            return self.release_one();
        }
        let (seed, len) = (self.dice.roll(1 << 30), self.dice.size());
        self.ask_client(node, client, Kind::Put { seed, len }, 0, &format!("put {seed} {len}"));
    }

    fn some_object(&mut self) -> Option<u64> {
        let at = self.dice.one_of(self.objects.len());
        self.objects.keys().nth(at).copied()
    }

    fn read(&mut self, node: usize, client: usize) {
        let Some(object) = self.some_object() else { return };
        let room = self.nodes[node].clients[client].held.len() < HELD && self.objects[&object].reference.len <= HOLD;
        let keep = room && self.dice.roll(3) == 0;
        self.read_object(node, client, object, keep);
    }

    fn read_object(&mut self, node: usize, client: usize, object: u64, keep: bool) {
        let command = format!("bring {}", text_of(&self.objects[&object].reference));
        let token = self.ask_node(node, Kind::Bring { keep }, object, &command);
        self.for_client(token, node, client);
    }

    fn for_client(&mut self, token: u64, node: usize, client: usize) {
        if let Some(task) = self.tasks.get_mut(&token) {
            task.client = client;
        }
        self.begin(node, client, token);
    }

    fn read_part(&mut self, node: usize, client: usize) {
        let Some(object) = self.some_object() else { return };
        let reference = self.objects[&object].reference.clone();
        let from = self.dice.roll(reference.len);
        let len = 1 + self.dice.roll(reference.len - from);
        let command = format!("range {} {from} {len}", text_of(&reference));
        let token = self.ask_node(node, Kind::Range { from, len }, object, &command);
        self.for_client(token, node, client);
    }

    fn look(&mut self, node: usize, client: usize) {
        let held = &self.nodes[node].clients[client].held;
        let at = self.dice.one_of(held.len());
        if let Some(handle) = held.iter().nth(at).copied() {
            self.ask_client(node, client, Kind::Look, 0, &format!("look {handle}"));
        }
    }

    fn drop_lease(&mut self, node: usize, client: usize) {
        let held = &mut self.nodes[node].clients[client].held;
        if let Some(handle) = held.pop_first() {
            self.ask_client(node, client, Kind::Tell, 0, &format!("drop {handle}"));
        }
    }

    fn persist(&mut self, node: usize, client: usize) {
        let Some(object) = self.some_object() else { return };
        let reference = self.objects[&object].reference.clone();
        let Some(home) = self.seat_of(reference.node) else {
            return;
        };
        let path = format!("{}/result-{}", self.nodes[home].place.folder, self.next);
        let command = format!("persist {} {path}", text_of(&reference));
        let token = self.ask_node(home, Kind::Persist { path }, object, &command);
        self.for_client(token, node, client);
        if let Some(task) = self.tasks.get_mut(&token) {
            task.node = node;
        }
    }

    fn seat_of(&self, agent: u32) -> Option<usize> {
        self.nodes.iter().position(|node| node.place.agent == agent)
    }

    /// What was released some time ago, or lost, is to be had by nobody.
    fn read_late(&mut self, node: usize, client: usize) {
        let (list, what) = match self.dice.roll(20) {
            0 => (&self.gone, "bring"),
            _ => (&self.released, "lease"),
        };
        let at = self.dice.one_of(list.len());
        let Some((reference, seed)) = list.get(at).cloned() else {
            return;
        };
        if what == "bring" {
            let token = self.ask_node(node, Kind::Late, 0, &format!("bring {}", text_of(&reference)));
            return self.for_client(token, node, client);
        }
        let command = format!("lease once {} {seed} 0 {}", text_of(&reference), reference.len);
        self.ask_client(node, client, Kind::Late, 0, &command);
    }

    /// Everything under way with this object may end either way.
    fn doubt_object(&mut self, object: u64) {
        let of = self
            .tasks
            .values_mut()
            .filter(|task| task.object == object && object != 0);
        of.for_each(|task| task.doubt = true);
    }

    fn release_one(&mut self) {
        let Some(number) = self.some_object() else { return };
        self.release(number);
    }

    fn release(&mut self, number: u64) {
        self.doubt_object(number);
        let Some(object) = self.objects.remove(&number) else {
            return;
        };
        self.figures.add("releases", 1);
        let agents: Vec<u32> = object.copies.iter().copied().chain([object.reference.node]).collect();
        self.releasing
            .insert(number, (object.reference.clone(), object.seed, agents.len()));
        for agent in agents {
            self.release_at(agent, &object.reference, Kind::Release { object: number });
        }
    }

    fn release_at(&mut self, agent: u32, reference: &ObjectRef, kind: Kind) {
        if let Some(seat) = self.seat_of(agent) {
            let command = format!("release {}", text_of(reference));
            self.ask_node(seat, kind, 0, &command);
        }
    }

    /// A node that got an object after its release is told to drop it again, as an agent whose news come too late is. Until
    /// it has, the object is under way.
    fn drop_late(&mut self, node: usize, reference: &ObjectRef, object: u64) {
        let command = format!("release {}", text_of(reference));
        self.ask_node(node, Kind::Tell, object, &command);
    }

    fn unpin(&mut self, node: usize, reference: &ObjectRef) {
        self.ask_node(node, Kind::Tell, 0, &format!("unpin {}", text_of(reference)));
    }
}
