//! The run's table of named values: which versions there are, who waits for which, who follows a stream and how far it has
//! come. Pure: requests in, replies and dropped values out. Owns no bytes and no holds: what it drops, `core/named.rs`
//! releases. Not journalled: names live as long as the attempt (`docs/decisions/0012-named-objects.md`).

use crate::core::ConnId;
use bridgehead_spec::ObjectId;
use bridgehead_wire::{ObjectRef, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Longest name, bytes.
const LONGEST: usize = 256;
/// Names and versions that an error lists.
const LISTED: usize = 8;

/// A process that uses names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// A client.
    Client(ConnId),
    /// A worker of an agent.
    Worker(u32, u32),
}

/// What a request is answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A version with its value.
    Value(u64, Value),
    /// It is done; about this version, where it is about one.
    Done(u64),
    /// The versions of a name.
    Versions(Vec<u64>),
    /// All names.
    Names(Vec<String>),
    /// The stream has ended.
    Ended,
    /// There is no such name; [`Names::ask`] words it.
    Unknown,
    /// A short kind, and words for people.
    Failed(&'static str, String),
}

/// An answer on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// To whom.
    pub to: Party,
    /// Their token.
    pub token: u64,
    /// What.
    pub answer: Answer,
}

/// What a change leads to.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// Answers, in order.
    pub replies: Vec<Reply>,
    /// Values that the table needs no more.
    pub dropped: Vec<Value>,
}

/// What is asked about a name.
#[derive(Debug, Clone, PartialEq)]
pub enum Want {
    /// A new version; without a number the next one. A number that is not beyond the newest changes nothing.
    Put(Option<u64>, Value),
    /// A version, the newest one without a number, with its value or without (`bare`); `wait`: once it is there.
    Get {
        /// The number.
        version: Option<u64>,
        /// Without the value.
        bare: bool,
        /// Waits.
        wait: bool,
    },
    /// The first version after this one, for a watch of the asker's.
    Next {
        /// The asker's number for it.
        watch: u64,
        /// What it has taken.
        after: u64,
    },
    /// The versions that are kept.
    Versions,
    /// No more versions.
    Close,
    /// Forget it.
    Delete,
    /// Keep so many versions (0: all); a put waits until the oldest one has been taken (`block`).
    Stream {
        /// How many.
        keep: u32,
        /// Waits.
        block: bool,
    },
}

#[derive(Debug)]
struct Version {
    value: Value,
    /// Somebody was given it.
    taken: bool,
}

#[derive(Debug)]
struct Parked {
    to: Party,
    token: u64,
    task: Option<u64>,
    want: Want,
}

/// A name with its versions, or one that is only waited for.
#[derive(Debug, Default)]
struct Entry {
    versions: BTreeMap<u64, Version>,
    /// Versions that went down with an agent.
    lost: BTreeSet<u64>,
    newest: u64,
    keep: u32,
    block: bool,
    /// A stream was asked for, by this task where it was one.
    declared: bool,
    owner: Option<u64>,
    closed: bool,
    /// The task that put last.
    writer: Option<u64>,
    /// Why no more versions come, though the stream was not closed.
    broken: Option<String>,
    /// How far each watch has come.
    watches: HashMap<(Party, u64), u64>,
    parked: Vec<Parked>,
}

/// All names.
#[derive(Debug, Default)]
pub struct Names {
    entries: BTreeMap<String, Entry>,
    ended: bool,
}

impl Names {
    /// A request about `name`, by `to` under its `token`, made by `task` where it is a worker's.
    pub fn ask(&mut self, (to, token): (Party, u64), task: Option<u64>, name: &str, want: Want) -> Effects {
        let mut out = Effects::default();
        if name.is_empty() || name.len() > LONGEST {
            let why = format!("a name has 1 to {LONGEST} bytes, this one has {}", name.len());
            out.drop_of(want);
            out.reply(to, token, Answer::Failed("name-bad", why));
            return out;
        }
        if want == Want::Delete {
            self.delete((to, token), name, &mut out);
        } else {
            self.ask_entry(name, Parked { to, token, task, want }, &mut out);
        }
        for reply in out.replies.iter_mut().filter(|reply| reply.answer == Answer::Unknown) {
            reply.answer = self.unknown(name);
        }
        out
    }

    fn ask_entry(&mut self, name: &str, parked: Parked, out: &mut Effects) {
        if !self.entries.contains_key(name) {
            self.entries.insert(name.to_owned(), Entry::default());
        }
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        match entry.take(name, parked, out) {
            Some(parked) if self.ended => entry.refuse(name, parked, out),
            Some(parked) => entry.parked.push(parked),
            None => {}
        }
        entry.serve(name, out);
        if entry.is_idle() {
            self.entries.remove(name);
        }
    }

