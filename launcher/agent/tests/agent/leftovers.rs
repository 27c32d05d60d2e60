//! Nothing is left behind: not by tasks that detach children, and not by an agent that is killed.

use crate::harness::{Wish, call, check, incarnation, options, shell, welcome};
use bridgehead_agent::{Link, reaper_main, run, sweep};
use bridgehead_spec::Resources;
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::unbounded_channel;

/// Started by an agent as its reaper.
#[test]
#[ignore = "a process of other tests"]
fn as_reaper() {
    let Ok(arguments) = std::env::var("ARGS") else { return };
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let [_, _, incarnation, _, socket_dir] = arguments[..] else {
        panic!("unexpected arguments {arguments:?}")
    };
    reaper_main(incarnation, Path::new(socket_dir));
}

fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn detached_children_of_tasks_end_with_the_agent() {
    let mut children = Vec::new();
    check(Wish::default(), async |head| {
        head.function(1, "leave-child");
        head.send(call(1, 1, ""));
        children.push(head.text(1).await);
        head.send(shell(2, "setsid sleep 1000 >/dev/null 2>&1 & echo $!"));
        let out = head.program(2).await.stdout;
        children.push(String::from_utf8_lossy(&out).trim().to_owned());
    });
    for child in children {
        assert!(!lives(child.parse().expect("a process id")), "{child} lives");
    }
}

/// An agent in a process of its own, to be killed: says which processes it has started.
#[test]
#[ignore = "a process of other tests"]
fn as_agent() {
    let (Ok(dir), Ok(name)) = (std::env::var("AGENT_DIR"), std::env::var("AGENT_NAME")) else {
        return;
    };
    let dir = Path::new(&dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), async {
        let (to_agent, from_head) = unbounded_channel();
        let (to_head, mut from_agent) = unbounded_channel();
        let options = options(dir, &name, &Resources::default());
        let agent = tokio::task::spawn_local(run(options, Link { to_head, from_head }));
        let _ = to_agent.send(welcome(dir, None).into());
        let line = "setsid sleep 1000 >/dev/null 2>&1 & echo $! > child; echo $$ > self; sleep 1000";
        let _ = to_agent.send(shell(1, line).into());
        while from_agent.recv().await.is_some() {}
        let _ = agent.await;
    });
}

#[test]
fn a_killed_agent_leaves_no_process_and_no_socket() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let name = incarnation();
    let mut agent = Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["--exact", "leftovers::as_agent", "--ignored", "--nocapture"])
        .env("AGENT_DIR", dir.path())
        .env("AGENT_NAME", &name)
        .stdout(Stdio::piped())
        .spawn()
        .expect("an agent");
    let read = |name: &str| {
        let text = std::fs::read_to_string(dir.path().join("work").join(name)).unwrap_or_default();
        text.trim().parse::<i32>().ok()
    };
    wait_until("the program starts", || {
        read("self").is_some() && read("child").is_some()
    });
    let (own, child) = (read("self").expect("checked"), read("child").expect("checked"));
    assert!(lives(own) && lives(child));
    agent.kill().expect("the agent is ours");
    let _ = agent.wait();
    wait_until("the program ends", || !lives(own));
    wait_until("its detached child ends", || !lives(child));
    wait_until("the sockets go", || !dir.path().join("sockets").exists());
    assert_eq!(sweep(&name), 0);
}

#[test]
fn a_reaper_that_is_killed_is_replaced() {
    check(Wish::default(), async |head| {
        let sockets = head.dir.path().join("sockets").display().to_string();
        let reaper = || {
            let all = std::fs::read_dir("/proc").expect("proc").flatten();
            let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
            pids.find(|pid| {
                let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                let is = environment
                    .split(|&b| b == 0)
                    .any(|variable| variable.starts_with(b"ARGS=reaper") && variable.ends_with(sockets.as_bytes()));
                is && lives(*pid)
            })
        };
        let first = loop {
            match reaper() {
                Some(pid) => break pid,
                None => tokio::task::yield_now().await,
            }
        };
        kill_process(Pid::from_raw(first).expect("a process id"), Signal::KILL).expect("it is ours");
        while reaper().is_none_or(|pid| pid == first) {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn lines_of_a_long_program_are_logged_while_it_runs() {
    check(Wish::default(), async |head| {
        head.send(shell(1, "echo early; while [ ! -e stop ]; do sleep 0.01; done"));
        let log = head.dir.path().join("run/logs/tasks-0.jsonl");
        while std::fs::read_to_string(&log).unwrap_or_default().is_empty() {
            tokio::task::yield_now().await;
        }
        std::fs::write(head.work().join("stop"), "").expect("a file");
        assert_eq!(&head.program(1).await.stdout[..], b"early\n");
    });
}
