//! The scheduler's laws under random events: a model beside the engine says what may happen, and every invariant is walked
//! after each event. A failure names its seed.

use bridgehead_schedule::{Engine, Shape};
use bridgehead_spec::{AgentId, Resources, TaskId};
use std::collections::{BTreeMap, BTreeSet};

/// A small generator (xorshift64*), so that a seed gives the same events for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let n = from.len() as u64;
        (n > 0).then(|| from[self.below(n) as usize])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Waiting,
    Given(AgentId),
    Finished,
    Dropped,
}

struct Task {
    /// Each rank's, if it is a gang.
    asks: Resources,
    shape: Option<Shape>,
    /// Where its ranks are, if it is a gang that was given out.
    parts: Vec<(AgentId, u32)>,
    limit_ns: u64,
    priority: i32,
    needs: Vec<TaskId>,
    is: Is,
    blocked: bool,
    resumed: bool,
}

struct Model {
    engine: Engine,
    random: Random,
    prefetch: usize,
    agents: BTreeMap<AgentId, Resources>,
    remaining_ns: u64,
    most: usize,
    tasks: Vec<Task>,
    log: Vec<(TaskId, AgentId)>,
}

fn largest() -> Resources {
    Resources {
        cpu_millis: 8000,
        memory: 64,
        gpus: 4,
        named: [("licence".to_owned(), 3)].into(),
    }
}

impl Task {
    /// How often what it asks for is held by an agent.
    fn ranks_at(&self, agent: AgentId) -> u32 {
        match (self.is, self.shape) {
            (Is::Given(_), Some(_)) => self
                .parts
                .iter()
                .filter(|part| part.0 == agent)
                .map(|part| part.1)
                .sum(),
            (Is::Given(at), None) => u32::from(at == agent),
            _ => 0,
        }
    }

    /// Whether `parts` are what it may be given: all ranks, in the shape and the order that it was promised.
    fn accepts(&self, parts: &[(AgentId, u32)]) -> bool {
        let Some(shape) = self.shape else {
            return parts.is_empty();
        };
        let ranks: u32 = parts.iter().map(|part| part.1).sum();
        let Some(((last, fewest), others)) = parts.split_last() else {
            return false;
        };
        let ascending = others.is_sorted_by(|a, b| a.0 < b.0);
        let in_order = ascending && others.last().is_none_or(|before| before.0 < *last);
        let exact = |each: u32| others.iter().all(|part| part.1 == each) && *fewest <= each;
        (shape.least..=shape.most).contains(&ranks)
            && match shape.per_agent {
                None => in_order,
                Some(each) => exact(each) && (in_order || *fewest < each && ascending),
            }
    }
}

impl Model {
    fn new(seed: u64, prefetch: usize) -> Self {
        Self {
            engine: Engine::new(prefetch),
            random: Random(seed * 0x9E37_79B9 + 1),
            prefetch,
            agents: BTreeMap::new(),
            remaining_ns: u64::MAX,
            most: usize::MAX,
            tasks: Vec::new(),
            log: Vec::new(),
        }
    }

    fn asks(&mut self) -> Resources {
        // (thousandths of a core, memory, GPUs, licences)
        let kinds = [
            (1000, 0, 0, 0),
            (1000, 0, 0, 0),
            (1000, 0, 0, 0),
            (0, 0, 0, 0),
            (250, 0, 0, 0),
            (2000, 7, 0, 0),
            (8000, 0, 0, 0),
            (1000, 32, 1, 0),
            (0, 7, 2, 0),
            (1000, 0, 0, 1),
            (250, 0, 0, 2),
        ];
        let (cpu_millis, memory, gpus, licences) = kinds[self.random.below(kinds.len() as u64) as usize];
        let named = (licences > 0).then(|| ("licence".to_owned(), licences));
        Resources {
            cpu_millis,
            memory,
            gpus,
            named: named.into_iter().collect(),
        }
    }

    /// A shape that `run_out`'s agents can hold.
    fn shape(&mut self, asks: &Resources) -> Option<Shape> {
        if self.random.below(5) > 0 {
            return None;
        }
        let mut room = largest();
        let mut most = 0;
        while asks.fits(&room) && most < 6 {
            room.cpu_millis -= asks.cpu_millis;
            room.memory -= asks.memory;
            room.gpus -= asks.gpus;
            for (name, amount) in &asks.named {
                *room.named.entry(name.clone()).or_default() -= amount;
            }
            most += 1;
        }
        let least = 1 + self.random.below(most) as u32;
        Some(Shape {
            least,
            most: least + self.random.below(4) as u32,
            per_agent: [None, None, None, Some(1), Some(2), Some(3)][self.random.below(6) as usize],
            spread: self.random.below(3) == 0,
        })
    }

