//! Ends: of clients and nodes that are killed in the middle, and of the soak itself, after which nothing may be left.

use super::{Figures, HANGS, Kind, NODES, Soak, Task, Wire, descriptors};
use std::time::{Duration, Instant};

impl Soak {
    /// Kills a client whatever it does, and starts another one in its seat.
    pub(super) fn kill_client(&mut self) {
        let (node, client) = (self.dice.one_of(NODES), self.dice.one_of(super::CLIENTS));
        self.end_client(node, client);
        self.figures.add("clients killed", 1);
        let socket = self.nodes[node].place.socket();
        self.nodes[node].clients[client] = self.client(&socket);
    }

    fn end_client(&mut self, node: usize, client: usize) {
        let actor = self.nodes[node].clients[client].actor;
        drop(self.actors.remove(&actor)); // SIGKILL.
        self.nodes[node].clients[client].task = None;
        for task in self.forget(|task| task.actor == actor) {
            if let Kind::Lease { place, part, .. } = task.kind {
                self.let_go(node, &place, part);
            }
        }
    }

    /// Takes tasks out that nobody answers any more.
    fn forget(&mut self, which: impl Fn(&Task) -> bool) -> Vec<Task> {
        let tokens: Vec<u64> = self
            .tasks
            .iter()
            .filter(|(_, task)| which(task))
            .map(|(token, _)| *token)
            .collect();
        let mut forgotten = Vec::new();
        for token in tokens {
            if let Some(task) = self.tasks.remove(&token) {
                self.free(&task, token);
                forgotten.push(task);
            }
        }
        forgotten
    }

    /// Kills a node with its clients, and starts another one, with a number of its own, in its place.
    pub(super) fn kill_node(&mut self) {
        if self.next_agent as usize >= super::PLACES {
            return;
        }
        let at = self.dice.one_of(NODES);
        let (agent, actor) = (self.nodes[at].place.agent, self.nodes[at].actor);
        self.figures.add("nodes killed", 1);
        // What its clients pinned goes with it, so nothing is given back.
        let clients: Vec<u64> = self.nodes[at].clients.iter().map(|client| client.actor).collect();
        for client in &clients {
            drop(self.actors.remove(client));
        }
        if self.wire == Wire::Sim {
            self.network.kill(agent);
        }
        drop(self.actors.remove(&actor));
        let released = self.forget(|task| task.actor == actor || clients.contains(&task.actor));
        for task in self.tasks.values_mut().filter(|task| task.agents.contains(&agent)) {
            task.doubt = true;
        }
        self.move_objects(agent);
        let seat = self.seat();
        self.nodes[at] = seat;
        for task in released {
            if let Kind::Release { object } = task.kind {
                self.releasing.remove(&object); // Whether the others have heard of it is not known.
            }
        }
        self.introduce();
    }

    /// As a head does when an agent is lost: others are read from where there is a copy, else they are lost.
    fn move_objects(&mut self, agent: u32) {
        let mut lost = Vec::new();
        for (number, object) in &mut self.objects {
            object.copies.remove(&agent);
            if object.reference.node == agent {
                match object.copies.pop_first() {
                    Some(copy) => object.reference = object.reference.at(copy),
                    None => lost.push(*number),
                }
            }
        }
        for number in lost {
            let Some(object) = self.objects.remove(&number) else {
                continue;
            };
            self.figures.add("objects lost with their node", 1);
            // What is under way may still bring it somewhere, and is told to drop it there.
            if self.tasks.values().all(|task| task.object != number) {
                self.gone.push((object.reference, object.seed));
            }
        }
    }

    /// Hears until nothing is under way.
    fn settle(&mut self) {
        let end = Instant::now() + HANGS;
        while !self.tasks.is_empty() {
            if Instant::now() > end {
                let left: Vec<_> = self.tasks.values().map(|task| (&task.kind, task.step)).collect();
                self.fail(&format!("hangs at the end: {left:?}"));
            }
            if let Ok(said) = self.said.recv_timeout(Duration::from_millis(100)) {
                self.hear(said);
            }
        }
    }

