//! Tasks as the scheduler knows them: small rows by id, and who waits for whom as one linked list in one vector.

use bridgehead_spec::TaskId;

/// Where a task stands for the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not known (yet, or any more).
    Unknown,
    /// Waits for others.
    Waiting,
    /// In the queue of its class.
    Ready,
    /// Given to an agent, holding its resources.
    Held,
    /// Given to an agent beyond its resources, to be at hand when they come free.
    Prefetched,
}

/// No agent, no edge.
pub(crate) const NONE: u32 = u32::MAX;

/// One task. A million of these wait in some runs, so its size is asserted.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Bytes of inputs at `prefers`.
    pub prefers_bytes: u64,
    /// Order of arrival; ties of priority go by it.
    pub seq: u32,
    pub priority: i32,
    /// Dependencies that have not ended.
    pub open: u32,
    pub agent: u32,
    /// The agent that holds most input bytes.
    pub prefers: u32,
    /// First edge of the list of its dependents.
    pub dependents: u32,
    pub class: u16,
    pub phase: Phase,
    /// Waits for tasks of its own, so what it holds was given back.
    pub blocked: bool,
}

const _: () = assert!(size_of::<Row>() <= 40, "a waiting task must stay small");

impl Default for Row {
    fn default() -> Self {
        Self {
            prefers_bytes: 0,
            seq: 0,
            priority: 0,
            open: 0,
            agent: NONE,
            prefers: NONE,
            dependents: NONE,
            class: 0,
            phase: Phase::Unknown,
            blocked: false,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    dependent: u32,
    next: u32,
}

/// All tasks by id.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    rows: Vec<Row>,
    edges: Vec<Edge>,
    free_edge: Option<u32>,
}

pub(crate) fn index(task: TaskId) -> u32 {
    u32::try_from(task.0).expect("a run has fewer than 2^32 tasks")
}

impl Tasks {
    pub(crate) fn get(&self, task: u32) -> Option<&Row> {
        self.rows.get(task as usize)
    }

    pub(crate) fn get_mut(&mut self, task: u32) -> Option<&mut Row> {
        self.rows.get_mut(task as usize)
    }

    /// The row of `task`, made if it is new.
    pub(crate) fn entry(&mut self, task: u32) -> &mut Row {
        let task = task as usize;
        if self.rows.len() <= task {
            self.rows.resize_with(task + 1, Row::default);
        }
        &mut self.rows[task]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Row)> {
        (0..).zip(self.rows.iter())
    }

    /// `dependent` waits for `task`.
    pub(crate) fn link(&mut self, task: u32, dependent: u32) {
        let next = self.rows[task as usize].dependents;
        let edge = Edge { dependent, next };
        let slot = match self.free_edge {
            Some(slot) => {
                let after = self.edges[slot as usize].next;
                self.free_edge = (after != NONE).then_some(after);
                self.edges[slot as usize] = edge;
                slot
            }
            None => {
                self.edges.push(edge);
                u32::try_from(self.edges.len() - 1).expect("a run has fewer than 2^32 dependencies")
            }
        };
        self.rows[task as usize].dependents = slot;
    }

    /// Cuts the dependents of `task` loose and hands each to `each`, oldest first.
    pub(crate) fn unlink(&mut self, task: u32, out: &mut Vec<u32>) {
        let mut at = std::mem::replace(&mut self.rows[task as usize].dependents, NONE);
        let start = out.len();
        while at != NONE {
            let edge = self.edges[at as usize];
            out.push(edge.dependent);
            self.edges[at as usize].next = self.free_edge.unwrap_or(NONE);
            self.free_edge = Some(at);
            at = edge.next;
        }
        out[start..].reverse();
    }
}
