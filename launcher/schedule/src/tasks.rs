//! Tasks as the scheduler knows them: small rows by id, and who waits for whom as linked lists in one vector. Owns rows
//! and edges; what they mean is the engine's. Hot path: `get`, `get_mut`, `link`, `unlink`.

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
    Ahead,
    /// A gang that was given to agents, each of which holds what its ranks ask for.
    Gang,
    /// Was with an agent that is gone; the caller has to say what becomes of it.
    Returned,
}

/// Whether a held task uses what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It does.
    Using,
    /// It waits for tasks of its own, and what it holds was given back.
    Blocked,
    /// It waited and goes on, so its agent may be short of what others took meanwhile.
    Resumed,
}

/// No agent, no edge.
pub(crate) const NONE: u32 = u32::MAX;

/// One task. A million of these wait in some runs, so its size is asserted.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Order of arrival; ties of priority go by it, and it tells one life of an id from the next.
    pub seq: u32,
    pub priority: i32,
    /// Dependencies that have not ended.
    pub open: u32,
    /// Slot of the agent that has it; of a gang, its first part.
    pub agent: u32,
    /// Its place in that agent's list of held tasks.
    pub place: u32,
    /// Slot of the agent that holds most of its inputs.
    pub prefers: u32,
    /// By how many KiB that agent is ahead of the others together (a weighted majority vote).
    pub prefers_kib: u32,
    /// First edge of the list of its dependents.
    pub dependents: u32,
    pub class: u32,
    pub phase: Phase,
    pub hold: Hold,
    /// It has been running for longer than short tasks do.
    pub lingers: bool,
}

impl Row {
    /// Whether its end is near, if it is held and of a class of `small` tasks.
    pub(crate) fn churns(&self, small: bool) -> bool {
        small && !self.lingers && self.hold != Hold::Blocked
    }

    /// Counts `bytes` of its inputs at `slot`: an agent that has more than all others together is always found.
    pub(crate) fn vote(&mut self, slot: u32, bytes: u64) {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        if self.prefers == slot {
            self.prefers_kib = self.prefers_kib.saturating_add(kib);
        } else if kib > self.prefers_kib {
            self.prefers = slot;
            self.prefers_kib = kib - self.prefers_kib;
        } else {
            self.prefers_kib -= kib;
        }
    }
}

const _: () = assert!(size_of::<Row>() <= 40, "a waiting task must stay small");
const _: () = assert!(size_of::<Edge>() <= 12, "a dependency must stay small");

const FORGOTTEN: Row = Row {
    seq: 0,
    priority: 0,
    open: 0,
    agent: NONE,
    place: 0,
    prefers: NONE,
    prefers_kib: 0,
    dependents: NONE,
    class: 0,
    phase: Phase::Unknown,
    hold: Hold::Using,
    lingers: false,
};

/// `dependent`, in its life `seq`, waits for the task whose list this is in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edge {
    pub dependent: u32,
    pub seq: u32,
    next: u32,
}

/// Rows live in pages, so that those of a run that goes on for days can be given back.
const PAGE: usize = 512;

/// All tasks by id.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    pages: Vec<Option<Box<[Row; PAGE]>>>,
    /// Known tasks by page.
    known: Vec<u16>,
    edges: Vec<Edge>,
    free_edge: Option<u32>,
}

pub(crate) fn index(task: TaskId) -> u32 {
    u32::try_from(task.0)
        .ok()
        .filter(|&id| id != NONE)
        .expect("a run has fewer than 2^32 - 1 tasks")
}

impl Tasks {
    /// The row of a known task.
    pub(crate) fn get(&self, task: u32) -> Option<&Row> {
        let task = task as usize;
        let row = &self.pages.get(task / PAGE)?.as_ref()?[task % PAGE];
        (row.phase != Phase::Unknown).then_some(row)
    }

    /// The row of a known task.
    pub(crate) fn get_mut(&mut self, task: u32) -> Option<&mut Row> {
        let task = task as usize;
        let row = &mut self.pages.get_mut(task / PAGE)?.as_mut()?[task % PAGE];
        (row.phase != Phase::Unknown).then_some(row)
    }

    /// The row of a task that the caller has just seen.
    pub(crate) fn row(&mut self, task: u32) -> &mut Row {
        self.get_mut(task).expect("the task was known a moment ago")
    }

    /// An unknown task becomes known and waits.
    pub(crate) fn learn(&mut self, task: u32, seq: u32, priority: i32, class: u32) -> &mut Row {
        let (page, at) = (task as usize / PAGE, task as usize % PAGE);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
            self.known.resize(page + 1, 0);
        }
        self.known[page] += 1;
        let page = self.pages[page].get_or_insert_with(|| Box::new([FORGOTTEN; PAGE]));
        page[at] = Row {
            seq,
            priority,
            class,
            phase: Phase::Waiting,
            ..FORGOTTEN
        };
        &mut page[at]
    }

    /// A known task without dependents becomes unknown.
    pub(crate) fn forget(&mut self, task: u32) {
        let page = task as usize / PAGE;
        if let Some(rows) = &mut self.pages[page] {
            rows[task as usize % PAGE].phase = Phase::Unknown;
            self.known[page] -= 1;
            if self.known[page] == 0 {
                self.pages[page] = None;
            }
        }
    }

    /// All known tasks.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Row)> {
        let pages = (0u32..)
            .zip(&self.pages)
            .filter_map(|(i, page)| Some((i, page.as_ref()?)));
        pages
            .flat_map(|(i, page)| (i * PAGE as u32..).zip(page.iter()))
            .filter(|(_, row)| row.phase != Phase::Unknown)
    }

    /// The dependents of a known task, newest first.
    pub(crate) fn dependents(&self, row: &Row) -> impl Iterator<Item = Edge> {
        let mut at = row.dependents;
        std::iter::from_fn(move || {
            let edge = *self.edges.get(at as usize)?;
            at = edge.next;
            Some(edge)
        })
    }

    /// `dependent`, in its life `seq`, waits for the known task `task`.
    pub(crate) fn link(&mut self, task: u32, dependent: u32, seq: u32) {
        let next = self.row(task).dependents;
        let edge = Edge { dependent, seq, next };
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
        self.row(task).dependents = slot;
    }

    /// Cuts the dependents of a known task loose and appends (dependent, life) to `out`, oldest first.
    pub(crate) fn unlink(&mut self, task: u32, out: &mut Vec<(u32, u32)>) {
        let mut at = std::mem::replace(&mut self.row(task).dependents, NONE);
        let start = out.len();
        while at != NONE {
            let edge = &mut self.edges[at as usize];
            out.push((edge.dependent, edge.seq));
            let next = std::mem::replace(&mut edge.next, self.free_edge.unwrap_or(NONE));
            self.free_edge = Some(at);
            at = next;
        }
        out[start..].reverse();
    }
}
