//! Where objects lie on purpose: shards that are spread over the nodes, and their replicas. A request becomes fetches by the
//! agents that are to have a copy; once they have it, others read it there. Owns the requests that are under way.

use super::Core;
use crate::names::Party;
use bridgehead_spec::ObjectId;
use bridgehead_wire::{Fetch, Memory, ObjectRef, Outcome, PlaceObjects, Placed, Placing, ReleaseObjects, outcome};
use std::collections::HashMap;

/// A request that is under way.
#[derive(Debug)]
struct Request {
    from: Party,
    token: u64,
    wanted: Vec<Target>,
    /// Fetches that are not done.
    open: usize,
    error: String,
    /// Where objects lie that were put into a memory on purpose, as their nodes told.
    told: Vec<ObjectRef>,
}

/// Where an object is to lie.
#[derive(Debug)]
struct Target {
    id: ObjectId,
    /// The nodes that are to have it, the first of which others read it from.
    nodes: Vec<u32>,
    /// Which memory of the first node, and which of those that it has.
    memory: (Memory, u32),
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Placings {
    requests: HashMap<u64, Request>,
    /// Fetches, by token: the request, and the agent that fetches.
    fetches: HashMap<u64, (u64, u32)>,
    next: u64,
    /// Requests that came before the gang was whole: the nodes to place on are not all there.
    early: Vec<(Party, PlaceObjects)>,
}

impl Placings {
    pub(super) fn waits_for(&self, fetch: u64) -> bool {
        self.fetches.contains_key(&fetch)
    }
}

impl Core {
    /// Objects are to be moved or copied.
    pub(super) fn on_place(&mut self, from: Party, place: PlaceObjects) {
        if self.gang_whole {
            self.begin_placing(from, &place);
        } else {
            self.placings.early.push((from, place));
        }
    }

    /// The gang is whole.
    pub(super) fn place_early(&mut self) {
        for (from, place) in std::mem::take(&mut self.placings.early) {
            self.begin_placing(from, &place);
        }
    }

    fn begin_placing(&mut self, from: Party, place: &PlaceObjects) {
        let wanted = match self.targets(place) {
            Ok(wanted) => wanted,
            Err(error) => {
                let answer = Placed {
                    token: place.token,
                    error,
                    ..Placed::default()
                };
                return self.answer_place(from, answer);
            }
        };
        let number = self.placings.next;
        self.placings.next += 1;
        let mut fetches = Vec::new();
        for target in &wanted {
            let there = self.objects.nodes(target.id);
            let object = self.objects.locate(target.id).cloned();
            for (at, &node) in target.nodes.iter().enumerate() {
                let memory = if at == 0 { target.memory } else { (Memory::Any, 0) };
                if !there.contains(&node) || memory.0 != Memory::Any {
                    fetches.push((node, object.clone(), memory));
                }
            }
        }
        let request = Request {
            from,
            token: place.token,
            wanted,
            open: fetches.len(),
            error: String::new(),
            told: Vec::new(),
        };
        self.placings.requests.insert(number, request);
        for (node, object, (memory, turn)) in fetches {
            let token = self.next_fetch;
            self.next_fetch += 1;
            self.placings.fetches.insert(token, (number, node));
            let fetch = Fetch {
                token,
                object,
                memory: memory.into(),
                turn,
                ..Fetch::default()
            };
            self.tell_agent(node, fetch);
        }
        self.end_placing(number);
    }

    /// Where each object is to lie.
    fn targets(&self, place: &PlaceObjects) -> Result<Vec<Target>, String> {
        let agents: Vec<u32> = self.agents.keys().copied().collect();
        let replicas = place.replicas.max(1) as usize;
        if replicas > agents.len() {
            let have = agents.len();
            return Err(format!(
                "replicas={replicas}: the run has {have} nodes, and each copy needs one of its own"
            ));
        }
        let cycle = self.cycle(place.placing(), &agents)?;
        let count = place.objects.len();
        let mut turns = HashMap::new();
        let target = |(i, object): (usize, &ObjectRef)| {
            let id = object.id();
            let here = self.objects.nodes(id);
            let Some(&first) = here.first() else {
                return Err(format!(
                    "shard {i} (object {id}) is not in the stores of this run any more"
                ));
            };
            let node = match place.placing() {
                Placing::Stay => first,
                Placing::Spread | Placing::ByGpu => cycle[i % cycle.len()],
                Placing::ByRank | Placing::ByNuma => agents[i * agents.len() / count],
                Placing::Near => place
                    .near
                    .get(i)
                    .copied()
                    .filter(|near| agents.contains(near))
                    .unwrap_or(first),
            };
            let turn = turns.entry(node).or_insert(0);
            let memory = match place.gpu {
                0 => (memory(place.placing()), *turn),
                number => self.gpu_of(node, number - 1)?,
            };
            *turn += 1;
            let at = agents.iter().position(|&agent| agent == node).unwrap_or(0);
            let nodes = (0..replicas).map(|more| agents[(at + more) % agents.len()]).collect();
            Ok(Target { id, nodes, memory })
        };
        place.objects.iter().enumerate().map(target).collect()
    }

