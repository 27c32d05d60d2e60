//! What a gang asks for, read from its object. Pure. Owns the sum in words, so that a reason can name what lacks.

use crate::Flavor;
use serde_json::Value;

/// Equal pods of a gang.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    /// How many.
    pub pods: u64,
    /// The pod template's `spec`.
    pub spec: Value,
}

/// The groups of a job's object.
pub(crate) fn groups(flavor: Flavor, object: &Value) -> Vec<Group> {
    let spec = &object["spec"];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let job = |job: &Value, times: u64| Group {
        pods: job["spec"]["parallelism"].as_u64().unwrap_or(1) * times,
        spec: job["spec"]["template"]["spec"].clone(),
    };
    match flavor {
        Flavor::Volcano => {
            let task = |task: &Value| Group {
                pods: task["replicas"].as_u64().unwrap_or(1),
                spec: task["template"]["spec"].clone(),
            };
            list(&spec["tasks"]).iter().map(task).collect()
        }
        Flavor::Kueue => {
            let one = |set: &Value| job(&set["template"], set["replicas"].as_u64().unwrap_or(1));
            list(&spec["replicatedJobs"]).iter().map(one).collect()
        }
        Flavor::AppWrapper => {
            let parts = list(&spec["components"]);
            let jobs = parts
                .iter()
                .map(|part| &part["template"])
                .filter(|part| part["kind"] == "Job");
            jobs.map(|one| job(one, 1)).collect()
        }
        Flavor::IndexedJob => vec![job(object, 1)],
        Flavor::CodeEngine => Vec::new(), // Its object has no pod template.
    }
}

/// A quantity with the unit that people use for the resource.
fn amount(resource: &str, quantity: &str) -> String {
    match resource {
        "cpu" if quantity == "1" => "1 core".to_owned(),
        "cpu" => match quantity.strip_suffix('m') {
            Some(milli) => format!("{milli} thousandths of a core"),
            None => format!("{quantity} cores"),
        },
        "memory" => format!("{quantity} of memory"),
        other => format!("{quantity} {other}"),
    }
}

/// What the first container of a pod asks for: ours is the first and the only one.
fn requests(spec: &Value) -> Vec<(String, String)> {
    let resources = &spec["containers"][0]["resources"];
    let of = |key: &str| resources[key].as_object().cloned().unwrap_or_default();
    let mut all = of("limits");
    all.extend(of("requests"));
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut all: Vec<(String, String)> = all.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    let rank = |name: &str| ["cpu", "memory"].iter().position(|known| *known == name).unwrap_or(2);
    all.sort_by_key(|(name, _)| rank(name));
    all
}

/// `3 x (4 cores, 8Gi of memory)`, with only the named resource where one is named. Empty where nothing is known.
pub(crate) fn in_words(groups: &[Group], resource: Option<&str>) -> String {
    let mut words: Vec<(u64, String)> = Vec::new();
    for group in groups {
        let mut asked = requests(&group.spec);
        if let Some(resource) = resource {
            asked.retain(|(name, _)| name == resource);
        }
        let parts: Vec<String> = asked.iter().map(|(name, quantity)| amount(name, quantity)).collect();
        let part = match &parts[..] {
            [] => continue,
            [one] => one.clone(),
            many => format!("({})", many.join(", ")),
        };
        match words.iter_mut().find(|(_, known)| *known == part) {
            Some((pods, _)) => *pods += group.pods,
            None => words.push((group.pods, part)),
        }
    }
    let words: Vec<String> = words.iter().map(|(pods, part)| format!("{pods} x {part}")).collect();
    words.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_gang_is_added_up_over_its_groups() {
        let task = |replicas: u64, cpu: &str| {
            let resources = json!({"limits": {"cpu": cpu, "memory": "8Gi", "nvidia.com/gpu": 2}});
            json!({"replicas": replicas, "template": {"spec": {"containers": [{"resources": resources}]}}})
        };
        let job = json!({"spec": {"tasks": [task(1, "4"), task(2, "4")]}});
        let groups = groups(Flavor::Volcano, &job);
        assert_eq!(
            in_words(&groups, None),
            "3 x (4 cores, 8Gi of memory, 2 nvidia.com/gpu)"
        );
        assert_eq!(in_words(&groups, Some("cpu")), "3 x 4 cores");
        assert_eq!(in_words(&groups, Some("rdma/hca")), "");
    }
}
