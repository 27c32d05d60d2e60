//! Reads the answers of slurmrestd, of every version: a number may be a plain one or `{set, infinite, number}`, a word may be
//! a text or a list, a key may be missing. Owns that tolerance; what an answer means for a submission is `rest`'s business.

use crate::record::{Exit, JobRecord, Node, Partition, accounts, gpus};
use serde_json::Value;

/// A number that is set and finite.
pub(crate) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Object(map) => {
            let is = |key: &str| map.get(key).and_then(Value::as_bool);
            let set = is("set").unwrap_or(true) && !is("infinite").unwrap_or(false);
            set.then(|| map.get("number").and_then(number)).flatten()
        }
        Value::String(text) => text.parse().ok(),
        // 42.0 is a number of some versions.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Checked to be whole and in range.
        Value::Number(n) => n.as_u64().or_else(|| {
            let float = n.as_f64().filter(|f| f.fract() == 0.0 && (0.0..9e15).contains(f))?;
            Some(float as u64)
        }),
        _ => None,
    }
}

/// A number that fits, and is not one of Slurm's marks for "unset" or "infinite".
fn small(value: &Value) -> Option<u32> {
    number(value)
        .and_then(|n| u32::try_from(n).ok())
        .filter(|&n| n < u32::MAX - 1)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Words of a text or a list of texts, in upper case.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if !text.is_empty() => vec![text.to_ascii_uppercase()],
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_ascii_uppercase)
            .collect(),
        _ => Vec::new(),
    }
}

/// The entries of a list, none where it is no list.
pub(crate) fn entries<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer[key].as_array().map_or(&[], Vec::as_slice)
}

/// The jobs of an answer.
pub(crate) fn jobs(answer: &Value) -> Vec<JobRecord> {
    entries(answer, "jobs").iter().filter_map(job).collect()
}

fn job(value: &Value) -> Option<JobRecord> {
    Some(JobRecord {
        id: number(&value["job_id"])?,
        array: number(&value["array_job_id"]).unwrap_or(0),
        states: words(&value["job_state"]),
        reason: reason(&value["state_reason"]),
        exit: exit(&value["exit_code"]),
        nodes: text(&value["nodes"]),
        comment: text(&value["comment"]),
        user: text(&value["user_name"]),
        partition: text(&value["partition"]),
        end: number(&value["end_time"]).filter(|&at| at > 0),
    })
}

fn reason(value: &Value) -> String {
    let reason = value.as_str().unwrap_or_default();
    if reason == "None" {
        String::new()
    } else {
        reason.to_owned()
    }
}

/// A wait status, or its parts.
fn exit(value: &Value) -> Exit {
    if value.get("return_code").is_some() {
        return Exit {
            code: small(&value["return_code"]).unwrap_or(0),
            signal: small(&value["signal"]["id"])
                .or_else(|| small(&value["signal"]["signal_id"]))
                .unwrap_or(0),
        };
    }
    small(value).map_or(Exit::default(), Exit::of_status)
}

/// The jobs of an answer of the accounting's own API.
pub(crate) fn accounted(answer: &Value) -> Vec<JobRecord> {
    entries(answer, "jobs").iter().filter_map(accounted_job).collect()
}

fn accounted_job(value: &Value) -> Option<JobRecord> {
    Some(JobRecord {
        id: number(&value["job_id"])?,
        array: number(&value["array"]["job_id"]).unwrap_or(0),
        states: words(&value["state"]["current"]),
        reason: reason(&value["state"]["reason"]),
        exit: exit(&value["exit_code"]),
        nodes: text(&value["nodes"]),
        comment: text(&value["comment"]["job"]),
        user: text(&value["user"]),
        partition: text(&value["partition"]),
        end: number(&value["time"]["end"]).filter(|&at| at > 0),
    })
}

/// The partitions of an answer: flat at v0.0.38, nested later.
pub(crate) fn partitions(answer: &Value) -> Vec<Partition> {
    entries(answer, "partitions").iter().map(partition).collect()
}