    /// All names that have a version or are streams.
    pub fn known(&self) -> impl Iterator<Item = &str> {
        let known = self.entries.iter().filter(|(_, entry)| entry.is_known());
        known.map(|(name, _)| name.as_str())
    }

    /// Whether no name is known, and nobody waits for one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn unknown(&self, name: &str) -> Answer {
        let mut listed = self.known().take(LISTED).collect::<Vec<_>>().join(", ");
        if listed.is_empty() {
            "none".clone_into(&mut listed);
        } else if self.known().nth(LISTED).is_some() {
            listed.push_str(", ...");
        }
        let why = format!("the run has no value named {name:?} (it has: {listed}): give a timeout to wait for it");
        Answer::Failed("name-unknown", why)
    }

    /// The names with their versions and the bytes of those in the stores or in here.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, usize, u64)> {
        let known = self.entries.iter().filter(|(_, entry)| entry.is_known());
        known.map(|(name, entry)| {
            let bytes = entry.versions.values().map(|version| length(&version.value)).sum();
            (name.as_str(), entry.versions.len(), bytes)
        })
    }

    fn delete(&mut self, (to, token): (Party, u64), name: &str, out: &mut Effects) {
        match self.entries.remove(name) {
            Some(mut entry) if entry.is_known() => {
                entry.closed = true;
                for parked in std::mem::take(&mut entry.parked) {
                    entry.refuse(name, parked, out);
                }
                out.dropped
                    .extend(entry.versions.into_values().map(|version| version.value));
                out.reply(to, token, Answer::Done(entry.newest));
            }
            other => {
                if let Some(entry) = other {
                    self.entries.insert(name.to_owned(), entry); // Somebody waits for it.
                }
                out.reply(to, token, Answer::Unknown);
            }
        }
    }

    /// A watch is over.
    pub fn unwatch(&mut self, to: Party, watch: u64) -> Effects {
        self.each(|entry| entry.watches.retain(|of, _| *of != (to, watch)))
    }

    /// A process is gone: it waits for nothing any more, and its watches hold nobody up.
    pub fn gone(&mut self, party: impl Fn(Party) -> bool) -> Effects {
        let mut dropped = Vec::new();
        let mut out = self.each(|entry| {
            entry.watches.retain(|(to, _), _| !party(*to));
            for parked in entry.parked.extract_if(.., |parked| party(parked.to)) {
                if let Want::Put(_, value) = parked.want {
                    dropped.push(value);
                }
            }
        });
        out.dropped.extend(dropped);
        out
    }

    /// The asker waits no longer for the request under `token`: it is answered, unless it has been.
    pub fn forget(&mut self, to: Party, token: u64) -> Effects {
        let mut out = Effects::default();
        for (name, entry) in &mut self.entries {
            for parked in entry.parked.extract_if(.., |p| p.to == to && p.token == token) {
                let why = late(name, &parked.want, entry.newest);
                out.drop_of(parked.want);
                out.reply(to, token, Answer::Failed("name-timeout", why));
            }
        }
        self.tidy_all();
        out
    }

    /// A task has ended, well or (`reason`) not: streams that it declared end, names that only it wrote are broken off.
    pub fn task_ended(&mut self, task: u64, reason: Option<&str>) -> Effects {
        self.each(|entry| {
            if reason.is_none() && entry.owner == Some(task) {
                entry.closed = true;
            }
            if let Some(reason) = reason.filter(|_| !entry.closed) {
                if entry.owner == Some(task) || entry.writer == Some(task) {
                    entry.broken = Some(reason.to_owned());
                }
            }
        })
    }

    /// These objects went down with their agent: the versions that they were.
    pub fn lost(&mut self, ids: &[ObjectId]) -> Effects {
        self.each(|entry| {
            let gone = |version: &Version| version.value.object().is_some_and(|object| ids.contains(&object.id()));
            let numbers = entry.versions.iter().filter(|(_, version)| gone(version));
            for number in numbers.map(|(number, _)| *number).collect::<Vec<_>>() {
                entry.versions.remove(&number);
                entry.lost.insert(number);
            }
        })
    }

    /// The run has ended: nobody waits any more.
    pub fn end(&mut self) -> Effects {
        self.ended = true;
        let mut out = Effects::default();
        for (name, entry) in &mut self.entries {
            entry.closed = true;
            for parked in std::mem::take(&mut entry.parked) {
                entry.refuse(name, parked, &mut out);
            }
        }
        out
    }

    fn each(&mut self, mut change: impl FnMut(&mut Entry)) -> Effects {
        let mut out = Effects::default();
        for (name, entry) in &mut self.entries {
            change(entry);
            entry.serve(name, &mut out);
        }
        self.tidy_all();
        out
    }

    fn tidy_all(&mut self) {
        self.entries.retain(|_, entry| !entry.is_idle());
    }
}