    /// What a node says of itself: objects, bytes used, spilled, pinned, granted.
    fn usage(&mut self, node: usize) -> [u64; 5] {
        let token = self.number();
        let actor = self.nodes[node].actor;
        if let Some(actor) = self.actors.get_mut(&actor) {
            actor.tell(format!("{token} usage"));
        }
        loop {
            match self.said.recv_timeout(HANGS) {
                Ok((_, Some(line))) if line.starts_with(&format!("{token} ok ")) => {
                    let numbers: Vec<u64> = line
                        .split(' ')
                        .skip(2)
                        .map(|word| word.parse().expect("a number"))
                        .collect();
                    self.spills.insert(self.nodes[node].place.agent, numbers[5]);
                    return std::array::from_fn(|at| numbers[at]);
                }
                Ok(said) => self.hear(said),
                Err(_) => self.fail("a node does not say how full it is"),
            }
        }
    }

    fn wait_until(&mut self, what: &str, mut right: impl FnMut([u64; 5]) -> bool) {
        for node in 0..NODES {
            let end = Instant::now() + HANGS;
            loop {
                let usage = self.usage(node);
                if right(usage) {
                    break;
                }
                if Instant::now() > end {
                    let agent = self.nodes[node].place.agent;
                    self.fail(&format!(
                        "{what} on node {agent}, but: objects, used, spilled, pinned, granted are {usage:?}"
                    ));
                }
                std::thread::yield_now();
            }
        }
    }

    /// Reads all that is there a last time, lets go of everything, and looks at what is left.
    pub(super) fn finish(mut self) -> Figures {
        self.settle();
        for number in self.objects.keys().copied().collect::<Vec<_>>() {
            let node = self.dice.one_of(NODES);
            self.read_object(node, 0, number, false);
            self.settle();
        }
        for number in self.objects.keys().copied().collect::<Vec<_>>() {
            self.release(number);
        }
        for node in 0..NODES {
            for client in 0..super::CLIENTS {
                while !self.nodes[node].clients[client].held.is_empty() {
                    self.drop_lease(node, client);
                    self.settle();
                }
            }
        }
        self.settle();
        self.wait_until("nothing is held any more", |[objects, _, spilled, pinned, _]| {
            (objects, spilled, pinned) == (0, 0, 0)
        });
        for node in 0..NODES {
            for client in 0..super::CLIENTS {
                let actor = self.nodes[node].clients[client].actor;
                if let Some(actor) = self.actors.remove(&actor) {
                    actor.end();
                }
            }
        }
        self.wait_until("no memory is in use", |[_, used, _, _, granted]| {
            (used, granted) == (0, 0)
        });
        for node in 0..NODES {
            self.look_at_remains(node);
        }
        self.check_end()
    }

    /// A node of which nothing is held any more has no lease table left and no file.
    fn look_at_remains(&mut self, node: usize) {
        let actor = self.nodes[node].actor;
        let pid = self.actors.get(&actor).and_then(super::Actor::pid);
        let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).expect("it runs");
        let tables = maps.lines().filter(|line| line.contains("bridgehead-leases")).count();
        if tables > 0 {
            self.fail(&format!("{tables} lease tables of clients that are gone are mapped"));
        }
        let spilled = format!(
            "{}/spill/{}/life",
            self.nodes[node].place.folder, self.nodes[node].place.agent
        );
        let files = std::fs::read_dir(spilled).map_or(0, Iterator::count);
        if files > 0 {
            self.fail(&format!("{files} files of objects that are released are left"));
        }
        if let Some(actor) = self.actors.remove(&actor) {
            actor.end();
        }
        let folder = &self.nodes[node].place.folder;
        let left: Vec<_> = std::fs::read_dir(folder).expect("the folder").flatten().collect();
        if !left.is_empty() {
            self.fail(&format!("a node that has ended leaves {left:?}"));
        }
    }

    fn check_end(mut self) -> Figures {
        let spills = self.spills.values().sum();
        self.figures.add("spills", spills);
        self.figures.add("steps", self.step);
        let figures = std::mem::take(&mut self.figures);
        let (before, seed, wire) = (self.descriptors, self.seed, self.wire);
        drop(self);
        let after = descriptors();
        assert!(
            after <= before,
            "soak over {wire:?}: SEED={seed}: {} descriptors are left",
            after.saturating_sub(before)
        );
        let (done, refused) = (figures.of("reads"), figures.of("refused for want of room"));
        assert!(done > refused, "SEED={seed}: more was refused than done: {figures}");
        figures
    }
}
