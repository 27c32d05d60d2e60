//! The template of a group's pods, the same in every flavour but for a few words. Owns what a pod is told, what it sees and what it may; the
//! objects around it are `render`'s.

use crate::gang::{Gang, Group, PodShape, unfit};
use crate::{Flavor, pod};
use bridgehead_backend::BackendError;
use serde_json::{Map, Value, json};

/// The container of a pod, the first and only one: schedulers look at the exit code of the first.
pub(crate) const CONTAINER: &str = "agent";
/// Seconds a pod gets beyond the time limit, which the head itself keeps.
pub(crate) const GRACE_S: u64 = 120;
/// Secret files can be read by their group, which is 0, the pods' own.
const SECRET_MODE: u32 = 0o440;
const COMPLETION_INDEX: &str = "metadata.labels['batch.kubernetes.io/job-completion-index']";

/// The template of `group` in `flavor`: `metadata` and `spec`.
///
/// # Errors
/// A variable that is not the user's to set, or a merge that takes away what the gang needs.
pub(crate) fn template(gang: &Gang, group: &Group, flavor: Flavor) -> Result<Value, BackendError> {
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 30,
        "securityContext": pod_security(&gang.pod),
        "containers": [container(gang, group, flavor)?],
        "volumes": volumes(gang, group),
    });
    let set = spec.as_object_mut().expect("it is written as an object above");
    if let Some(limit) = gang.time_limit_s {
        set.insert("activeDeadlineSeconds".to_owned(), json!(limit + GRACE_S));
    }
    if let Some(class) = &gang.priority {
        set.insert("priorityClassName".to_owned(), json!(class));
    }
    if !gang.pod.node_selector.is_empty() {
        set.insert("nodeSelector".to_owned(), json!(gang.pod.node_selector));
    }
    if !gang.pod.tolerations.is_empty() {
        set.insert("tolerations".to_owned(), json!(gang.pod.tolerations));
    }
    if !gang.pod.pull_secrets.is_empty() {
        set.insert("imagePullSecrets".to_owned(), pull_secrets(&gang.pod));
    }
    if let Some(affinity) = affinity(gang, flavor) {
        set.insert("affinity".to_owned(), affinity);
    }
    Ok(json!({ "metadata": metadata(gang, flavor), "spec": merged(spec, &gang.pod.patch)? }))
}

pub(crate) fn pull_secrets(shape: &PodShape) -> Value {
    shape.pull_secrets.iter().map(|name| json!({ "name": name })).collect()
}

/// The user's part is merged last (RFC 7386), so that nothing is out of reach; but without these two it is no gang of ours.
pub(crate) fn merged(mut spec: Value, patch: &Value) -> Result<Value, BackendError> {
    if patch.is_null() {
        return Ok(spec);
    }
    let before = spec["restartPolicy"].clone();
    json_patch::merge(&mut spec, patch);
    if spec["containers"][0]["name"] != CONTAINER || !spec["containers"][0]["command"].is_array() {
        return unfit(
            "option pod: replaces the container `agent`; lists are replaced as a whole: leave `containers` out",
        );
    }
    if spec["restartPolicy"] != before {
        return unfit("option pod: restartPolicy stays Never, since a rank that is started alone has lost its state");
    }
    Ok(spec)
}

fn metadata(gang: &Gang, flavor: Flavor) -> Value {
    let mut labels = gang.labels.clone();
    let mut annotations = gang.pod.annotations.clone();
    // A sidecar of the old kind would keep the pod of a finished rank alive.
    labels.insert("sidecar.istio.io/inject".to_owned(), "false".to_owned());
    annotations.insert("sidecar.istio.io/inject".to_owned(), "false".to_owned());
    if let Some(topology) = gang.topology.as_ref().filter(|_| by_kueue(gang, flavor)) {
        let wish = if topology.required { "required" } else { "preferred" };
        annotations.insert(format!("kueue.x-k8s.io/podset-{wish}-topology"), topology.label.clone());
        if gang.groups(flavor).len() > 1 {
            // Without it each group is placed within one domain, but each in another.
            annotations.insert("kueue.x-k8s.io/podset-group-name".to_owned(), "gang".to_owned());
        }
    }
    json!({ "labels": labels, "annotations": annotations })
}

/// Whether Kueue places the pods: it does where a queue is named.
pub(crate) fn by_kueue(gang: &Gang, flavor: Flavor) -> bool {
    gang.queue.is_some() && matches!(flavor, Flavor::Kueue | Flavor::AppWrapper | Flavor::IndexedJob)
}