impl Effects {
    fn reply(&mut self, to: Party, token: u64, answer: Answer) {
        self.replies.push(Reply { to, token, answer });
    }

    fn drop_of(&mut self, want: Want) {
        if let Want::Put(_, value) = want {
            self.dropped.push(value);
        }
    }
}

impl Entry {
    fn is_known(&self) -> bool {
        self.newest > 0 || self.declared
    }

    fn is_idle(&self) -> bool {
        !self.is_known() && self.parked.is_empty() && self.watches.is_empty()
    }

    /// Answers a request, or gives it back because it has to wait.
    fn take(&mut self, name: &str, parked: Parked, out: &mut Effects) -> Option<Parked> {
        let Parked { to, token, task, want } = parked;
        let want = match want {
            Want::Put(number, value) => return self.put(name, (to, token, task), number, value, out),
            want => want,
        };
        let answer = match want {
            Want::Get { version, bare, wait } => self.get(name, version, bare, wait),
            Want::Next { watch, after } => self.follow(name, (to, watch), after),
            Want::Versions if self.is_known() => Some(Answer::Versions(self.versions.keys().copied().collect())),
            Want::Close if self.is_known() => {
                self.closed = true;
                Some(Answer::Done(self.newest))
            }
            Want::Stream { keep, block } => Some(self.declare(name, task, (keep, block), out)),
            _ => Some(Answer::Unknown),
        };
        match answer {
            Some(answer) => out.reply(to, token, answer),
            None => return Some(Parked { to, token, task, want }),
        }
        None
    }

    /// The next version for a watch, which has taken all up to `after`.
    fn follow(&mut self, name: &str, watch: (Party, u64), after: u64) -> Option<Answer> {
        self.watches.insert(watch, after);
        let answer = self.next(name, after)?;
        if matches!(answer, Answer::Ended | Answer::Failed(..)) {
            self.watches.remove(&watch);
        }
        Some(answer)
    }

    fn declare(&mut self, name: &str, task: Option<u64>, how: (u32, bool), out: &mut Effects) -> Answer {
        if self.closed {
            return closed(name);
        }
        (self.keep, self.block) = how;
        (self.declared, self.owner) = (true, task);
        self.broken = None;
        self.trim(out);
        Answer::Done(self.newest)
    }

    fn put(
        &mut self,
        name: &str,
        (to, token, task): (Party, u64, Option<u64>),
        number: Option<u64>,
        value: Value,
        out: &mut Effects,
    ) -> Option<Parked> {
        if self.closed {
            out.dropped.push(value);
            out.reply(to, token, closed(name));
            return None;
        }
        if let Some(number) = number.filter(|&number| number <= self.newest) {
            out.dropped.push(value); // A writer that runs again puts what it has put before.
            out.reply(to, token, Answer::Done(number));
            return None;
        }
        if self.block && self.is_full() && !self.may_drop_oldest() {
            let want = Want::Put(number, value);
            return Some(Parked { to, token, task, want });
        }
        let number = number.unwrap_or(self.newest + 1);
        self.newest = number;
        self.writer = task;
        self.broken = None;
        self.versions.insert(number, Version { value, taken: false });
        self.trim(out);
        out.reply(to, token, Answer::Done(number));
        None
    }

    fn is_full(&self) -> bool {
        self.keep > 0 && self.versions.len() >= self.keep as usize
    }

    /// Whether the oldest version has been taken, by every watch that is there.
    fn may_drop_oldest(&self) -> bool {
        let Some((&number, version)) = self.versions.first_key_value() else {
            return true;
        };
        version.taken && self.watches.values().all(|&taken| taken >= number)
    }

    fn trim(&mut self, out: &mut Effects) {
        while self.keep > 0 && self.versions.len() > self.keep as usize {
            if let Some((_, version)) = self.versions.pop_first() {
                out.dropped.push(version.value);
            }
        }
    }

    fn give(&mut self, number: u64) -> Option<Answer> {
        let version = self.versions.get_mut(&number)?;
        version.taken = true;
        Some(Answer::Value(number, version.value.clone()))
    }

