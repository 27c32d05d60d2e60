//! Golden manifests: each case of `golden/` gives, in every flavour, exactly the stream that lies beside it, or a refusal; and the laws
//! that hold for all of them.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use bridgehead_backend::LaunchRequest;
use bridgehead_kubernetes::{Flavor, Gang, KubernetesOptions, Surroundings, render};
use bridgehead_spec::RunId;
use serde_json::{Value, json};

mod cases;

use cases::{FLAVORS, cases, folder, gang, manifests};

/// `BRIDGEHEAD_BLESS=1` writes what is made now; the difference is then for people to judge.
fn check_file(name: &str, found: &str) {
    if std::env::var_os("BRIDGEHEAD_BLESS").is_some() {
        std::fs::write(folder().join(name), found).unwrap();
    }
    let expected = std::fs::read_to_string(folder().join(name)).unwrap_or_default();
    assert!(
        expected == found,
        "{name} holds\n{expected}\nbut this was made:\n{found}"
    );
}

#[test]
fn manifests_are_the_golden_ones() {
    for (case, document) in cases() {
        for (flavor, word) in FLAVORS {
            match render(&gang(&document), flavor) {
                Ok(manifest) => check_file(&format!("{case}.{word}.yaml"), &manifest.text),
                Err(error) => check_file(&format!("{case}.{word}.error.txt"), &format!("{error}\n")),
            }
        }
    }
}

#[test]
fn equal_requests_give_equal_bytes_and_others_another_hash() {
    let mut hashes = std::collections::BTreeSet::new();
    for (case, document) in cases() {
        for (flavor, word) in FLAVORS {
            let Ok(first) = render(&gang(&document), flavor) else {
                continue;
            };
            assert_eq!(render(&gang(&document), flavor).unwrap(), first, "{case}.{word}: again");
            assert_eq!(
                first.job["metadata"]["annotations"]["bridgehead.dev/hash"],
                json!(first.hash)
            );
            assert_eq!(first.hash.len(), 32);
            assert!(hashes.insert(first.hash), "{case}.{word} has another's hash");
            let mut other = gang(&document);
            other.pod.env.insert("MORE".to_owned(), "1".to_owned());
            assert!(
                hashes.insert(render(&other, flavor).unwrap().hash),
                "{case}.{word}: a variable more"
            );
        }
    }
}

/// Every pod template in a value: what has `metadata` and a `spec` with containers.
fn templates<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    if value["spec"]["containers"].is_array() {
        found.push(value);
    }
    let inner: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Object(map) => Box::new(map.values()),
        Value::Array(items) => Box::new(items.iter()),
        _ => return,
    };
    inner.for_each(|inner| templates(inner, found));
}

/// Every rule of the pod security profile *restricted* that `spec` breaks, `baseline`'s among them.
fn unrestricted(spec: &Value) -> Vec<&'static str> {
    let mut broken = Vec::new();
    let mut rule = |kept: bool, name| {
        if !kept {
            broken.push(name);
        }
    };
    let none = |value: &Value| value.is_null() || value == false;
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        rule(none(&spec[host]), host);
    }
    let pod = &spec["securityContext"];
    rule(
        pod["sysctls"].is_null() && pod["seLinuxOptions"].is_null() && pod["windowsOptions"].is_null(),
        "pod context",
    );
    rule(pod["appArmorProfile"].is_null(), "AppArmor");
    let kinds = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    for volume in spec["volumes"].as_array().unwrap() {
        let mut sources = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        rule(sources.all(|key| kinds.contains(&key.as_str())), "volume types");
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec[list].as_array().into_iter().flatten() {
            let own = &container["securityContext"];
            let either = |key: &str| if own[key].is_null() { &pod[key] } else { &own[key] };
            rule(none(&own["privileged"]), "privileged");
            rule(
                own["procMount"].is_null() && own["seLinuxOptions"].is_null(),
                "container context",
            );
            rule(own["allowPrivilegeEscalation"] == false, "privilege escalation");
            rule(*either("runAsNonRoot") == true, "runAsNonRoot");
            rule(either("runAsUser").as_i64() != Some(0), "runAsUser");
            let seccomp = either("seccompProfile")["type"].as_str();
            rule(matches!(seccomp, Some("RuntimeDefault" | "Localhost")), "seccomp");
            let dropped = own["capabilities"]["drop"].as_array().cloned().unwrap_or_default();
            rule(dropped.contains(&json!("ALL")), "capabilities dropped");
            let added = own["capabilities"]["add"].as_array().cloned().unwrap_or_default();
            rule(added.iter().all(|one| one == "NET_BIND_SERVICE"), "capabilities added");
            let mut ports = container["ports"].as_array().into_iter().flatten();
            rule(ports.all(|port| port["hostPort"].is_null()), "host ports");
        }
    }
    broken
}