fn partition(value: &Value) -> Partition {
    let nested = value["maximums"].is_object();
    let flags = value.get("flags").map(words);
    let pick = |flat: &str, section: &str, key: &str| small(if nested { &value[section][key] } else { &value[flat] });
    let state = if nested {
        &value["partition"]["state"]
    } else {
        &value["state"]
    };
    let allowed = if nested {
        &value["accounts"]["allowed"]
    } else {
        &value["allowed_accounts"]
    };
    Partition {
        name: text(&value["name"]),
        default: flags.map(|flags| flags.iter().any(|flag| flag == "DEFAULT")),
        state: words(state).first().cloned().unwrap_or_default(),
        max_nodes: pick("maximum_nodes_per_job", "maximums", "nodes"),
        max_minutes: pick("max_time_limit", "maximums", "time"),
        default_minutes: pick("default_time_limit", "defaults", "time"),
        total_nodes: pick("total_nodes", "nodes", "total").unwrap_or(0),
        accounts: accounts(allowed.as_str().unwrap_or_default()),
    }
}

/// The nodes of an answer.
pub(crate) fn nodes(answer: &Value) -> Vec<Node> {
    entries(answer, "nodes").iter().map(node).collect()
}

fn node(value: &Value) -> Node {
    let mut states = words(&value["state"]);
    states.extend(words(&value["state_flags"]));
    let partitions = value["partitions"].as_array();
    Node {
        name: text(&value["name"]),
        states,
        cpus: small(&value["effective_cpus"])
            .or_else(|| small(&value["cpus"]))
            .unwrap_or(0),
        memory_mib: number(&value["real_memory"]).unwrap_or(0),
        gpus: gpus(value["gres"].as_str().unwrap_or_default()),
        partitions: partitions.into_iter().flatten().map(text).collect(),
    }
}

/// What an answer complains of, with Slurm's error number where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// Slurm's number, 2017 for a job that it does not know; 0 where there is none.
    pub(crate) code: u64,
    /// Its words.
    pub(crate) words: String,
}

/// The errors of an answer, from wherever a version puts them.
pub(crate) fn complaints(answer: &Value) -> Vec<Complaint> {
    let listed = entries(answer, "errors").iter();
    let of_signals = entries(answer, "status").iter().map(|status| &status["error"]);
    listed
        .chain(of_signals)
        .map(complaint)
        .filter(|c| c.code != 0 || !c.words.is_empty())
        .collect()
}

fn complaint(error: &Value) -> Complaint {
    let keys = ["error_number", "error_code", "code"];
    let code = keys.iter().find_map(|key| number(&error[*key])).unwrap_or(0);
    let mut parts: Vec<&str> = Vec::new();
    for key in ["description", "error", "message", "source"] {
        if let Some(part) = error[key].as_str().filter(|part| !part.is_empty())
            && !parts.iter().any(|said| said.contains(part))
        {
            parts.push(part);
        }
    }
    let no_error = code == 0 && parts.first() == Some(&"No error");
    Complaint {
        code,
        words: if no_error { String::new() } else { parts.join(", ") },
    }
}

/// The warnings of an answer.
pub(crate) fn warnings(answer: &Value) -> Vec<&str> {
    let listed = entries(answer, "warnings").iter();
    listed.filter_map(|warning| warning["description"].as_str()).collect()
}

/// The job that an answer to a submission made, also where it is an error's answer.
pub(crate) fn made(answer: &Value) -> Option<u64> {
    let places = [&answer["job_id"], &answer["result"]["job_id"]];
    places.into_iter().find_map(number).filter(|&id| id > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_read_in_all_their_forms() {
        assert_eq!(number(&json!(5)), Some(5));
        assert_eq!(number(&json!("5")), Some(5));
        assert_eq!(number(&json!(2.0)), Some(2));
        assert_eq!(number(&json!({"set": true, "infinite": false, "number": 7})), Some(7));
        assert_eq!(number(&json!({"set": false, "infinite": false, "number": 7})), None);
        assert_eq!(number(&json!({"set": true, "infinite": true, "number": 0})), None);
        assert_eq!(number(&json!(null)), None);
        assert_eq!(number(&json!(-1)), None);
    }

    #[test]
    fn an_answer_of_another_shape_is_an_empty_one() {
        for odd in [
            json!(null),
            json!([]),
            json!({"jobs": {}}),
            json!({"jobs": [3, null, {"job_id": "x"}]}),
        ] {
            assert_eq!(jobs(&odd), []);
            assert_eq!(complaints(&odd), []);
            assert_eq!(made(&odd), None);
        }
    }
}