    /// Submits a task that is in the table, or will be.
    fn send(&mut self, id: TaskId, task: &Task, open: &[TaskId]) {
        let (asks, limit, priority) = (&task.asks, task.limit_ns, task.priority);
        match task.shape {
            Some(shape) => self.engine.submit_gang(id, asks, shape, limit, priority, open),
            None => self.engine.submit_limited(id, asks, limit, priority, open),
        }
    }

    fn in_state(&self, state: impl Fn(Is) -> bool) -> Vec<TaskId> {
        let tasks = (0..).zip(&self.tasks);
        tasks
            .filter(|(_, task)| state(task.is))
            .map(|(id, _)| TaskId(id))
            .collect()
    }

    fn task(&mut self, id: TaskId) -> &mut Task {
        &mut self.tasks[id.0 as usize]
    }

    fn open(&self, needs: &[TaskId]) -> Vec<TaskId> {
        let is_open = |id: &&TaskId| self.tasks[id.0 as usize].is != Is::Finished;
        needs.iter().filter(is_open).copied().collect()
    }

    fn join(&mut self) {
        let id = AgentId(self.random.below(6) as u32);
        let mut total = largest();
        total.cpu_millis = 1000 * (1 + self.random.below(8));
        total.gpus = self.random.below(5) as u32;
        if self.random.below(2) == 0 {
            total.named.clear();
        }
        self.engine.agent_joined(id, &total);
        self.agents.entry(id).or_insert(total);
    }

    fn lose(&mut self) {
        let all: Vec<AgentId> = self.agents.keys().copied().collect();
        let Some(id) = self.random.pick(&all) else { return };
        self.agents.remove(&id);
        let there = |task: &TaskId| self.tasks[task.0 as usize].ranks_at(id) > 0;
        let given = self.in_state(|is| matches!(is, Is::Given(_))).into_iter();
        let expected: Vec<TaskId> = given.filter(there).collect();
        let returned = self.engine.agent_lost(id);
        assert_eq!(returned, expected, "a lost agent's tasks are handed back");
        for task in returned {
            if self.random.below(8) == 0 {
                self.drop_task(task);
            } else {
                self.retry(task);
            }
        }
    }

    fn wait(&mut self, id: TaskId) {
        let task = self.task(id);
        (task.is, task.blocked, task.resumed) = (Is::Waiting, false, false);
    }

    /// A task runs again, after those of its inputs whose value was lost since it was given out.
    fn retry(&mut self, id: TaskId) {
        let needs = self.tasks[id.0 as usize].needs.clone();
        if needs.iter().any(|need| self.tasks[need.0 as usize].is == Is::Dropped) {
            return self.drop_task(id);
        }
        self.wait(id);
        self.engine.requeue(id);
        for need in self.open(&needs) {
            assert!(self.engine.wait_again(id, need), "{id} waits for {need} again");
        }
    }

    fn submit(&mut self) {
        let id = TaskId(self.tasks.len() as u64);
        let alive = self.in_state(|is| is != Is::Dropped);
        let n = self.random.below(4);
        let needs: Vec<TaskId> = (0..n).filter_map(|_| self.random.pick(&alive)).collect();
        let (asks, priority) = (self.asks(), self.random.below(3) as i32 - 1);
        let limit_ns = [0, 0, 0, 1 << 10, 1 << 20][self.random.below(5) as usize];
        let open = self.open(&needs);
        let task = Task {
            shape: self.shape(&asks),
            parts: Vec::new(),
            asks,
            limit_ns,
            priority,
            needs,
            is: Is::Waiting,
            blocked: false,
            resumed: false,
        };
        self.send(id, &task, &open);
        let agents: Vec<AgentId> = self.agents.keys().copied().collect();
        if let Some(agent) = self.random.pick(&agents) {
            let bytes = self.random.below(1 << 22);
            self.engine.input_at(id, agent, bytes);
        }
        self.tasks.push(task);
    }

