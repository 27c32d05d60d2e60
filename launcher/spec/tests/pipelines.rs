//! Laws of the checked pipeline on generated graphs: printing and reading is identity, the order respects every dependency,
//! consumers are the needs turned around, a cycle is found and is one, and depth costs no stack.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use bridgehead_spec::{
    CallSpec, CheckedPipeline, Digest, EnvironmentSpec, FunctionSpec, MapSpec, PersistSpec, PipelineSpec, ProgramSpec,
    RanksSpec, Resources, Retries, SpecError, TaskId, TaskSpec,
};
use std::collections::{BTreeMap, BTreeSet};

/// A small generator of numbers, the same on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n.max(1)
    }
}

fn pipeline(tasks: Vec<TaskSpec>) -> PipelineSpec {
    let function = FunctionSpec {
        name: "work".to_owned(),
        size: 4,
    };
    PipelineSpec {
        version: 1,
        name: "generated".to_owned(),
        environment: EnvironmentSpec {
            python: "3.11.7".to_owned(),
            ..EnvironmentSpec::default()
        },
        functions: BTreeMap::from([(Digest::of(b"work"), function)]),
        tasks,
        groups: BTreeMap::new(),
        keep: Vec::new(),
    }
}

fn task(id: u64, needs: Vec<u64>) -> TaskSpec {
    TaskSpec {
        id: TaskId(id),
        name: format!("work[{id}]"),
        call: CallSpec::Function {
            digest: Digest::of(b"work"),
            args: vec![1],
            args_blob: None,
        },
        inputs: needs.into_iter().map(TaskId).collect(),
        after: Vec::new(),
        resources: Resources::default(),
        ranks: None,
        retries: Retries::default(),
        timeout_ms: None,
        priority: 0,
        persist: PersistSpec::Auto,
        group: None,
    }
}

/// A pipeline without cycles whose ids say nothing about its order.
fn random(seed: u64) -> PipelineSpec {
    let mut dice = Dice(seed);
    let n = 1 + dice.below(40);
    let mut rank: Vec<u64> = (0..n).collect();
    for i in (1..n).rev() {
        rank.swap(i as usize, dice.below(i + 1) as usize);
    }
    let tasks = (0..n).map(|id| {
        let earlier: Vec<u64> = (0..n)
            .filter(|&other| rank[other as usize] < rank[id as usize])
            .collect();
        let mut pick = |most| {
            let count = if earlier.is_empty() { 0 } else { dice.below(most) };
            (0..count)
                .map(|_| TaskId(earlier[dice.below(earlier.len() as u64) as usize]))
                .collect::<Vec<_>>()
        };
        let (inputs, after) = (pick(4), pick(3));
        let mut task = TaskSpec {
            inputs,
            after,
            ..task(id, Vec::new())
        };
        task.call = match dice.below(3) {
            0 if task.inputs.is_empty() => CallSpec::Program(ProgramSpec {
                argv: vec!["echo".to_owned(), "\"quoted\" \u{b5}".to_owned()],
                env: BTreeMap::new(),
                cwd: None,
                outputs: BTreeMap::from([("log".to_owned(), "log.txt".to_owned())]),
            }),
            1 => {
                let args_blob = Some(Digest::of(&id.to_le_bytes()));
                CallSpec::Function {
                    digest: Digest::of(b"work"),
                    args: Vec::new(),
                    args_blob,
                }
            }
            _ => {
                let args = (0..=dice.below(9))
                    .map(|byte| u8::try_from(byte * 31 % 256).unwrap())
                    .collect();
                CallSpec::Function {
                    digest: Digest::of(b"work"),
                    args,
                    args_blob: None,
                }
            }
        };
        task.resources.memory = dice.below(3) << 30;
        task.ranks = (dice.below(4) == 0).then(|| RanksSpec {
            most: 4,
            map: [MapSpec::Core, MapSpec::Node][dice.below(2) as usize],
            ..RanksSpec::exactly(1 + u32::try_from(dice.below(4)).unwrap())
        });
        task.retries.user = u32::try_from(dice.below(3)).unwrap();
        task.timeout_ms = (dice.below(2) == 1).then_some(1000);
        task.priority = i32::try_from(dice.below(5)).unwrap() - 2;
        task.persist = [PersistSpec::Auto, PersistSpec::Always, PersistSpec::Never][dice.below(3) as usize];
        task
    });
    pipeline(tasks.collect())
}

