//! A test of this very program as a process of its own, which can be killed.

use std::io::BufRead;
use std::process::{Child, Command, Stdio};

/// Starts the test `name` with `variable` set to `order`; returns once it has said `word`.
pub fn start(name: &str, variable: &str, order: String, word: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture"])
        .env(variable, order)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let lines = std::io::BufReader::new(child.stdout.take().expect("piped")).lines();
    assert!(
        lines.map_while(Result::ok).any(|line| line.contains(word)),
        "{name} says that it is {word}"
    );
    child
}