    fn schedule(&mut self) {
        let mut out = Vec::new();
        self.engine.schedule(&mut out);
        for &(id, agent) in &out {
            assert!(self.agents.contains_key(&agent), "{id} goes to an agent that is there");
            let needs = self.tasks[id.0 as usize].needs.clone();
            assert!(self.open(&needs).is_empty(), "{id} starts after all that it needs");
            let remaining = self.remaining_ns;
            let parts = self.engine.parts(id);
            assert!(
                self.tasks[id.0 as usize].accepts(&parts),
                "{id} may not lie on {parts:?}"
            );
            assert!(
                parts.first().is_none_or(|part| part.0 == agent),
                "{id} is named by its first part"
            );
            let task = self.task(id);
            assert_eq!(task.is, Is::Waiting, "{id} is given out once, and never after its end");
            assert!(task.limit_ns <= remaining, "{id} would be cut off");
            task.is = Is::Given(agent);
            task.parts = parts;
        }
        let busy = |task: &&Task| matches!(task.is, Is::Given(_)) && !task.blocked;
        let busy = self.tasks.iter().filter(busy).count();
        assert!(
            out.is_empty() || busy <= self.most,
            "{busy} tasks are with agents, {} may be",
            self.most
        );
        self.check_order(&out);
        self.log.extend(out);
    }

    /// Of those that ask for the same, none was given out that is less urgent than one that was not.
    fn check_order(&self, given: &[(TaskId, AgentId)]) {
        let could: Vec<&Task> = (self.tasks.iter())
            .filter(|task| task.is == Is::Waiting && self.open(&task.needs).is_empty())
            .collect();
        for (id, _) in given {
            let task = &self.tasks[id.0 as usize];
            let same = |other: &&&Task| {
                other.asks == task.asks && other.limit_ns == task.limit_ns && other.shape == task.shape
            };
            let more_urgent = |other: &&&Task| same(other) && other.priority > task.priority;
            assert!(
                !could.iter().any(|other| more_urgent(&other)),
                "{id} went before one that is more urgent"
            );
        }
    }

    /// What each agent was given, less as many small tasks as it may be given ahead, is no more than it has.
    fn check_commitments(&self) {
        for (&id, total) in &self.agents {
            let here = self.tasks.iter().filter(|task| task.ranks_at(id) > 0 && !task.blocked);
            let mut sum = Resources::zero();
            let mut small = Vec::new();
            let mut resumed = 0;
            for task in here {
                let (asks, ranks) = (&task.asks, task.ranks_at(id));
                let plain = task.shape.is_none() && asks.memory == 0 && asks.gpus == 0 && asks.named.is_empty();
                if plain && (1..=1000).contains(&asks.cpu_millis) {
                    small.push(asks.cpu_millis);
                }
                resumed += u32::from(task.resumed);
                sum.cpu_millis += asks.cpu_millis * u64::from(ranks);
                sum.memory += asks.memory * u64::from(ranks);
                sum.gpus += asks.gpus * ranks;
                for (name, amount) in &asks.named {
                    *sum.named.entry(name.clone()).or_default() += amount * u64::from(ranks);
                }
            }
            small.sort_unstable_by_key(|&millis| std::cmp::Reverse(millis));
            sum.cpu_millis -= small.iter().take(self.prefetch).sum::<u64>();
            assert!(
                resumed > 0 || sum.fits(total),
                "{id} is over-committed: {sum:?} of {total:?}"
            );
        }
    }

    fn finish(&mut self) {
        let given = self.in_state(|is| matches!(is, Is::Given(_)));
        let Some(id) = self.random.pick(&given) else { return };
        let bytes = self.random.below(1 << 24);
        let elapsed = 1 << self.random.below(25);
        self.engine.finished(id, bytes, elapsed);
        self.task(id).is = Is::Finished;
    }

    /// Fails or cancels a task: it is dropped with all that wait for it, and they are told.
    fn drop_task(&mut self, id: TaskId) {
        self.task(id).is = Is::Dropped;
        let mut expected = BTreeSet::new();
        let mut grew = true;
        while grew {
            let waiting = self.in_state(|is| is == Is::Waiting).into_iter();
            let doomed = waiting.filter(|other| {
                let mut needs = self.tasks[other.0 as usize].needs.iter();
                needs.any(|need| self.tasks[need.0 as usize].is == Is::Dropped)
            });
            let doomed: Vec<TaskId> = doomed.collect();
            grew = !doomed.is_empty();
            for other in doomed {
                self.task(other).is = Is::Dropped;
                expected.insert(other);
            }
        }
        let told = self.engine.abandon(id);
        let distinct: BTreeSet<TaskId> = told.iter().copied().collect();
        assert_eq!(told.len(), distinct.len(), "a dropped task is told once");
        assert_eq!(distinct, expected, "all that wait for {id} are dropped, no others");
    }