fn check(spec: PipelineSpec) {
    let checked = CheckedPipeline::check(spec.clone()).unwrap();
    let text = checked.to_canonical_json();
    let again = PipelineSpec::parse(text.as_bytes()).unwrap();
    assert_eq!(again, checked, "reading what was printed gives the same");
    assert_eq!(again.spec(), &spec, "no field is lost");

    let mut position = vec![usize::MAX; spec.tasks.len()];
    for (at, id) in checked.topological_order().iter().enumerate() {
        position[id.0 as usize] = at;
    }
    let mut consumers = vec![BTreeSet::new(); spec.tasks.len()];
    for task in checked.tasks() {
        for need in task.needs() {
            assert!(
                position[need.0 as usize] < position[task.id.0 as usize],
                "{} before {}",
                need,
                task.id
            );
            consumers[need.0 as usize].insert(task.id);
        }
    }
    for task in checked.tasks() {
        let told: Vec<_> = checked.consumers(task.id).collect();
        assert_eq!(told, consumers[task.id.0 as usize].iter().copied().collect::<Vec<_>>());
    }
}

#[test]
fn generated_pipelines_keep_the_laws() {
    for seed in 0..300 {
        check(random(seed));
    }
}

#[test]
fn a_closed_chain_is_found_and_is_a_cycle() {
    for seed in 0..100 {
        let mut spec = random(seed);
        let order = CheckedPipeline::check(spec.clone())
            .unwrap()
            .topological_order()
            .to_vec();
        let (first, last) = (order[0], order[order.len() - 1]);
        if first == last {
            continue;
        }
        // The first now needs the last, and the last the first: a cycle, whatever lies between.
        spec.tasks[first.0 as usize].after.push(last);
        spec.tasks[last.0 as usize].after.push(first);
        let Err(SpecError::Cycle(cycle)) = CheckedPipeline::check(spec.clone()) else {
            panic!("seed {seed}: no cycle found");
        };
        let ids: Vec<TaskId> = cycle.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids.iter().min(), ids.first(), "it begins with the lowest id");
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "each task once");
        for (at, &id) in ids.iter().enumerate() {
            let next = &spec.tasks[ids[(at + 1) % ids.len()].0 as usize];
            assert!(
                next.needs().any(|need| need == id),
                "seed {seed}: {} does not need {id}",
                next.id
            );
        }
    }
}

#[test]
fn depth_costs_no_stack() {
    const DEPTH: u64 = 200_000;
    // Each needs the one behind it, so the order is the ids backwards.
    let chain = |last: Vec<u64>| {
        let mut tasks: Vec<_> = (0..DEPTH - 1).map(|id| task(id, vec![id + 1])).collect();
        tasks.push(task(DEPTH - 1, last));
        pipeline(tasks)
    };
    let checked = CheckedPipeline::check(chain(Vec::new())).unwrap();
    assert_eq!(checked.topological_order().first(), Some(&TaskId(DEPTH - 1)));
    let error = CheckedPipeline::check(chain(vec![0])).unwrap_err();
    let SpecError::Cycle(cycle) = &error else {
        panic!("{error}")
    };
    assert_eq!(cycle.len() as u64, DEPTH);
    assert!(error.to_string().len() < 1000, "a long cycle is told in short");
}

#[test]
fn an_unknown_task_has_no_consumers() {
    let checked = CheckedPipeline::check(pipeline(vec![task(0, Vec::new())])).unwrap();
    assert_eq!(checked.consumers(TaskId(1)).len(), 0);
    assert_eq!(checked.consumers(TaskId(u64::MAX)).len(), 0);
    assert!(checked.task(TaskId(1)).is_none());
}

#[test]
fn too_many_different_requests_are_refused() {
    let tasks = (0..32_769).map(|id| {
        let resources = Resources {
            memory: id,
            ..Resources::default()
        };
        TaskSpec {
            resources,
            ..task(id, Vec::new())
        }
    });
    let error = CheckedPipeline::check(pipeline(tasks.collect()))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("more than 32768 different resources; round the amounts"),
        "{error}"
    );
}