fn affinity(gang: &Gang, flavor: Flavor) -> Option<Value> {
    let topology = gang.topology.as_ref().filter(|_| !by_kueue(gang, flavor))?;
    let term = json!({ "topologyKey": topology.label, "labelSelector": { "matchLabels": own_labels(gang) } });
    let rules = if topology.required {
        json!({ "requiredDuringSchedulingIgnoredDuringExecution": [term] })
    } else {
        json!({ "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 100, "podAffinityTerm": term }] })
    };
    Some(json!({ "podAffinity": rules }))
}

/// The labels that tell the gang's pods from all others.
pub(crate) fn own_labels(gang: &Gang) -> Map<String, Value> {
    let own = gang.labels.iter().filter(|(key, _)| key.starts_with("bridgehead.dev/"));
    own.map(|(key, value)| (key.clone(), json!(value))).collect()
}

fn pod_security(shape: &PodShape) -> Value {
    let mut context = json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    let ids = [
        ("runAsUser", shape.user),
        ("runAsGroup", shape.group),
        ("fsGroup", shape.fs_group),
    ];
    for (key, id) in ids {
        if let Some(id) = id {
            context[key] = json!(id);
        }
    }
    context
}

/// The restricted profile; `rdma` adds `IPC_LOCK`, which only a privileged namespace allows.
fn container_security(shape: &PodShape) -> Value {
    let mut context = json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    if shape.rdma {
        context["capabilities"]["add"] = json!(["IPC_LOCK"]);
    }
    context
}

fn container(gang: &Gang, group: &Group, flavor: Flavor) -> Result<Value, BackendError> {
    let mut container = bare_container(gang, group, flavor)?;
    container["securityContext"] = container_security(&gang.pod);
    container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    Ok(container)
}

/// What every flavour knows of a container.
pub(crate) fn bare_container(gang: &Gang, group: &Group, flavor: Flavor) -> Result<Value, BackendError> {
    let run_dir = format!("{}/{}", pod::RUNS, gang.run);
    let resources = resources(&gang.pod);
    Ok(json!({
        "name": CONTAINER,
        "image": gang.pod.image,
        "imagePullPolicy": gang.pod.pull_policy,
        "command": ["bridgehead", "pod", "--run-dir", run_dir, "--launch", gang.launch.to_string()],
        "env": env(gang, group, flavor)?,
        "resources": { "requests": resources, "limits": resources },
        "volumeMounts": mounts(gang),
    }))
}

fn resources(shape: &PodShape) -> Value {
    let mut all = Map::new();
    all.insert("cpu".to_owned(), json!(shape.cpus.to_string()));
    all.insert("memory".to_owned(), json!(quantity(shape.memory)));
    let more = shape.resources.iter();
    all.extend(more.map(|(name, count)| (name.clone(), json!(count.to_string()))));
    Value::Object(all)
}

/// Bytes, in the largest unit that they are a whole number of.
fn quantity(bytes: u64) -> String {
    let units = [("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let unit = units.into_iter().find(|(_, shift)| bytes.trailing_zeros() >= *shift);
    unit.map_or_else(
        || bytes.to_string(),
        |(unit, shift)| format!("{}{unit}", bytes >> shift),
    )
}

fn mounts(gang: &Gang) -> Value {
    let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path });
    let read = |name: &str, path: &str| json!({ "name": name, "mountPath": path, "readOnly": true });
    let mut mounts = vec![mount("runs", pod::RUNS), read("secret", pod::SECRET)];
    if gang.code_parts > 0 {
        mounts.push(read("bundle", pod::BUNDLE));
    }
    mounts.extend([mount("home", pod::HOME), mount("tmp", "/tmp"), mount("shm", "/dev/shm")]);
    if let Some(path) = gang.project() {
        mounts.push(mount("project", path));
    }
    Value::Array(mounts)
}

pub(crate) fn volumes(gang: &Gang, group: &Group) -> Value {
    let empty = |name: &str| json!({ "name": name, "emptyDir": {} });
    let claim = gang.volume.as_ref().filter(|_| group.mounts_volume);
    let runs = claim.map_or_else(
        || empty("runs"),
        |claim| json!({ "name": "runs", "persistentVolumeClaim": { "claimName": claim } }),
    );
    let secret = json!({ "name": "secret", "secret": { "secretName": run_secret(gang), "defaultMode": SECRET_MODE } });
    let mut volumes = vec![runs, secret];
    if gang.code_parts > 0 {
        let part = |number| {
            let key = part_key(number);
            json!({ "secret": { "name": code_secret(gang, number), "items": [{ "key": key, "path": key }] } })
        };
        let sources: Vec<Value> = (0..gang.code_parts).map(part).collect();
        volumes.push(json!({ "name": "bundle", "projected": { "sources": sources, "defaultMode": SECRET_MODE } }));
    }
    let shm = json!({ "name": "shm", "emptyDir": { "medium": "Memory", "sizeLimit": quantity(gang.pod.shm) } });
    volumes.extend([empty("home"), empty("tmp"), shm]);
    volumes.extend(gang.project().map(|_| empty("project")));
    Value::Array(volumes)
}

/// The Secret of the run's own secrets.
pub(crate) fn run_secret(gang: &Gang) -> String {
    format!("{}-run", gang.name)
}

/// The Secret of a piece of the bundle.
pub(crate) fn code_secret(gang: &Gang, number: u32) -> String {
    format!("{}-code-{number}", gang.name)
}

/// The key of that piece in its Secret, and the name of its file.
fn part_key(number: u32) -> String {
    format!("part-{number:03}")
}

fn env(gang: &Gang, group: &Group, flavor: Flavor) -> Result<Value, BackendError> {
    let mut all = own_variables(gang, group, flavor);
    let ours: Vec<String> = all
        .iter()
        .map(|one| one["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    for (name, value) in &gang.pod.env {
        if ours.contains(name) {
            return unfit(format!("option env: {name} is set by the launcher: use another name"));
        }
        all.push(json!({ "name": name, "value": unexpanded(value) }));
    }
    Ok(Value::Array(all))
}

/// A value that stays as it is: Kubernetes puts variables in where it reads `$(NAME)`, and reads `$$` as `$`.
fn unexpanded(value: &str) -> String {
    if value.contains("$(") || value.contains("$$") {
        value.replace('$', "$$")
    } else {
        value.to_owned()
    }
}

/// What every pod is told. Nothing of it is a secret.
fn own_variables(gang: &Gang, group: &Group, flavor: Flavor) -> Vec<Value> {
    let plain = |name: &str, value: String| json!({ "name": name, "value": value });
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let mut all = vec![
        plain("HOME", pod::HOME.to_owned()),
        plain("USER", "bridgehead".to_owned()),
        plain("LOGNAME", "bridgehead".to_owned()),
        plain("BRIDGEHEAD_HOME", pod::HOME.to_owned()),
        plain("BRIDGEHEAD_NODES", gang.nodes.to_string()),
        plain("BRIDGEHEAD_FIRST_RANK", group.first_rank.to_string()),
    ];
    all.extend([
        field("BRIDGEHEAD_ADDRESS", "status.podIP"),
        field("BRIDGEHEAD_POD", "metadata.name"),
    ]);
    if let Some((index, life)) = fields(flavor) {
        let head = format!("{}.{}.svc:{}", gang.name, gang.namespace, pod::PORT);
        all.extend([
            field("BRIDGEHEAD_INDEX", index),
            field("BRIDGEHEAD_LIFE", life),
            plain("BRIDGEHEAD_HEAD", head),
            plain("BRIDGEHEAD_HEAD_SERVICE", gang.name.clone()),
        ]);
    } else {
        all.push(plain(pod::INDICES, array(gang)));
        if !gang.pod.env.contains_key("BRIDGEHEAD_HEAD") {
            // One pod, which is the head: with more the user has to say where it is.
            all.push(plain("BRIDGEHEAD_HEAD", format!("127.0.0.1:{}", pod::PORT)));
        }
    }
    all.extend([
        plain("BRIDGEHEAD_CPU_MILLIS", (u64::from(gang.pod.cpus) * 1000).to_string()),
        plain("BRIDGEHEAD_MEMORY", gang.pod.memory.to_string()),
        plain("BRIDGEHEAD_GPUS", gang.pod.gpus.to_string()),
        plain("BRIDGEHEAD_KEEP", gang.keep_s.to_string()),
        plain("BRIDGEHEAD_RESTARTS", gang.restarts.to_string()),
    ]);
    let limit = gang
        .time_limit_s
        .map(|limit| plain("BRIDGEHEAD_TIME_LIMIT", limit.to_string()));
    all.extend(limit);
    let python = gang.pod.python.clone();
    all.extend(python.map(|python| plain("BRIDGEHEAD_PYTHON", python)));
    all
}

/// The indices of a gang whose pods are an array, as Code Engine writes them.
pub(crate) fn array(gang: &Gang) -> String {
    format!("0-{}", gang.nodes - 1)
}

/// Where a pod finds its index in its group, and what all pods of one start of the gang share and no other start has. Code Engine sets the
/// index itself and has no such name.
fn fields(flavor: Flavor) -> Option<(&'static str, &'static str)> {
    let fields = match flavor {
        // Volcano counts the version up when it kills the job's pods, and makes new ones with the new number only.
        Flavor::Volcano => (
            "metadata.annotations['volcano.sh/task-index']",
            "metadata.annotations['volcano.sh/job-version']",
        ),
        Flavor::Kueue => (
            COMPLETION_INDEX,
            "metadata.labels['jobset.sigs.k8s.io/restart-attempt']",
        ),
        Flavor::CodeEngine => return None,
        // A wrapper makes a new Job when it starts again; in a plain Job all pods belong to the one life.
        Flavor::AppWrapper | Flavor::IndexedJob => (
            COMPLETION_INDEX,
            "metadata.labels['batch.kubernetes.io/controller-uid']",
        ),
    };
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_kubernetes_would_expand_are_kept() {
        assert_eq!(unexpanded("$HOME/a$b"), "$HOME/a$b");
        assert_eq!(unexpanded("$(HOME)/$x"), "$$(HOME)/$$x");
        assert_eq!(unexpanded("a$$b"), "a$$$$b");
    }

    #[test]
    fn amounts_are_exact() {
        for (bytes, text) in [
            (8 << 30, "8Gi"),
            (1536 << 20, "1536Mi"),
            (1 << 10, "1Ki"),
            (1000, "1000"),
            ((1 << 30) + 1, "1073741825"),
        ] {
            assert_eq!(quantity(bytes), text);
        }
    }
}