    fn block(&mut self) {
        let given = self.in_state(|is| matches!(is, Is::Given(_)));
        let Some(id) = self.random.pick(&given) else { return };
        let task = self.task(id);
        let blocked = !task.blocked;
        if task.shape.is_none() {
            (task.blocked, task.resumed) = (blocked, !blocked);
        }
        self.engine.blocked(id, blocked);
    }

    /// A finished task's value is lost: it runs again, and those that wait and take it wait for it.
    fn lose_result(&mut self) {
        let finished = self.in_state(|is| is == Is::Finished);
        let Some(id) = self.random.pick(&finished) else { return };
        let needs = self.tasks[id.0 as usize].needs.clone();
        if needs.iter().any(|need| self.tasks[need.0 as usize].is == Is::Dropped) {
            return; // It could not be made again; the head would fail those that take it.
        }
        let open = self.open(&needs);
        self.wait(id);
        let tasks = std::mem::take(&mut self.tasks);
        self.send(id, &tasks[id.0 as usize], &open);
        self.tasks = tasks;
        for consumer in self.in_state(|is| is == Is::Waiting) {
            if self.tasks[consumer.0 as usize].needs.contains(&id) {
                assert!(self.engine.wait_again(consumer, id), "{consumer} waits for {id} again");
            }
        }
    }

    fn step(&mut self) {
        match self.random.below(32) {
            0 => self.join(),
            1 if self.random.below(3) == 0 => self.lose(),
            2..=10 => self.submit(),
            11..=18 => self.finish(),
            19 => {
                let given = self.in_state(|is| matches!(is, Is::Given(_)));
                if let Some(id) = self.random.pick(&given) {
                    self.retry(id);
                }
            }
            20 if self.random.below(3) == 0 => {
                let any = self.in_state(|is| matches!(is, Is::Given(_) | Is::Waiting));
                if let Some(id) = self.random.pick(&any) {
                    self.drop_task(id);
                }
            }
            21 if self.random.below(2) == 0 => {
                let given = self.in_state(|is| matches!(is, Is::Given(_)));
                if let Some(id) = self.random.pick(&given) {
                    self.engine.lingers(id);
                }
            }
            21 => self.block(),
            22 => self.lose_result(),
            23 if self.random.below(2) == 0 => {
                let left = [None, Some(1 << 10), Some(1 << 15), Some(1 << 21)];
                let left = left[self.random.below(4) as usize];
                self.remaining_ns = left.unwrap_or(u64::MAX);
                self.engine.set_remaining(left);
            }
            23 => {
                self.most = [usize::MAX, 1, 3, 8][self.random.below(4) as usize];
                self.engine.set_most(self.most);
            }
            _ => self.schedule(),
        }
    }

    /// With agents enough for everything, all tasks come to their end.
    fn run_out(&mut self) {
        for id in (90..96).map(AgentId) {
            self.engine.agent_joined(id, &largest());
            self.agents.insert(id, largest());
        }
        (self.remaining_ns, self.most) = (u64::MAX, 1);
        self.engine.set_remaining(None);
        self.engine.set_most(1);
        loop {
            self.schedule();
            self.engine.sanity_check();
            if self.in_state(|is| matches!(is, Is::Given(_))).is_empty() {
                break;
            }
            self.finish();
        }
        assert_eq!(self.in_state(|is| is == Is::Waiting), [], "every task ends");
    }
}

fn check(seed: u64, prefetch: usize, steps: usize) -> Vec<(TaskId, AgentId)> {
    let mut model = Model::new(seed, prefetch);
    for _ in 0..steps {
        model.step();
        model.engine.sanity_check();
        model.check_commitments();
    }
    model.run_out();
    model.log
}

#[test]
fn every_task_ends_once_and_no_agent_is_over_committed() {
    for seed in 0..30 {
        check(seed, 0, 300);
    }
}

#[test]
fn the_same_holds_with_work_given_ahead() {
    for seed in 100..130 {
        check(seed, 1 + (seed % 7) as usize, 300);
    }
}

#[test]
fn the_same_events_give_the_same_assignments() {
    for seed in 200..205 {
        assert_eq!(check(seed, 3, 300), check(seed, 3, 300), "seed {seed}");
    }
}
