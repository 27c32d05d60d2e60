//! A plan of a long graph costs no stack and counts right.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use bridgehead_plan::{ClusterProfile, NodeProfile, plan};
use bridgehead_spec::{PipelineSpec, Resources, TaskId};
use std::fmt::Write;

#[test]
fn a_chain_beside_a_fan_is_counted_right() {
    const CHAIN: u64 = 50_000;
    const FAN: u64 = 20_000;
    let mut tasks = String::new();
    for id in 0..CHAIN + FAN {
        // The chain needs the task behind it, so ids and order disagree.
        let needs = if id + 1 < CHAIN {
            format!(",\"after\":[{}]", id + 1)
        } else {
            String::new()
        };
        let comma = if id == 0 { "" } else { "," };
        let call = r#"{"program":{"argv":["true"]}}"#;
        write!(tasks, r#"{comma}{{"id":{id},"name":"t","call":{call}{needs}}}"#).unwrap();
    }
    let text = format!(
        r#"{{"version":1,"name":"long","environment":{{"python":"3.11"}},"functions":{{}},"tasks":[{tasks}]}}"#
    );
    let pipeline = PipelineSpec::parse(text.as_bytes()).unwrap();
    let node = NodeProfile {
        name: "local-0".to_owned(),
        resources: Resources::default(),
        workers: 0,
    };
    let plan = plan(
        &pipeline,
        &ClusterProfile {
            backend: "local".to_owned(),
            nodes: vec![node],
        },
    )
    .unwrap();
    let gang = &plan.gangs[0];
    assert_eq!((gang.tasks, gang.programs), (CHAIN + FAN, CHAIN + FAN));
    assert_eq!((gang.critical_path, gang.critical_end), (CHAIN, Some(TaskId(0))));
    assert_eq!(gang.width, FAN + 1);
}
