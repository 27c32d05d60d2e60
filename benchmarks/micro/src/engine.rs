//! The scheduler engine with simulated agents: they take what they are given and end it in random order, a batch at a time,
//! as the head's turns do. Owns shapes of work and what they cost; a task's cost is all of it: submit, schedule, finish.

use crate::meter::{allocated, cpu_ns};
use crate::report::{Report, Target};
use bridgehead_schedule::Engine;
use bridgehead_spec::{AgentId, Resources, TaskId};

/// Ends that one turn of the simulated head takes in before it schedules.
const BATCH: usize = 64;
/// Nanoseconds that a simulated task says it took.
const SHORT_NS: u64 = 20_000;
const LONG_NS: u64 = 2_000_000_000;
const AGENTS: usize = 1000;
/// Cores of an agent where it is asked how many assignments a second there are.
const CORES: u64 = 8;
/// And where runs of different sizes are compared: so few that even in the smallest run most tasks wait for room.
const FEW_CORES: u64 = 1;

/// A small generator (xorshift64*), so that every run does the same.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }
}

/// One kind of work.
struct Shape {
    name: &'static str,
    prefetch: usize,
    elapsed_ns: u64,
    /// Bytes of each result.
    bytes: u64,
    /// Dependencies of each task on earlier ones.
    needs: usize,
    /// Different requests.
    classes: usize,
    /// Tasks between a task and the oldest that it may need.
    reach: usize,
}

const FLAT: Shape = Shape {
    name: "independent tasks",
    prefetch: 64,
    elapsed_ns: LONG_NS,
    bytes: 0,
    needs: 0,
    classes: 1,
    reach: 1,
};
const AHEAD: Shape = Shape {
    name: "independent short tasks, given ahead",
    elapsed_ns: SHORT_NS,
    ..FLAT
};
const GRAPH: Shape = Shape {
    name: "graph, 2 inputs of 1 MiB each",
    bytes: 1 << 20,
    needs: 2,
    reach: 2000,
    ..FLAT
};
const MIXED: Shape = Shape {
    name: "32 different requests, GPUs and licences among them",
    classes: 32,
    ..FLAT
};

fn requests(n: usize) -> Vec<Resources> {
    let request = |i: usize| {
        let mut asks = Resources::default();
        if i > 0 {
            asks.cpu_millis = 500 * (1 + i as u64 % 4);
            asks.memory = (i as u64 % 8) << 30;
            asks.gpus = u32::from(i.is_multiple_of(5));
            if i.is_multiple_of(7) {
                asks.named.insert("licence".to_owned(), 1);
            }
        }
        asks
    };
    (0..n).map(request).collect()
}

fn agents(engine: &mut Engine, cores: u64) {
    for agent in 0..AGENTS as u32 {
        let total = Resources {
            cpu_millis: cores * 1000,
            memory: 64 << 30,
            gpus: 2,
            named: [("licence".to_owned(), 4)].into(),
        };
        engine.agent_joined(AgentId(agent), &total);
    }
}

fn submit(engine: &mut Engine, shape: &Shape, tasks: usize) {
    let mut random = Random(7);
    let requests = requests(shape.classes);
    let mut open = Vec::new();
    for task in 0..tasks {
        open.clear();
        let near = task.min(shape.reach);
        if near > 0 {
            open.extend((0..shape.needs).map(|_| TaskId((task - 1 - random.below(near)) as u64)));
        }
        let asks = &requests[if shape.classes == 1 {
            0
        } else {
            random.below(shape.classes)
        }];
        engine.submit(TaskId(task as u64), asks, 0, &open);
    }
}

/// Ends everything; how many assignments that took.
fn run_out(engine: &mut Engine, shape: &Shape) -> usize {
    let mut random = Random(11);
    let (mut out, mut running) = (Vec::new(), Vec::new());
    let mut assigned = 0;
    loop {
        engine.schedule(&mut out);
        assigned += out.len();
        running.extend(out.drain(..).map(|(task, _)| task));
        if running.is_empty() {
            return assigned;
        }
        for _ in 0..BATCH.min(running.len()) {
            let task = running.swap_remove(random.below(running.len()));
            engine.finished(task, shape.bytes, shape.elapsed_ns);
        }
    }
}

/// Nanoseconds of processor time a task, of the best of some runs.
fn cost(shape: &Shape, tasks: usize, cores: u64, repeats: usize) -> f64 {
    let run = || {
        let mut engine = Engine::new(shape.prefetch);
        agents(&mut engine, cores);
        let start = cpu_ns();
        submit(&mut engine, shape, tasks);
        let assigned = run_out(&mut engine, shape);
        let spent = cpu_ns() - start;
        assert_eq!(assigned, tasks, "every task is assigned once");
        spent as f64 / tasks as f64
    };
    (0..repeats).map(|_| run()).fold(f64::INFINITY, f64::min)
}

/// Bytes that a waiting task holds.
fn memory(shape: &Shape, tasks: usize) -> f64 {
    let mut engine = Engine::new(shape.prefetch);
    let before = allocated();
    submit(&mut engine, shape, tasks);
    (allocated() - before) as f64 / tasks as f64
}

/// All rows of the engine.
pub(crate) fn measure(report: &mut Report) {
    let repeats = report.repeats();
    let many = report.size(200_000);
    for shape in [&FLAT, &AHEAD, &GRAPH, &MIXED] {
        let name = format!("engine: assignments, {AGENTS} agents, {}", shape.name);
        if report.wants(&name) {
            let ns = cost(shape, many, CORES, repeats);
            report.add(name, 1e9 / ns, "1/s", Some(Target::AtLeast(500_000.0)));
        }
    }
    for shape in [&FLAT, &GRAPH] {
        scale(report, shape);
    }
    for shape in [&FLAT, &GRAPH] {
        let name = format!("engine: memory of a waiting task, {}", shape.name);
        if report.wants(&name) {
            let bytes = memory(shape, report.size(1_000_000));
            report.add(name, bytes, "B", Some(Target::AtMost(1024.0)));
        }
    }
}

/// What a task costs in runs of growing size, and by how much the largest is dearer.
fn scale(report: &mut Report, shape: &Shape) {
    let name = format!("engine: cost of a task, {}", shape.name);
    if !report.wants(&name) {
        return;
    }
    let sizes = [("10k", 10_000), ("100k", 100_000), ("1M", 1_000_000)];
    let mut costs = [f64::INFINITY; 3];
    for _ in 0..report.repeats() {
        // In turn, so that a slow spell of the machine meets all sizes.
        for (best, (_, full)) in costs.iter_mut().zip(sizes) {
            let repeats = (1_000_000 / full).min(2);
            *best = best.min(cost(shape, report.size(full), FEW_CORES, repeats));
        }
    }
    for ((label, _), ns) in sizes.iter().zip(costs) {
        report.add(format!("{name}, {label} tasks"), ns, "ns", None);
    }
    report.add(
        format!("{name}, 1M over 10k"),
        costs[2] / costs[0],
        "x",
        Some(Target::AtMost(1.5)),
    );
}
