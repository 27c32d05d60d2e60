//! Laws of the cut into gangs, on random graphs: every task is in one gang, none needs one of a later gang, tasks of a gang share
//! an allocation, and no gang could be left out.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use bridgehead_plan::{ClusterProfile, LaunchPlan, NodeProfile, plan};
use bridgehead_spec::{CheckedPipeline, PipelineSpec, Resources};
use std::fmt::Write;

/// A pipeline of `tasks` tasks that are in one of three groups or none.
fn pipeline(seed: u64, tasks: u64) -> CheckedPipeline {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut below = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % n
    };
    let mut list = String::new();
    for id in 0..tasks {
        let after: Vec<u64> = (0..below(3)).filter(|_| id > 0).map(|_| below(id.max(1))).collect();
        let group = ["", r#","group":"a""#, r#","group":"b""#, r#","group":"same""#][below(4) as usize];
        let comma = if id == 0 { "" } else { "," };
        let call = r#"{"program":{"argv":["true"]}}"#;
        write!(
            list,
            r#"{comma}{{"id":{id},"name":"t","call":{call},"after":{after:?}{group}}}"#
        )
        .unwrap();
    }
    let groups = r#"{"a":{"nodes":2},"b":{"partition":"p"},"same":{}}"#;
    let text = format!(
        r#"{{"version":1,"name":"r","environment":{{"python":"3.11"}},"functions":{{}},"tasks":[{list}],"groups":{groups}}}"#
    );
    PipelineSpec::parse(text.as_bytes()).unwrap()
}

fn planned(pipeline: &CheckedPipeline, backend: &str) -> LaunchPlan {
    let node = NodeProfile {
        name: "n".to_owned(),
        resources: Resources::default(),
        workers: 1,
    };
    let cluster = ClusterProfile {
        backend: backend.to_owned(),
        nodes: vec![node],
    };
    plan(pipeline, &cluster).unwrap()
}

fn check(seed: u64) {
    let pipeline = pipeline(seed, 60);
    let plan = planned(&pipeline, "slurm");
    let gang = |id| plan.gang_of(id).unwrap();
    let mut counted = vec![0; plan.gangs.len()];
    for task in pipeline.tasks() {
        let of = gang(task.id);
        counted[of as usize] += 1;
        for need in task.needs() {
            assert!(
                gang(need) <= of,
                "seed {seed}: {} needs {need} of a later gang",
                task.id
            );
        }
        let own = task.group.as_deref().filter(|group| *group != "same");
        let groups = &plan.gangs[of as usize].groups;
        let shares = own.map_or(!groups.iter().any(|g| g == "a" || g == "b"), |own| groups == &[own]);
        assert!(shares, "seed {seed}: {} of {own:?} is in {groups:?}", task.id);
    }
    for (id, gang) in (0..).zip(&plan.gangs) {
        assert_eq!((gang.id, gang.tasks), (id, counted[id as usize]), "seed {seed}");
        assert!(gang.tasks > 0, "seed {seed}: gang {id} is empty");
        assert_eq!(gang.after, id.checked_sub(1).into_iter().collect::<Vec<_>>());
    }
    assert_eq!(
        plan.gang_of(bridgehead_spec::TaskId(60)).is_none(),
        plan.gangs.len() > 1
    );
}

#[test]
fn a_cut_keeps_order_and_allocations() {
    (0..50).for_each(check);
}

#[test]
fn this_machine_is_one_gang_whatever_groups_ask_for() {
    let plan = planned(&pipeline(1, 20), "local");
    assert_eq!(plan.gangs.len(), 1);
    assert!(plan.gangs[0].ranges.is_empty() && plan.gangs[0].after.is_empty());
}
