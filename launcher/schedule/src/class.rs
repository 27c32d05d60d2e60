//! Classes: tasks that ask for the same share one queue, so that what does not fit is looked at once, not once a task.
//! Owns their requests and which has the next head; hot path: `push`, `remove`.

use crate::queue::{Entry, Queue};
use crate::room::{Ask, CPU, Dimensions, SLOTS};
use crate::shape::{Part, Shape};
use bridgehead_spec::Resources;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

/// The queue of one class.
#[derive(Debug)]
pub(crate) struct Class {
    /// What each of its tasks takes from an agent, or each rank of its gangs.
    pub asks: Vec<Ask>,
    /// How its ranks lie on agents, if its tasks are gangs.
    pub shape: Option<Shape>,
    /// Nanoseconds after which each of its tasks is ended; 0: none.
    pub limit_ns: u64,
    /// Whether an agent may be given more of these than it has room for.
    pub small: bool,
    /// The ready tasks, no others.
    pub ready: Queue,
    /// A run time in nanoseconds that few recent tasks exceeded; `None` before the first has ended.
    pub pace_ns: Option<u64>,
    /// Assignments of others since the head of this queue could last not be placed.
    pub passed_over: u32,
    /// How often in a row the head gave way to a later task whose inputs lay where room was.
    pub gave_way: u32,
    /// The agents that keep free what it asks for: one, or all that a gang needs, or none.
    pub reserved: Vec<Part>,
    /// Its head is among the heads. It is not while its tasks are being placed, and while no agent is large enough.
    pub listed: bool,
    /// Some agent was large enough when it was last looked; what is lost or joins asks for another look.
    pub hopeful: bool,
}

impl Class {
    /// Learns from a run time: up at once, down by a quarter each time, so that a few long tasks among short ones count.
    pub(crate) fn learn_pace(&mut self, elapsed_ns: u64) {
        let faded = self.pace_ns.map_or(0, |pace| pace - pace / 4);
        self.pace_ns = Some(elapsed_ns.max(faded));
    }

    /// Whether a task of it that starts now could be cut off after `remaining_ns`: by its limit, or else by what others took.
    pub(crate) fn is_late(&self, remaining_ns: u64) -> bool {
        let needs = if self.limit_ns > 0 {
            Some(self.limit_ns)
        } else {
            self.pace_ns
        };
        needs.is_some_and(|needs| needs > remaining_ns)
    }
}

/// Limits that differ by less than a hundredth share a class, so that tasks with a limit each do not get a queue each.
fn round_up(limit_ns: u64) -> u64 {
    const BITS: u32 = 7;
    let unit = 1u64 << (u64::BITS - limit_ns.leading_zeros()).saturating_sub(BITS);
    limit_ns.checked_next_multiple_of(unit).unwrap_or(u64::MAX)
}

/// What a task, or a rank, takes from an agent that asks for `resources`: a slot, and each amount that is not 0.
pub(crate) fn asks(resources: &Resources, dimensions: &mut Dimensions) -> Vec<Ask> {
    let amounts = dimensions.amounts(resources).into_iter();
    let mut asks = vec![(SLOTS, 1)];
    asks.extend(amounts.filter(|&(_, amount)| amount > 0));
    asks
}

/// All classes.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    pub list: Vec<Class>,
    /// By request, then by limit.
    by_resources: HashMap<Resources, BTreeMap<u64, u32>>,
    /// Those of gangs, by what a rank asks for, shape and limit.
    gangs: HashMap<(Resources, Shape, u64), u32>,
    /// The class of the last submit, which most often is the next one's too.
    last: Option<(Resources, u64, u32)>,
    /// The head of each queue, as (priority, arrival, class).
    pub heads: BTreeSet<Entry>,
}

impl Classes {
    pub(crate) fn get(&self, class: u32) -> &Class {
        &self.list[class as usize]
    }

    pub(crate) fn get_mut(&mut self, class: u32) -> &mut Class {
        &mut self.list[class as usize]
    }

