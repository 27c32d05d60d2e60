//! A gang as the objects of a flavour. Owns what all flavours share: names and labels of objects, the head's Service, Secrets without their
//! data, the hash over everything. Each flavour is a file of its own; none of them talks to a cluster.

pub(crate) mod appwrapper;
mod code_engine;
mod indexed;
mod jobset;
mod volcano;

use crate::gang::{Gang, unfit};
use crate::template::{code_secret, own_labels, run_secret};
use crate::{Flavor, Manifest, pod, words, yaml};
use bridgehead_backend::BackendError;
use serde_json::{Map, Value, json};

/// The annotation of the top object with the hash of everything in its manifest.
pub const HASH: &str = "bridgehead.dev/hash";
/// The annotation of the top object with the key of its launch.
pub const KEY: &str = "bridgehead.dev/key";
/// Hexadecimal digits of the hash.
const HASH_DIGITS: usize = 32;
/// Bytes of an object at most, with room for what servers add; etcd takes 1.5 MiB.
const MOST_BYTES: usize = 1 << 20;

/// The top object of a flavour, and what is made before it and owned by it.
struct Objects {
    job: Value,
    side: Vec<Value>,
}

/// What the API server is handed for `gang`. Pure: the same bytes for the same gang.
///
/// # Errors
/// What the flavour cannot do, with the way out.
pub fn render(gang: &Gang, flavor: Flavor) -> Result<Manifest, BackendError> {
    let Objects { mut job, side } = match flavor {
        Flavor::Volcano => volcano::objects(gang)?,
        Flavor::Kueue => jobset::objects(gang)?,
        Flavor::AppWrapper => appwrapper::objects(gang)?,
        Flavor::IndexedJob => indexed::objects(gang)?,
        Flavor::CodeEngine => code_engine::objects(gang)?,
    };
    job["metadata"]["annotations"][KEY] = json!(gang.key);
    let bytes = json!([side, job]).to_string();
    if bytes.len() > MOST_BYTES {
        return unfit(format!(
            "the objects have {} bytes, over the 1 MiB that an API server surely takes: shorten env, annotations or the option pod",
            bytes.len()
        ));
    }
    let hash = words::hash(bytes.as_bytes(), HASH_DIGITS);
    job["metadata"]["annotations"][HASH] = json!(hash);
    let all: Vec<&Value> = side.iter().chain([&job]).collect();
    let text = yaml::stream(&all);
    Ok(Manifest {
        flavor,
        namespace: gang.namespace.clone(),
        name: gang.name.clone(),
        hash,
        job,
        side,
        text,
    })
}

/// `metadata` of an object of the gang, called `name`.
fn metadata(gang: &Gang, name: &str) -> Value {
    json!({ "name": name, "namespace": gang.namespace, "labels": gang.labels })
}

/// The same with the label by which Kueue queues an object, where a queue is named.
fn queued_metadata(gang: &Gang) -> Value {
    let mut metadata = metadata(gang, &gang.name);
    if let Some(queue) = &gang.queue {
        metadata["labels"]["kueue.x-k8s.io/queue-name"] = json!(queue);
    }
    metadata
}

/// The Service by whose address pods find the head: that of the pod with rank 0, whether it is ready or not.
fn head_service(gang: &Gang, rank_zero: &[(&str, &str)]) -> Value {
    let mut selector: Map<String, Value> = own_labels(gang);
    selector.extend(rank_zero.iter().map(|(key, value)| ((*key).to_owned(), json!(value))));
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(gang, &gang.name),
        "spec": {
            "type": "ClusterIP",
            "selector": selector,
            "publishNotReadyAddresses": true,
            "ports": [{ "name": "folder", "port": pod::PORT, "targetPort": pod::PORT, "protocol": "TCP" }],
        },
    })
}

/// The Secrets of the gang. Their data is filled in when they are sent, and is in no manifest.
fn secrets(gang: &Gang) -> Vec<Value> {
    let secret = |name: String| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata(gang, &name), "type": "Opaque" });
    let mut all = vec![secret(run_secret(gang))];
    all.extend((0..gang.code_parts).map(|number| {
        let mut code = secret(code_secret(gang, number));
        code["immutable"] = json!(true);
        code
    }));
    all
}

/// The Service, where it is no part of the job, and the Secrets.
fn side_objects(gang: &Gang, rank_zero: &[(&str, &str)]) -> Vec<Value> {
    let mut side = vec![head_service(gang, rank_zero)];
    side.extend(secrets(gang));
    side
}
