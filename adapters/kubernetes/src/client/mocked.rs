//! The client against a function in place of an API server: what a real one seldom does. Tests only.

use super::calls::Calls;
use super::connect::Cluster;
use super::discover::Features;
use super::reference::JobName;
use crate::{Flavor, Manifest, SecretData};
use bridgehead_backend::BackendError;
use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What was asked, as `METHOD path`, in its order.
type Asked = Arc<Mutex<Vec<String>>>;

/// A cluster that is a function, and the runtime that it lives in, whose time passes at once.
struct Mock {
    cluster: Cluster,
    asked: Asked,
    runtime: tokio::runtime::Runtime,
}

/// A cluster that answers by `answer`: the number of the question, its method and its path in, a status and a document out.
fn cluster(answer: impl Fn(usize, &Method, &str) -> (u16, Value) + Send + Sync + 'static) -> Mock {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    let inside = runtime.enter();
    let asked = Asked::default();
    let (answer, log) = (Arc::new(answer), asked.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().to_string();
        let mut log = log.lock().unwrap();
        let (status, document) = answer(log.len(), request.method(), &path);
        log.push(format!("{} {path}", request.method()));
        let text = match document {
            Value::String(text) => text, // A stream of a watch.
            document => document.to_string(),
        };
        let response = Response::builder()
            .status(status)
            .body(Body::from(text.into_bytes()))
            .unwrap();
        async move { Ok::<_, Infallible>(response) }
    });
    let cluster = Cluster {
        calls: Calls {
            client: kube::Client::new(service, "hpc"),
        },
        namespace: "hpc".to_owned(),
        context: "mock".to_owned(),
        server: "http://mock".to_owned(),
        features: Features {
            flavors: vec![Flavor::IndexedJob],
            ..Features::default()
        },
    };
    drop(inside);
    Mock {
        cluster,
        asked,
        runtime,
    }
}

fn status(code: u16, reason: &str, message: &str) -> (u16, Value) {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}),
    )
}

fn manifest() -> Manifest {
    Manifest {
        flavor: Flavor::IndexedJob,
        namespace: "hpc".to_owned(),
        name: "bh-a".to_owned(),
        hash: "abc".to_owned(),
        job: json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "bh-a"}}),
        side: vec![json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bh-a-run"}})],
        text: String::new(),
    }
}

fn job(hash: &str) -> Value {
    json!({"kind": "Job", "metadata": {"name": "bh-a", "uid": "u1", "annotations": {"bridgehead.dev/hash": hash}}})
}

/// All rights, and the job only after it was asked to be made; the answer to that is `made`.
fn taking(made: (u16, Value), after: Value) -> impl Fn(usize, &Method, &str) -> (u16, Value) + Send + Sync {
    let tried = Mutex::new(false);
    move |_, method, path| {
        let mut tried = tried.lock().unwrap();
        if path.contains("selfsubjectrulesreviews") {
            let rule = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
            return (201, json!({"status": {"resourceRules": [rule], "incomplete": false}}));
        }
        if *method == Method::POST {
            *tried = true;
            return made.clone();
        }
        if *method == Method::GET && path.contains("/jobs/") {
            return if *tried && !after.is_null() {
                (200, after.clone())
            } else {
                status(404, "NotFound", "no such job")
            };
        }
        (200, json!({"metadata": {}}))
    }
}

fn submit(made: (u16, Value), after: Value) -> (Result<String, BackendError>, Vec<String>) {
    let mock = cluster(taking(made, after));
    let result = mock
        .runtime
        .block_on(mock.cluster.submit(&manifest(), &SecretData::default()));
    let asked = mock.asked.lock().unwrap().clone();
    (result.map(|job| job.0), asked)
}

fn deletes(asked: &[String]) -> usize {
    asked.iter().filter(|one| one.starts_with("DELETE")).count()
}

#[test]
fn an_answer_that_was_lost_is_made_good_by_a_look() {
    for lost in [
        status(500, "InternalError", "etcd leader changed"),
        status(409, "AlreadyExists", "there"),
    ] {
        let (result, asked) = submit(lost, job("abc"));
        assert_eq!(result.unwrap(), "indexed-job/hpc/bh-a/u1");
        assert_eq!(deletes(&asked), 0, "{asked:?}");
        assert!(
            asked.last().unwrap().starts_with("PATCH"),
            "the Secret got no owner: {asked:?}"
        );
    }
}

#[test]
fn a_name_that_another_client_took_is_refused() {
    let (result, asked) = submit(status(409, "AlreadyExists", "there"), job("other"));
    assert!(matches!(result, Err(BackendError::Refused { .. })), "{result:?}");
    assert_eq!(deletes(&asked), 0, "what belongs to the other job stays: {asked:?}");
}

#[test]
fn what_is_refused_leaves_nothing_and_what_may_have_been_done_stays() {
    let (result, asked) = submit(status(422, "Invalid", "spec.parallelism: no"), Value::Null);
    assert!(
        matches!(&result, Err(BackendError::Refused { reason, .. }) if reason.contains("parallelism")),
        "{result:?}"
    );
    assert_eq!(deletes(&asked), 1, "{asked:?}");
    let (result, asked) = submit(status(500, "InternalError", "timed out"), Value::Null);
    assert!(matches!(result, Err(BackendError::Unreachable { .. })), "{result:?}");
    assert_eq!(deletes(&asked), 0, "{asked:?}");
}

#[test]
fn a_server_that_is_busy_or_refuses_the_user_is_told_apart() {
    for (answer, unreachable) in [
        (status(429, "TooManyRequests", "busy"), true),
        (status(401, "Unauthorized", "who"), false),
    ] {
        let mock = cluster(move |_, _, _| answer.clone());
        let job = bridgehead_backend::JobRef("indexed-job/hpc/bh-a/u1".to_owned());
        let error = mock.runtime.block_on(mock.cluster.reports(&[job])).unwrap_err();
        assert_eq!(
            matches!(error, BackendError::Unreachable { .. }),
            unreachable,
            "{error:?}"
        );
        assert_eq!(matches!(error, BackendError::Denied { .. }), !unreachable, "{error:?}");
    }
}

#[test]
fn a_watch_that_the_server_has_forgotten_begins_anew() {
    let listed = |phase: &str| {
        let mut job = job("abc");
        job["apiVersion"] = "batch/v1".into();
        job["status"]["phase"] = phase.into();
        json!({"kind": "JobList", "apiVersion": "batch/v1", "metadata": {"resourceVersion": "1"}, "items": [job]})
    };
    let lists = Mutex::new(0);
    let mock = cluster(move |_, _, path| {
        if path.contains("watch=") {
            let gone = status(410, "Expired", "too old resource version").1;
            return (
                200,
                Value::String(format!("{}\n", json!({"type": "ERROR", "object": gone}))),
            );
        }
        let mut lists = lists.lock().unwrap();
        *lists += 1;
        (200, listed(if *lists < 3 { "old" } else { "new" }))
    });
    let name = JobName {
        flavor: Flavor::IndexedJob,
        namespace: "hpc".to_owned(),
        name: "bh-a".to_owned(),
        uid: "u1".to_owned(),
    };
    let came = mock
        .runtime
        .block_on(mock.cluster.calls.wait_for(&name, Duration::from_secs(600), |object| {
            object.is_some_and(|object| object["status"]["phase"] == "new")
        }));
    assert!(came.unwrap(), "{:?}", mock.asked);
}