    /// The number of the class that asks for `resources` with a limit of about `limit_ns`.
    pub(crate) fn intern(&mut self, resources: &Resources, limit_ns: u64, dimensions: &mut Dimensions) -> u32 {
        let limit_ns = round_up(limit_ns);
        if let Some((last, limit, class)) = &self.last {
            if *limit == limit_ns && last == resources {
                return *class;
            }
        }
        let known = self
            .by_resources
            .get(resources)
            .and_then(|limits| limits.get(&limit_ns));
        let class = match known {
            Some(&class) => class,
            None => {
                let class = self.add(resources, None, limit_ns, dimensions);
                let limits = self.by_resources.entry(resources.clone()).or_default();
                limits.insert(limit_ns, class);
                class
            }
        };
        self.last = Some((resources.clone(), limit_ns, class));
        class
    }

    /// The number of the class of gangs of this shape, each rank of which asks for `each`, with a limit of about `limit_ns`.
    pub(crate) fn intern_gang(
        &mut self,
        each: &Resources,
        shape: Shape,
        limit_ns: u64,
        dimensions: &mut Dimensions,
    ) -> u32 {
        let limit_ns = round_up(limit_ns);
        let key = (each.clone(), shape, limit_ns);
        if let Some(&class) = self.gangs.get(&key) {
            return class;
        }
        let class = self.add(each, Some(shape), limit_ns, dimensions);
        self.gangs.insert(key, class);
        class
    }

    fn add(&mut self, resources: &Resources, shape: Option<Shape>, limit_ns: u64, dimensions: &mut Dimensions) -> u32 {
        let class = u32::try_from(self.list.len()).expect("there are no more classes than tasks");
        let asks = asks(resources, dimensions);
        self.list.push(Class {
            small: shape.is_none() && matches!(asks[1..], [(CPU, 1..=1000)]),
            asks,
            shape,
            limit_ns,
            ready: Queue::default(),
            pace_ns: None,
            passed_over: 0,
            gave_way: 0,
            reserved: Vec::new(),
            listed: true,
            hopeful: false,
        });
        class
    }

    /// A task becomes ready.
    pub(crate) fn push(&mut self, class: u32, entry: Entry) {
        let queue = &mut self.list[class as usize].ready;
        let old = queue.first();
        queue.push(entry);
        if old.is_none_or(|old| entry < old) {
            self.move_head(class, old);
        }
    }

    /// A ready task is ready no more.
    pub(crate) fn remove(&mut self, class: u32, entry: Entry) {
        let queue = &mut self.list[class as usize].ready;
        let old = queue.first();
        queue.remove(entry);
        if old == Some(entry) {
            self.move_head(class, old);
        }
    }

    fn move_head(&mut self, class: u32, old: Option<Entry>) {
        let queue = &self.list[class as usize];
        if !queue.listed {
            return;
        }
        if let Some((priority, seq, _)) = old {
            self.heads.remove(&(priority, seq, class));
        }
        if let Some((priority, seq, _)) = queue.ready.first() {
            self.heads.insert((priority, seq, class));
        }
    }

    /// The first head behind `from` comes off the list, to be placed; with it comes the one behind it.
    pub(crate) fn take_head(&mut self, from: Bound<Entry>) -> Option<(Entry, Option<Entry>)> {
        let mut heads = self.heads.range((from, Bound::Unbounded)).copied();
        let (head, next) = (heads.next()?, heads.next());
        self.heads.remove(&head);
        self.list[head.2 as usize].listed = false;
        Some((head, next))
    }

    /// The head of a class is on the list (again).
    pub(crate) fn list_head(&mut self, class: u32) {
        let queue = &mut self.list[class as usize];
        queue.listed = true;
        if let Some((priority, seq, _)) = queue.ready.first() {
            self.heads.insert((priority, seq, class));
        }
    }

    /// The agents are others than before: what could run nowhere, or somewhere, is to be looked at again.
    pub(crate) fn agents_changed(&mut self) {
        for class in 0..self.list.len() {
            let queue = &mut self.list[class];
            queue.hopeful = false;
            if !queue.listed {
                self.list_head(class as u32);
            }
        }
    }
}
