//! Classes: tasks that ask for the same share one queue, so that what does not fit is looked at once, not once a task.

use bridgehead_spec::Resources;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

/// A queued task: higher priority first, then order of arrival.
pub(crate) type Entry = (i32, Reverse<u32>, u32);

/// The queue of one class.
#[derive(Debug)]
pub(crate) struct Class {
    pub resources: Resources,
    /// Whether an agent may be given more of these than it has room for.
    pub prefetchable: bool,
    pub ready: BinaryHeap<Entry>,
    /// Agents that may have room, each at most once; checked when taken.
    pub candidates: VecDeque<u32>,
    /// Assignments of others since the head of this queue could last not be placed.
    pub passed_over: u32,
}

/// All classes.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    pub list: Vec<Class>,
    by_resources: HashMap<Resources, u16>,
}

impl Classes {
    /// The number of the class that asks for `resources`; `true` when it is new.
    pub(crate) fn intern(&mut self, resources: &Resources) -> (u16, bool) {
        if let Some(&class) = self.by_resources.get(resources) {
            return (class, false);
        }
        let class = u16::try_from(self.list.len()).expect("a run asks for fewer than 65,536 different resources");
        self.by_resources.insert(resources.clone(), class);
        self.list.push(Class {
            resources: resources.clone(),
            prefetchable: resources.gpus == 0
                && resources.memory == 0
                && resources.named.is_empty()
                && resources.cpu_millis <= 1000,
            ready: BinaryHeap::new(),
            candidates: VecDeque::new(),
            passed_over: 0,
        });
        (class, true)
    }
}
