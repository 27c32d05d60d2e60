//! Why a job waits or how it ended, as sentences: what stands in the way first, with the way out. Pure: objects in, sentences out.
//! Owns the order of the causes; what a server or a pod wrote is cut and cleaned before it is shown.

use super::ask;
use super::ends;
use super::kinds::KUEUE_QUEUE;
use super::phases::Standing;
use crate::Flavor;
use bridgehead_backend::JobState;
use serde_json::Value;

/// What was found when an object was looked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Look {
    /// This.
    Is(Value),
    /// Nothing of that name.
    Absent,
    /// It may be there; the user has no right to see it.
    NoRight,
    /// Nobody looked.
    Unasked,
}

/// All that was seen of one job.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Its flavour.
    pub flavor: Flavor,
    /// Its object.
    pub job: Value,
    /// The PodGroup of Volcano, or the Workload of Kueue.
    pub group: Look,
    /// The queue of Volcano, or the LocalQueue of Kueue.
    pub queue: Look,
    /// Its pods.
    pub pods: Vec<Value>,
    /// Warnings about the job, its group and its pods, oldest first.
    pub events: Vec<Value>,
    /// The user has no right to see pods or events.
    pub blind: bool,
}

/// Text of strangers, on one line and not longer than that.
pub(crate) fn clean(text: &str, most: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = text.trim().trim_end_matches('.');
    let mut cut: String = text.chars().take(most).collect();
    if cut.len() < text.len() {
        cut.push_str(" ...");
    }
    cut
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The sentences, the most telling first. Empty where there is nothing to say.
pub(crate) fn sentences(seen: &Seen, standing: &Standing) -> Vec<String> {
    if standing.suspended {
        return vec!["suspended: it holds nothing and waits until it is resumed".to_owned()];
    }
    let mut said = ends::sentences(seen);
    if standing.state == JobState::Ended {
        if said.is_empty() {
            said.extend(last_condition(&seen.job));
        }
        return said;
    }
    let causes = [quota, image, volume, queue, unschedulable, group];
    said.extend(causes.iter().filter_map(|cause| cause(seen)));
    if said.is_empty() && standing.state == JobState::Pending {
        said.extend(last_warning(seen));
        if said.is_empty() && seen.blind {
            said.push("it cannot be told why it waits: no right to list pods and events".to_owned());
        }
    }
    said
}

/// What a job's own last failed condition says.
fn last_condition(job: &Value) -> Option<String> {
    let all = job["status"]["conditions"].as_array()?;
    let failed = all
        .iter()
        .rev()
        .find(|c| c["type"] == "Failed" && c["status"] == "True")?;
    let (reason, message) = (text(failed, "/reason"), text(failed, "/message"));
    Some(clean(&format!("{reason}: {message}"), 300))
}

/// Pods that were not made for want of quota.
fn quota(seen: &Seen) -> Option<String> {
    let refused = |event: &&Value| {
        event["reason"]
            .as_str()
            .is_some_and(|reason| reason.starts_with("FailedCreate"))
    };
    let message = seen
        .events
        .iter()
        .rev()
        .filter(refused)
        .map(|event| text(event, "/message"))
        .next()?;
    let out = if message.contains("exceeded quota") {
        "ask for less, or wait until the namespace's quota has room"
    } else {
        "the namespace does not allow such pods: see the message"
    };
    Some(format!("waits: its pods are refused: {}; {out}", clean(message, 400)))
}

/// The state in which the first container of a pod waits.
fn waiting(pod: &Value) -> (&str, &str) {
    let state = "/status/containerStatuses/0/state/waiting";
    (
        text(pod, &format!("{state}/reason")),
        text(pod, &format!("{state}/message")),
    )
}

fn image(seen: &Seen) -> Option<String> {
    let bad = |word: &str| {
        matches!(
            word,
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" | "ImageInspectError"
        )
    };
    let stuck: Vec<&Value> = seen.pods.iter().filter(|pod| bad(waiting(pod).0)).collect();
    let pod = stuck.first()?;
    let image = text(pod, "/spec/containers/0/image");
    let (word, message) = waiting(pod);
    let out = match word {
        "ErrImageNeverPull" => "the nodes do not have it, and --pull-policy forbids to pull it",
        "InvalidImageName" => "correct --image",
        _ => "check --image and --pull-secret, and that the nodes reach the registry",
    };
    Some(format!(
        "cannot start: {} of {} pods do not get the image {image} ({word}: {}); {out}",
        stuck.len(),
        seen.pods.len(),
        clean(message, 200)
    ))
}

/// Containers that wait for a volume or cannot be made.
fn volume(seen: &Seen) -> Option<String> {
    let broken = |word: &str| {
        matches!(
            word,
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError"
        )
    };
    if let Some(pod) = seen.pods.iter().find(|pod| broken(waiting(pod).0)) {
        let (word, message) = waiting(pod);
        return Some(format!("cannot start: {word}: {}", clean(message, 300)));
    }
    let stuck = seen.pods.iter().any(|pod| waiting(pod).0 == "ContainerCreating");
    let mount = |event: &&Value| matches!(event["reason"].as_str(), Some("FailedMount" | "FailedAttachVolume"));
    let event = seen.events.iter().rev().filter(|_| stuck).find(mount)?;
    Some(format!(
        "cannot start: a volume is missing: {}; check --volume, and that what it names is in the namespace",
        clean(text(event, "/message"), 300)
    ))
}

/// The queue that a job is in.
fn queue_name(seen: &Seen) -> String {
    match seen.flavor {
        Flavor::Volcano => {
            let name = text(&seen.job, "/spec/queue");
            if name.is_empty() { "default" } else { name }.to_owned()
        }
        _ => seen.job["metadata"]["labels"][KUEUE_QUEUE]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    }
}

fn queue(seen: &Seen) -> Option<String> {
    let name = queue_name(seen);
    let queue = match &seen.queue {
        Look::Absent => return Some(format!("waits: there is no queue {name}: choose another --queue")),
        Look::Is(queue) => queue,
        Look::NoRight | Look::Unasked => return None,
    };
    let state = text(queue, "/status/state");
    if seen.flavor == Flavor::Volcano && matches!(state, "Closed" | "Closing") {
        let word = state.to_lowercase();
        return Some(format!(
            "waits: queue {name} is {word}: have it opened, or choose another --queue"
        ));
    }
    let stopped = text(queue, "/spec/stopPolicy");
    if matches!(stopped, "Hold" | "HoldAndDrain") {
        return Some(format!(
            "waits: queue {name} is stopped ({stopped}): have it started, or choose another --queue"
        ));
    }
    None
}

/// The resource that a scheduler's sentence finds too little of.
fn lacking(message: &str) -> Option<&str> {
    let rest = message
        .split("Insufficient ")
        .nth(1)
        .or_else(|| message.split("insufficient ").nth(1))?;
    let word = rest.split([',', ' ', ';', ')']).next()?.trim_end_matches('.');
    (!word.is_empty()).then_some(word)
}

/// What to ask less of.
fn option_for(resource: &str) -> String {
    let option = match resource {
        "cpu" => "--cpus",
        "memory" => "--memory",
        gpu if gpu.contains("gpu") => "--gpus",
        other => return format!("--nodes or {}", clean(other, 80)),
    };
    format!("--nodes or {option}")
}

/// A sentence of a scheduler about why pods do not fit, in our words. The part about preemption repeats it.
fn does_not_fit(seen: &Seen, message: &str) -> String {
    let origin = message.split("Origin reason is ").last().unwrap_or(message);
    let origin = origin.split(" preemption:").next().unwrap_or(origin);
    let origin = origin.split(" no new claims to deallocate").next().unwrap_or(origin);
    let said = clean(origin, 300);
    let groups = ask::groups(seen.flavor, &seen.job);
    if origin.contains("persistentvolumeclaim") {
        return format!("waits: a volume is missing: {said}; check --volume");
    }
    match lacking(origin) {
        Some(resource) => {
            let asked = ask::in_words(&groups, Some(resource));
            let asked = if asked.is_empty() {
                ask::in_words(&groups, None)
            } else {
                asked
            };
            let option = option_for(resource);
            format!(
                "waits: the gang asks for {asked}, and the nodes have not enough free ({said}); ask for fewer {option}, or wait"
            )
        }
        None => {
            let asked = ask::in_words(&groups, None);
            format!("waits: no nodes fit a gang of {asked} ({said}); check --node-selector and --toleration, or wait")
        }
    }
}

/// The first pod that no node takes. The others of a gang only say that the gang is not whole.
fn unschedulable(seen: &Seen) -> Option<String> {
    let condition = |pod: &Value| {
        let all = pod["status"]["conditions"].as_array()?;
        let found = all
            .iter()
            .find(|c| c["type"] == "PodScheduled" && c["status"] == "False");
        found.map(|c| text(c, "/message").to_owned())
    };
    let messages: Vec<String> = seen
        .pods
        .iter()
        .filter_map(condition)
        .filter(|message| !message.is_empty())
        .collect();
    let telling = messages
        .iter()
        .find(|message| lacking(message).is_some() || !message.contains("pod group is not ready"));
    let message = telling.or_else(|| messages.first())?;
    Some(does_not_fit(seen, message))
}

/// What the gang scheduler says of the gang as a whole.
fn group(seen: &Seen) -> Option<String> {
    let Look::Is(group) = &seen.group else { return None };
    if seen.flavor == Flavor::Volcano {
        return pod_group(seen, group);
    }
    let conditions = group["status"]["conditions"].as_array()?;
    let open = |kind: &str, status: &str| conditions.iter().find(|c| c["type"] == kind && c["status"] == status);
    if group["spec"]["active"] == false {
        return Some("suspended: it holds nothing and waits until it is resumed".to_owned());
    }
    let refused = open("QuotaReserved", "False").or_else(|| open("Admitted", "False"))?;
    let name = queue_name(seen);
    let message = text(refused, "/message");
    if message.contains("doesn't exist") {
        return Some(format!(
            "waits: there is no queue {name} in the namespace ({}); choose another --queue",
            clean(message, 200)
        ));
    }
    let asked = ask::in_words(&ask::groups(seen.flavor, &seen.job), None);
    Some(format!(
        "waits in queue {name}: the gang asks for {asked}: {}",
        clean(message, 400)
    ))
}

/// Volcano's PodGroup: not let in yet, or let in and not placed.
fn pod_group(seen: &Seen, group: &Value) -> Option<String> {
    let phase = text(group, "/status/phase");
    let conditions = group["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let unfit = conditions
        .iter()
        .find(|c| c["type"] == "Unschedulable" && c["status"] == "True");
    if let Some(message) = unfit
        .map(|c| text(c, "/message"))
        .filter(|message| lacking(message).is_some())
    {
        let told = seen.pods.iter().any(|pod| text(pod, "/status/phase") == "Pending");
        return (!told).then(|| does_not_fit(seen, message)); // Else the pods have said it.
    }
    if phase != "Pending" && !phase.is_empty() {
        return None;
    }
    let name = queue_name(seen);
    let asked = ask::in_words(&ask::groups(seen.flavor, &seen.job), None);
    let hidden = if seen.queue == Look::NoRight {
        "; cannot see the queue: no right to get queues.scheduling.volcano.sh"
    } else {
        ""
    };
    Some(format!(
        "waits: the gang asks for {asked}, and neither the cluster nor queue {name} has that much free; ask for fewer --nodes, \
         --cpus or --gpus, or wait{hidden}"
    ))
}

/// The last warning, where nothing better is known.
fn last_warning(seen: &Seen) -> Option<String> {
    let event = seen.events.last()?;
    let (reason, message) = (text(event, "/reason"), text(event, "/message"));
    Some(format!("waits; the last warning is {reason}: {}", clean(message, 300)))
}
