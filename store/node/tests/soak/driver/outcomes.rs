//! What came of what was asked, against the model.

use super::{Kind, Object, Soak, Task};
use crate::actors::{Said, Words, pattern};
use bridgehead_wire::ObjectRef;
use std::collections::BTreeSet;

/// Words of reasons that are a want of room, or of the time to make some.
const ROOM: [&str; 4] = ["is full", "no room", "in time", "index"];

impl Soak {
    pub(super) fn hear(&mut self, (name, line): Said) {
        let Some(line) = line else {
            if self.actors.contains_key(&name) {
                self.fail("an actor has ended by itself");
            }
            return; // It was killed.
        };
        let mut words = Words::of(&line);
        let token = words.number();
        let Some(task) = self.tasks.remove(&token) else {
            return; // Of one that was killed.
        };
        let word = words.word().to_owned();
        let is_whole = self.free(&task, token);
        self.judge(task, token, &word, words, is_whole);
    }

    /// The client of a task may do something else; whether there still is one.
    pub(super) fn free(&mut self, task: &Task, token: u64) -> bool {
        let client = self
            .nodes
            .get_mut(task.node)
            .and_then(|node| node.clients.get_mut(task.client));
        let Some(client) = client.filter(|client| client.task == Some(token)) else {
            return false;
        };
        client.task = None;
        true
    }

    fn judge(&mut self, task: Task, token: u64, word: &str, words: Words<'_>, has_client: bool) {
        let ok = word == "ok";
        match task.kind.clone() {
            Kind::Put { seed, len } => self.on_put(&task, token, word, words, (seed, len)),
            Kind::Publish {
                seed,
                reference,
                handle,
            } => {
                if !ok {
                    return self.refused(&task, words);
                }
                let number = self.number();
                let object = Object {
                    reference: *reference,
                    seed,
                    copies: BTreeSet::new(),
                };
                self.objects.insert(number, object);
                self.figures.add("puts", 1);
                if has_client {
                    self.ask_client(task.node, task.client, Kind::Tell, 0, &format!("drop {handle}"));
                }
            }
            Kind::Bring { keep } if ok => self.on_brought(&task, words, has_client, keep, None),
            Kind::Range { from, len } if ok => self.on_brought(&task, words, has_client, false, Some((from, len))),
            Kind::Bring { .. } | Kind::Range { .. } => self.refused(&task, words),
            Kind::Lease { keep, place, part } => {
                if !ok {
                    self.fail(&format!("a lease on what is pinned: {word} {}", words.rest()));
                }
                self.figures.add(if part { "parts read" } else { "reads" }, 1);
                if keep && has_client {
                    self.nodes[task.node].clients[task.client].held.insert(token);
                }
                self.let_go(task.node, &place, part);
            }
            Kind::Look => {
                if !ok {
                    self.fail(&format!("what is held: {word} {}", words.rest()));
                }
                self.figures.add("looks at held leases", 1);
            }
            Kind::Late => {
                if word != "err" {
                    self.fail(&format!("what is gone was to be had: {word} {}", words.rest()));
                }
                self.figures.add("late reads refused", 1);
            }
            Kind::Persist { path } => self.on_persisted(&task, ok, words, &path),
            Kind::Release { object } => self.on_released(object),
            Kind::Tell => {}
            Kind::Usage => {
                let mut words = words;
                let spilled = std::iter::repeat_with(|| words.number::<u64>()).take(6).last();
                let agent = self.nodes[task.node].place.agent;
                self.spills.insert(agent, spilled.unwrap_or(0));
            }
        }
    }

    fn on_put(&mut self, task: &Task, token: u64, word: &str, mut words: Words<'_>, (seed, len): (u64, u64)) {
        match word {
            "ok" if len <= super::LIMIT => {
                let reference = words.object();
                let command = format!("publish {}", crate::actors::text_of(&reference));
                let kind = Kind::Publish {
                    seed,
                    reference: Box::new(reference),
                    handle: token,
                };
                let publish = self.ask_node(task.node, kind, 0, &command);
                self.for_client(publish, task.node, task.client);
            }
            "never" if len > super::LIMIT => self.figures.add("puts beyond the store refused", 1),
            "err" => self.refused(task, words),
            _ => self.fail(&format!("a put of {len} bytes: {word} {}", words.rest())),
        }
    }

    /// Something was refused: in doubt, or for want of room.
    fn refused(&mut self, task: &Task, words: Words<'_>) {
        let reason = words.rest();
        if task.doubt {
            return self.figures.add("ended in doubt", 1);
        }
        if !ROOM.iter().any(|word| reason.contains(word)) {
            self.fail(&format!("{:?} of step {}: {reason}", task.kind, task.step));
        }
        self.figures.add("refused for want of room", 1);
    }

    fn on_brought(
        &mut self,
        task: &Task,
        mut words: Words<'_>,
        has_client: bool,
        keep: bool,
        range: Option<(u64, u64)>,
    ) {
        let place = words.object();
        let agent = self.nodes[task.node].place.agent;
        let object = self.objects.get_mut(&task.object);
        let Some(object) = object else {
            self.let_go(task.node, &place, false);
            return self.drop_late(task.node, &place, task.object);
        };
        let part = place.id() != object.reference.id();
        if part && range.is_none() {
            self.fail("a whole object came under another name");
        }
        if !part && agent != object.reference.node {
            object.copies.insert(agent);
        }
        let (from, len) = range.unwrap_or((0, object.reference.len));
        let seed = object.seed;
        if !has_client {
            return self.let_go(task.node, &place, part);
        }
        let how = if keep { "keep" } else { "once" };
        let command = format!("lease {how} {} {seed} {from} {len}", crate::actors::text_of(&place));
        let kind = Kind::Lease {
            keep,
            place: Box::new(place),
            part,
        };
        self.ask_client(task.node, task.client, kind, task.object, &command);
    }

    /// A read is over: its pin is given back, and a part goes.
    pub(super) fn let_go(&mut self, node: usize, place: &ObjectRef, part: bool) {
        self.unpin(node, place);
        if part {
            let agent = self.nodes[node].place.agent;
            self.release_at(agent, place, Kind::Tell);
        }
    }

    fn on_persisted(&mut self, task: &Task, ok: bool, words: Words<'_>, path: &str) {
        if !ok {
            return self.refused(task, words);
        }
        let bytes = std::fs::read(path);
        let _ = std::fs::remove_file(path); // With its node's folder at the latest.
        let Some(object) = self.objects.get(&task.object) else {
            return; // Released meanwhile; its node's folder may be gone too.
        };
        let len = usize::try_from(object.reference.len).expect("a small object");
        match bytes {
            Ok(bytes) if bytes == pattern(object.seed, 0, len) => self.figures.add("files", 1),
            Ok(_) => self.fail("a file has other bytes than its object"),
            Err(_) if task.doubt => {}
            Err(error) => self.fail(&format!("a file that was written: {error}")),
        }
    }

    /// A node has heard of a release. Once all have, and nothing is under way with the object, nobody can have it any more.
    fn on_released(&mut self, number: u64) {
        let Some((_, _, left)) = self.releasing.get_mut(&number) else {
            return;
        };
        *left -= 1;
        if *left > 0 {
            return;
        }
        let Some((reference, seed, _)) = self.releasing.remove(&number) else {
            return;
        };
        if self.tasks.values().all(|task| task.object != number) {
            self.released.push((reference, seed));
        }
        if self.released.len() > 50 {
            self.released.remove(0);
        }
    }
}