    fn get(&mut self, name: &str, version: Option<u64>, bare: bool, wait: bool) -> Option<Answer> {
        let number = version.unwrap_or_else(|| self.newest.max(1));
        if bare && self.versions.contains_key(&number) {
            return Some(Answer::Done(number));
        }
        if let Some(answer) = self.give(number) {
            return Some(answer);
        }
        if self.lost.contains(&number) {
            return Some(lost(name, number));
        }
        if number <= self.newest {
            return Some(self.dropped(name, number));
        }
        if let Some(answer) = self.no_more(name, Some(number)) {
            return Some(answer);
        }
        match (wait, self.is_known()) {
            (true, _) => None,
            (false, true) => Some(Answer::Failed("name-unknown", self.not_yet(name, number))),
            (false, false) => Some(Answer::Unknown),
        }
    }

    fn next(&mut self, name: &str, after: u64) -> Option<Answer> {
        let here = self
            .versions
            .range(after.saturating_add(1)..)
            .next()
            .map(|(number, _)| *number);
        let gone = self.lost.range(after.saturating_add(1)..).next().copied();
        match (here, gone) {
            (here, Some(gone)) if here.is_none_or(|here| gone < here) => Some(lost(name, gone)),
            (Some(here), _) => self.give(here),
            _ => self.no_more(name, None),
        }
    }

    /// Why nothing beyond the newest version will come, if that is so. `wanted`: a version that was asked for by its number.
    fn no_more(&self, name: &str, wanted: Option<u64>) -> Option<Answer> {
        if let Some(reason) = self.broken.as_ref().filter(|_| !self.closed) {
            let why = format!("{name:?} was broken off after version {}: {reason}", self.newest);
            return Some(Answer::Failed("stream-broken", why));
        }
        match wanted {
            _ if !self.closed => None,
            None => Some(Answer::Ended),
            Some(_) => {
                let why = format!("{name:?} was closed after version {}", self.newest);
                Some(Answer::Failed("name-unknown", why))
            }
        }
    }

    fn not_yet(&self, name: &str, number: u64) -> String {
        let newest = self.newest;
        format!("{name:?} has no version {number} yet, its newest one is {newest}: give a timeout to wait for it")
    }

    fn dropped(&self, name: &str, number: u64) -> Answer {
        let kept: Vec<String> = self.versions.keys().map(u64::to_string).collect();
        let kept = if kept.len() > LISTED {
            format!("{} to {}", kept[0], kept[kept.len() - 1])
        } else {
            kept.join(", ")
        };
        let why = format!(
            "version {number} of {name:?} is gone: it keeps {} versions, which are {}",
            self.keep,
            if kept.is_empty() { "none" } else { &kept }
        );
        Answer::Failed("version-gone", why)
    }

    /// Answers what waited and need wait no longer, until nothing changes: a version lets a watch go on, and that a put.
    fn serve(&mut self, name: &str, out: &mut Effects) {
        loop {
            let before = (self.parked.len(), self.newest);
            for parked in std::mem::take(&mut self.parked) {
                if let Some(parked) = self.take(name, parked, out) {
                    self.parked.push(parked);
                }
            }
            if (self.parked.len(), self.newest) == before {
                return;
            }
        }
    }

    /// Answers what waits and cannot be had any more.
    fn refuse(&mut self, name: &str, parked: Parked, out: &mut Effects) {
        let answer = match parked.want {
            Want::Next { .. } => Answer::Ended,
            _ => Answer::Failed(
                "name-unknown",
                format!("{name:?} was waited for, but the run ended or it was deleted"),
            ),
        };
        out.drop_of(parked.want);
        out.reply(parked.to, parked.token, answer);
    }
}

fn length(value: &Value) -> u64 {
    match &value.kind {
        Some(bridgehead_wire::value::Kind::Inline(bytes)) => bytes.len() as u64,
        _ => value.object().map_or(0, |object: &ObjectRef| object.len),
    }
}

fn closed(name: &str) -> Answer {
    let why = format!("{name:?} is closed: no version can follow; use another name, or delete it first");
    Answer::Failed("stream-closed", why)
}

fn lost(name: &str, number: u64) -> Answer {
    let why = format!("version {number} of {name:?} went down with the agent on whose node it lay");
    Answer::Failed("object-lost", why)
}

fn late(name: &str, want: &Want, newest: u64) -> String {
    match want {
        Want::Put(..) => {
            format!("nobody took the oldest version of {name:?} in time, so there was no room for another")
        }
        Want::Next { after, .. } => format!("no version of {name:?} after {after} came in time"),
        _ if newest == 0 => format!("no value named {name:?} was put in time"),
        _ => format!("what was waited for of {name:?} did not come in time: its newest version is {newest}"),
    }
}

#[cfg(test)]
mod tests;
