//! What the REST door does where a server misbehaves: answers that are lost, errors that made the job, keys that are dropped,
//! tokens that end. The server is a fake: a few lines of HTTP in this test, for what no real one does when asked.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use bridgehead_backend::{Backend, BackendError, JobRef, LaunchRequest};
use bridgehead_slurm::{Slurm, SlurmOptions, Surroundings};
use bridgehead_spec::RunId;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as the server got it.
#[derive(Debug, Clone)]
struct Asked {
    /// `POST job/submit`; for pings with the version before them.
    what: String,
    token: String,
    body: String,
}

/// What the server does with a request.
enum Reply {
    Json(u16, Value),
    Text(u16, &'static str),
    /// Closes the connection without a word.
    Silence,
}

type Asks = Arc<Mutex<Vec<Asked>>>;

/// A server of v0.0.41 that answers by `script`, and what has no word there by itself. It ends with the process.
fn serve(script: impl Fn(&Asked, usize) -> Option<Reply> + Send + 'static) -> (String, Asks) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asks = Asks::default();
    let seen = asks.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            while let Some(asked) = read(&mut reader) {
                let times = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(asked.clone());
                    seen.iter().filter(|one| one.what == asked.what).count()
                };
                match script(&asked, times).unwrap_or_else(|| usual(&asked)) {
                    Reply::Silence => break,
                    Reply::Json(status, value) => write(reader.get_mut(), status, &value.to_string()),
                    Reply::Text(status, text) => write(reader.get_mut(), status, text),
                }
            }
        }
    });
    (url, asks)
}