/// Code Engine is left out: its pods are the service's own, and a job run has no place for a security context.
#[test]
fn all_pods_pass_the_restricted_profile() {
    let mut pods = 0;
    for (name, manifest) in manifests() {
        let mut found = Vec::new();
        templates(&manifest.job, &mut found);
        assert!(
            !found.is_empty() || manifest.flavor == Flavor::CodeEngine,
            "{name} has pods"
        );
        for template in found {
            assert_eq!(unrestricted(&template["spec"]), [""; 0], "{name}");
            pods += 1;
        }
    }
    assert!(pods >= 12, "{pods} templates were looked at");
}

#[test]
fn rdma_alone_leaves_the_restricted_profile_and_by_one_capability() {
    let (_, mut document) = cases().into_iter().find(|(case, _)| case == "plain").unwrap();
    document["options"]["rdma"] = json!(true);
    let manifest = render(&gang(&document), Flavor::Volcano).unwrap();
    let mut found = Vec::new();
    templates(&manifest.job, &mut found);
    assert_eq!(unrestricted(&found[0]["spec"]), ["capabilities added"]);
}

/// Every container in a value.
fn containers<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("containers").and_then(Value::as_array).into_iter().flatten());
            map.values().for_each(|inner| containers(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| containers(inner, found)),
        _ => {}
    }
}

#[test]
fn requests_are_limits_and_nothing_secret_is_written() {
    for (name, manifest) in manifests() {
        let mut found = Vec::new();
        containers(&manifest.job, &mut found);
        assert!(!found.is_empty(), "{name} has containers");
        for container in found {
            assert_eq!(
                container["resources"]["requests"], container["resources"]["limits"],
                "{name}"
            );
            assert_eq!(container["name"], "agent", "{name}");
            assert!(container["envFrom"].is_null(), "{name}");
            for variable in container["env"].as_array().unwrap() {
                let from = &variable["valueFrom"];
                assert!(from["secretKeyRef"].is_null(), "{name}: {variable}");
                let word = variable["name"].as_str().unwrap().to_uppercase();
                let secret = ["SECRET", "TOKEN", "PASSWORD", "CREDENTIAL", "PRIVATE", "TICKET"];
                assert!(secret.iter().all(|part| !word.contains(part)), "{name}: {word}");
            }
        }
        for object in &manifest.side {
            assert!(object["data"].is_null() && object["stringData"].is_null(), "{name}");
        }
        assert!(
            !manifest.text.contains("BUNDLE_PARTS"),
            "{name}: the hint is for rendering alone"
        );
    }
}

#[test]
fn a_thousand_ranks_are_small() {
    for (case, mut document) in cases() {
        document["agents"] = json!(1000);
        if let Some(options) = document["options"].as_object_mut() {
            options.remove("nodes");
        }
        for (flavor, word) in FLAVORS {
            let Ok(manifest) = render(&gang(&document), flavor) else {
                continue;
            };
            assert!(
                manifest.text.len() < 200 << 10,
                "{case}.{word}: {} bytes",
                manifest.text.len()
            );
            let mut found = Vec::new();
            containers(&manifest.job, &mut found);
            for variable in found.iter().flat_map(|one| one["env"].as_array().unwrap()) {
                assert!(variable.to_string().len() < 32 << 10, "{case}.{word}: {variable}");
            }
        }
    }
}