    /// The memory of a GPU of a node, if that has one of this number.
    fn gpu_of(&self, node: u32, gpu: u32) -> Result<(Memory, u32), String> {
        let have = self.agents.get(&node).map_or(0, |row| row.resources.gpus);
        if gpu < have {
            return Ok((Memory::Gpu, gpu));
        }
        let has = match have {
            0 => "no GPU".to_owned(),
            1 => "GPU 0 only".to_owned(),
            more => format!("GPUs 0 to {}", more - 1),
        };
        Err(format!("gpu={gpu}: node {node} of this run was given {has}"))
    }

    /// The nodes that take shards in turn.
    fn cycle(&self, placing: Placing, agents: &[u32]) -> Result<Vec<u32>, String> {
        if placing != Placing::ByGpu {
            return Ok(agents.to_vec());
        }
        let gpus = |(&agent, row): (&u32, &super::AgentRow)| std::iter::repeat_n(agent, row.resources.gpus as usize);
        let all: Vec<u32> = self.agents.iter().flat_map(gpus).collect();
        if all.is_empty() {
            return Err("place=\"by_gpu\": no agent of this run was given a GPU".to_owned());
        }
        Ok(all)
    }

    /// An agent has a copy that it was asked to make, or cannot have it.
    pub(super) fn on_placed(&mut self, fetch: u64, outcome: Option<&Outcome>) {
        let Some((number, _)) = self.placings.fetches.remove(&fetch) else {
            return;
        };
        let Some(request) = self.placings.requests.get_mut(&number) else {
            return;
        };
        request.open -= 1;
        match outcome.and_then(|outcome| outcome.kind.as_ref()) {
            Some(outcome::Kind::Value(value)) => request.told.extend(value.object().cloned()),
            Some(outcome::Kind::Failure(failure)) => request.error.clone_from(&failure.message),
            _ => "an agent gave no answer".clone_into(&mut request.error),
        }
        self.end_placing(number);
    }

    /// An agent is gone, and with it the copies that it was to make.
    pub(super) fn agent_left_placings(&mut self, agent: u32) {
        let theirs = self.placings.fetches.iter().filter(|(_, (_, at))| *at == agent);
        let mut theirs: Vec<u64> = theirs.map(|(fetch, _)| *fetch).collect();
        theirs.sort_unstable();
        let why = format!("agent {agent} was lost while shards were on their way to it");
        let failure = bridgehead_wire::Failure::new(bridgehead_wire::FailureCause::LostNode, "object-lost", why);
        let outcome = Outcome::failure(failure);
        for fetch in theirs {
            self.on_placed(fetch, Some(&outcome));
        }
    }

    fn end_placing(&mut self, number: u64) {
        if self
            .placings
            .requests
            .get(&number)
            .is_none_or(|request| request.open > 0)
        {
            return;
        }
        let Some(request) = self.placings.requests.remove(&number) else {
            return;
        };
        let mut answer = Placed {
            token: request.token,
            error: request.error,
            ..Placed::default()
        };
        if answer.error.is_empty() {
            for target in &request.wanted {
                self.settle(target.id, &target.nodes);
            }
            for object in request.told.iter().filter(|object| object.numa > 0 || object.gpu > 0) {
                self.objects.moved(object);
            }
            let wanted = request.wanted.iter();
            let places = wanted.filter_map(|target| self.objects.locate(target.id).cloned());
            answer.objects = places.collect();
            if answer.objects.len() < request.wanted.len() {
                "a shard was lost with its node meanwhile".clone_into(&mut answer.error);
            }
        }
        self.answer_place(request.from, answer);
    }

    /// Others read the object from the first of `nodes` from now on; where they read it before, it is not needed unless that
    /// is among `nodes` too.
    fn settle(&mut self, id: ObjectId, nodes: &[u32]) {
        let before = self.objects.locate(id).map(|place| place.node);
        let Some(&first) = nodes.first() else { return };
        self.objects.prefer(id, first);
        let Some(before) = before.filter(|before| !nodes.contains(before)) else {
            return;
        };
        if let Some(object) = self.objects.drop_copy(id, before) {
            let objects = vec![object];
            self.tell_agent(before, ReleaseObjects { objects });
        }
    }

    fn answer_place(&mut self, to: Party, mut answer: Placed) {
        match to {
            Party::Client(conn) if self.clients.contains_key(&conn) => self.tell(conn, answer),
            Party::Worker(agent, worker) if self.agents.contains_key(&agent) => {
                answer.for_worker = Some(worker);
                self.tell_agent(agent, answer);
            }
            _ => {} // It is gone.
        }
    }
}

/// The memory of its node that a shard is to lie in.
fn memory(placing: Placing) -> Memory {
    match placing {
        Placing::ByNuma => Memory::Numa,
        Placing::ByGpu => Memory::Gpu,
        _ => Memory::Any,
    }
}