fn usual(asked: &Asked) -> Reply {
    match asked.what.as_str() {
        "GET v0.0.41/ping" => Reply::Json(200, json!({"pings": [], "errors": [], "warnings": []})),
        "GET partitions" => Reply::Json(200, json!({"partitions": [], "errors": []})),
        "GET nodes" => Reply::Json(200, json!({"nodes": [], "errors": []})),
        "GET jobs" => Reply::Json(200, json!({"jobs": [], "errors": []})),
        "POST job/submit" => Reply::Json(200, json!({"job_id": 7, "errors": [], "warnings": []})),
        "DELETE job/7" => Reply::Json(200, json!({"errors": []})),
        _ => Reply::Text(404, "Not found"),
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let (method, path) = line.split_once(' ')?;
    let path = path.split(' ').next()?.trim_start_matches("/slurm/");
    let (version, rest) = path.split_once('/')?;
    let what = if rest == "ping" {
        format!("{method} {version}/ping")
    } else {
        format!("{method} {rest}")
    };
    let (mut token, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "x-slurm-user-token" => value.clone_into(&mut token),
            "content-length" => length = value.parse().unwrap(),
            "content-type" => assert_eq!(value, "application/json", "slurmrestd takes no charset"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).unwrap();
    Some(Asked { what, token, body })
}

fn write(stream: &mut TcpStream, status: u16, text: &str) {
    let length = text.len();
    // A client that has gone needs no answer.
    let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{text}");
}

fn count(asks: &Asks, what: &str) -> usize {
    asks.lock().unwrap().iter().filter(|asked| asked.what == what).count()
}

fn connect(url: &str, options: SlurmOptions) -> Result<Slurm, BackendError> {
    let token = if options.token_file.is_some() { "" } else { "a-token" };
    let vars = [
        ("USER", "ada"),
        ("PATH", "/nowhere"),
        ("HTTP_PROXY", "http://127.0.0.1:9"),
        ("SLURM_JWT", token),
    ];
    let around: Surroundings = vars
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let options = SlurmOptions {
        rest_url: Some(url.to_owned()),
        time: Some("10m".to_owned()),
        ..options
    };
    Ok(Slurm::connect_in(&options, &around)?.with_retries(vec![Duration::ZERO; 3]))
}

/// Submits one job to a server with this script.
fn submit(script: impl Fn(&Asked, usize) -> Option<Reply> + Send + 'static) -> (Result<JobRef, BackendError>, Asks) {
    let (url, asks) = serve(script);
    let slurm = connect(&url, SlurmOptions::default()).unwrap();
    let run = RunId::parse("fake-1").unwrap();
    let request = LaunchRequest::first(run, "/shared/fake-1".into(), "/opt/bridgehead".into(), 1);
    (slurm.submit(&slurm.render(&request).unwrap()), asks)
}

/// The list of jobs of a server that has the job with our key, and one of somebody else with the same comment.
fn the_job_is_there() -> Reply {
    let job = |id: u32, user: &str| json!({"job_id": id, "job_state": ["PENDING"], "comment": "bridgehead:fake-1/1", "user_name": user});
    Reply::Json(200, json!({"jobs": [job(3, "eve"), job(7, "ada")], "errors": []}))
}

#[test]
fn a_job_whose_answer_was_lost_is_found_and_not_made_twice() {
    let (job, asks) = submit(|asked, times| match (asked.what.as_str(), times) {
        ("POST job/submit", _) => Some(Reply::Silence),
        ("GET jobs", _) => Some(the_job_is_there()),
        _ => None,
    });
    assert_eq!(job.unwrap(), JobRef("7".to_owned()));
    assert_eq!(count(&asks, "POST job/submit"), 1);
    let body = asks
        .lock()
        .unwrap()
        .iter()
        .find(|asked| asked.what == "POST job/submit")
        .unwrap()
        .body
        .clone();
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap()["job"]["comment"],
        "bridgehead:fake-1/1"
    );
}

#[test]
fn nothing_is_submitted_again_before_slurm_said_that_the_job_is_not_there() {
    let (job, asks) = submit(|asked, times| match (asked.what.as_str(), times) {
        ("POST job/submit", _) => Some(Reply::Text(502, "Bad gateway")),
        ("GET jobs", 1 | 2) => Some(Reply::Silence),
        ("GET jobs", _) => Some(the_job_is_there()),
        _ => None,
    });
    assert_eq!(job.unwrap(), JobRef("7".to_owned()));
    assert_eq!(count(&asks, "POST job/submit"), 1);
    assert_eq!(count(&asks, "GET jobs"), 3);
}

#[test]
fn a_submission_that_never_arrived_is_sent_again() {
    let (job, asks) = submit(|asked, times| match (asked.what.as_str(), times) {
        ("POST job/submit", 1) => Some(Reply::Silence),
        _ => None,
    });
    assert_eq!(job.unwrap(), JobRef("7".to_owned()));
    assert_eq!((count(&asks, "POST job/submit"), count(&asks, "GET jobs")), (2, 1));
}

#[test]
fn tries_come_to_an_end() {
    let (job, asks) = submit(|asked, _| (asked.what == "POST job/submit").then_some(Reply::Silence));
    assert!(matches!(job, Err(BackendError::Unreachable { .. })), "{job:?}");
    assert_eq!(count(&asks, "POST job/submit"), 4);
    assert_eq!(count(&asks, "GET jobs"), 4, "also after the last try it is looked for");
}

#[test]
fn an_error_that_made_the_job_is_recognised() {
    let (job, asks) = submit(|asked, _| {
        let answer = json!({"job_id": 12, "errors": [{"error_number": 9200, "description": "Invalid value"}]});
        (asked.what == "POST job/submit").then_some(Reply::Json(500, answer))
    });
    assert_eq!(job.unwrap(), JobRef("12".to_owned()));
    assert_eq!(count(&asks, "POST job/submit"), 1);
}

#[test]
fn a_job_without_a_part_of_what_was_asked_is_cancelled() {
    let (job, asks) = submit(|asked, _| {
        let words = "Ignoring unknown field \"tres_per_node\" of type string in DATA_PARSER_JOB_DESC_MSG";
        let answer = json!({"job_id": 7, "errors": [], "warnings": [{"description": words}]});
        (asked.what == "POST job/submit").then_some(Reply::Json(200, answer))
    });
    let error = job.unwrap_err();
    assert!(matches!(error, BackendError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("tres_per_node"), "{error}");
    assert_eq!(count(&asks, "DELETE job/7"), 1);
}

#[test]
fn a_refusal_is_not_tried_again() {
    let (job, asks) = submit(|asked, _| {
        let error =
            json!({"error_number": 2045, "error": "Invalid account or account/partition combination specified"});
        (asked.what == "POST job/submit").then_some(Reply::Json(500, json!({"errors": [error]})))
    });
    let error = job.unwrap_err();
    assert!(error.to_string().contains("sacctmgr"), "{error}");
    assert_eq!(count(&asks, "POST job/submit"), 1);
}

#[test]
fn a_token_that_ends_between_two_requests_is_told() {
    let (job, asks) = submit(|asked, _| {
        let error = |error: Value| Some(Reply::Json(500, json!({"errors": [error]})));
        match asked.what.as_str() {
            // What 22.05 answers then.
            "POST job/submit" => error(json!({"error_code": 5005, "error": "Zero Bytes were transmitted or received"})),
            "GET jobs" => error(json!({"error_number": -1, "error": "Unspecified error", "source": "slurm_load_jobs"})),
            _ => None,
        }
    });
    assert!(matches!(job, Err(BackendError::Denied { .. })), "{job:?}");
    assert_eq!(count(&asks, "POST job/submit"), 1);
}

#[test]
fn versions_are_tried_from_the_newest_down() {
    let (url, asks) = serve(|_, _| None);
    let slurm = connect(&url, SlurmOptions::default()).unwrap();
    let whats: Vec<String> = asks.lock().unwrap().iter().map(|asked| asked.what.clone()).collect();
    assert_eq!(
        whats,
        [
            "GET v0.0.44/ping",
            "GET v0.0.43/ping",
            "GET v0.0.42/ping",
            "GET v0.0.41/ping"
        ]
    );
    assert!(slurm.door().1.contains("v0.0.41"), "{:?}", slurm.door());
    let (url, asks) = serve(|_, _| Some(Reply::Text(404, "Not found")));
    let error = connect(&url, SlurmOptions::default()).unwrap_err().to_string();
    assert!(error.contains("v0.0.38") && error.contains("cli"), "{error}");
    assert_eq!(count(&asks, "GET v0.0.39/ping"), 0);
}

#[test]
fn who_is_not_accepted_learns_the_way_out() {
    let (url, _) = serve(|_, _| Some(Reply::Text(401, "Authentication failure")));
    let error = connect(&url, SlurmOptions::default()).unwrap_err();
    assert!(matches!(error, BackendError::Denied { .. }), "{error:?}");
    assert!(error.to_string().contains("token_file"), "{error}");
    assert!(!error.to_string().contains("a-token"), "{error}");
}

#[test]
fn a_token_that_is_refused_is_read_anew_once() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(file.path(), "old").unwrap();
    let path = file.path().to_owned();
    let (url, asks) = serve(move |asked, _| {
        if asked.token == "n3w-t0ken" {
            return None;
        }
        // The site's own renewal comes in between.
        std::fs::write(&path, "n3w-t0ken").unwrap();
        Some(Reply::Json(511, json!({"errors": [{"error_number": 1007}]})))
    });
    let options = SlurmOptions {
        token_file: Some(file.path().to_owned()),
        ..SlurmOptions::default()
    };
    connect(&url, options.clone()).unwrap();
    assert_eq!(
        asks.lock().unwrap().iter().filter(|asked| asked.token == "old").count(),
        1
    );
    let (url, asks) = serve(|_, _| Some(Reply::Text(401, "Authentication failure")));
    let error = connect(&url, options).unwrap_err().to_string();
    assert!(error.contains("scontrol token") && !error.contains("n3w"), "{error}");
    assert_eq!(asks.lock().unwrap().len(), 1, "the file held no other token");
}

#[test]
fn nobody_there_is_said_with_the_way_out() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = connect(&format!("http://{free}"), SlurmOptions::default()).unwrap_err();
    assert!(matches!(error, BackendError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("rest_url"), "{error}");
    let error = connect("ftp://x", SlurmOptions::default()).unwrap_err().to_string();
    assert!(error.contains("https://") && error.contains("unix:"), "{error}");
}

#[test]
fn commands_stand_in_for_a_server_that_cannot_be_reached_unless_it_was_asked_for() {
    use bridgehead_slurm::DoorKind;
    use std::os::unix::fs::PermissionsExt;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sbatch = folder.path().join("sbatch");
    std::fs::write(&sbatch, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&sbatch, std::fs::Permissions::from_mode(0o755)).unwrap();
    let vars = [("USER", "ada"), ("PATH", folder.path().to_str().unwrap())];
    let around: Surroundings = vars
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut options = SlurmOptions {
        rest_url: Some(format!("http://{free}")),
        ..SlurmOptions::default()
    };
    let slurm = Slurm::connect_in(&options, &around).unwrap();
    assert_eq!(slurm.door().0, "cli");
    assert!(slurm.door().1.contains("rest_url"), "{:?}", slurm.door());
    options.door = Some(DoorKind::Rest);
    assert!(Slurm::connect_in(&options, &around).is_err(), "REST was asked for");
}