#[test]
fn ranks_are_shared_out_without_gap_or_overlap() {
    for (case, document) in cases() {
        for agents in [1, 2, 3, 1000] {
            let mut document = document.clone();
            document["agents"] = json!(agents);
            document["options"].as_object_mut().unwrap().remove("nodes");
            for (flavor, word) in FLAVORS {
                let gang = gang(&document);
                let groups = gang.groups(flavor);
                let mut next = 0;
                for group in &groups {
                    assert_eq!(group.first_rank, next, "{case}.{word}");
                    assert!(group.replicas > 0, "{case}.{word}");
                    next += group.replicas;
                }
                assert_eq!(next, agents, "{case}.{word}");
                assert_eq!(
                    groups[0].mounts_volume,
                    gang.volume.is_some(),
                    "{case}.{word}: rank 0 has the volume"
                );
            }
        }
    }
}

#[test]
fn the_stream_is_the_objects() {
    for (name, manifest) in manifests() {
        let objects: Vec<Value> = serde_saphyr::from_multiple(&manifest.text).unwrap();
        let (job, side) = objects.split_last().unwrap();
        assert_eq!((job, side), (&manifest.job, &manifest.side[..]), "{name}");
    }
}

/// A request is refused with all of these words.
fn refused(change: impl FnOnce(&mut LaunchRequest, &mut KubernetesOptions), words: &[&str]) {
    let run = RunId::parse("sweep").unwrap();
    let mut request = LaunchRequest::first(run, "/runs/sweep".into(), "bridgehead".into(), 2);
    let mut options = KubernetesOptions {
        image: Some("app:1".to_owned()),
        ..KubernetesOptions::default()
    };
    change(&mut request, &mut options);
    let made = Gang::new(&request, &options, "team-a", &Surroundings::default());
    let made = made.and_then(|gang| render(&gang, Flavor::Volcano));
    let error = made.expect_err("it is refused").to_string();
    assert!(words.iter().all(|word| error.contains(word)), "{error} lacks {words:?}");
}

#[test]
fn what_cannot_be_met_is_refused_with_the_way_out() {
    refused(|request, _| request.agents = 0, &["at least one", "--nodes"]);
    refused(|_, options| options.image = None, &["--image", "deploy/kubernetes"]);
    refused(|_, options| options.nodes = Some(3), &["3 nodes", "2 agents"]);
    refused(|_, options| options.memory = Some("8G".to_owned()), &["memory", "8GiB"]);
    refused(
        |request, _| request.after = vec![bridgehead_backend::JobRef("x".to_owned())],
        &["are over"],
    );
    let set = |name: &str, value: &str| {
        let (name, value) = (name.to_owned(), value.to_owned());
        move |request: &mut LaunchRequest, _: &mut KubernetesOptions| {
            request.env.insert(name, value);
        }
    };
    refused(
        set("BRIDGEHEAD_BUNDLE_PARTS", "many"),
        &["BRIDGEHEAD_BUNDLE_PARTS=many"],
    );
    refused(set("BRIDGEHEAD_BUNDLE_PARTS", "1001"), &["1000", "upload"]);
    refused(set("BRIDGEHEAD_HEAD", "h:1"), &["BRIDGEHEAD_HEAD", "another name"]);
    refused(set("A-B", "1"), &["A-B"]);
    refused(set("A", &"x".repeat((32 << 10) + 1)), &["32 KiB"]);
    refused(
        |_, options| options.pod = json!({"containers": []}),
        &["containers", "leave"],
    );
    refused(
        |_, options| options.pod = json!({"restartPolicy": "Always"}),
        &["restartPolicy"],
    );
}

#[test]
fn the_users_part_is_merged_last() {
    let (_, mut document) = cases().into_iter().find(|(case, _)| case == "plain").unwrap();
    document["options"]["pod"] = json!({"runtimeClassName": "nvidia", "terminationGracePeriodSeconds": null});
    let manifest = render(&gang(&document), Flavor::Kueue).unwrap();
    let mut found = Vec::new();
    templates(&manifest.job, &mut found);
    assert_eq!(found[0]["spec"]["runtimeClassName"], "nvidia");
    assert_eq!(found[0]["spec"].get("terminationGracePeriodSeconds"), None);
}
