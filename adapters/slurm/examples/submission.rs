//! What a submission by REST costs beside a bare one: the same held job is handed over by the backend and by one POST, in turn,
//! each over a connection that is kept. Prints a JSON object of two lists of seconds. Called by `benchmarks/slurm`.
//!
//! usage: `submission URL TOKEN-FILE USER FOLDER ROUNDS`
#![allow(clippy::unwrap_used)] // A step that fails ends the measurement.

use bridgehead_backend::{Backend, LaunchRequest};
use bridgehead_slurm::{DoorKind, Slurm, SlurmOptions};
use bridgehead_spec::RunId;
use std::time::Instant;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let [_, url, token_file, user, folder, rounds] = words.as_slice() else {
        panic!("usage: submission URL TOKEN-FILE USER FOLDER ROUNDS");
    };
    let options = SlurmOptions {
        door: Some(DoorKind::Rest),
        rest_url: Some(url.clone()),
        token_file: Some(token_file.into()),
        user: Some(user.clone()),
        cpus: Some(1),
        time: Some("10m".to_owned()),
        native: vec!["--hold".to_owned()],
        ..SlurmOptions::default()
    };
    let slurm = Slurm::connect(&options).unwrap();
    let token = std::fs::read_to_string(token_file).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = reqwest::Client::new();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..rounds.parse().unwrap() {
        let run = RunId::parse(&format!("cost-{}-{round}", std::process::id())).unwrap();
        let request = LaunchRequest::first(run, folder.into(), "/bin/true".into(), 1);
        let began = Instant::now();
        let manifest = slurm.render(&request).unwrap();
        slurm.submit(&manifest).unwrap();
        ours.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        let call = client
            .post(format!("{url}/slurm/v0.0.38/job/submit"))
            .header("X-SLURM-USER-NAME", user)
            .header("X-SLURM-USER-TOKEN", token.trim())
            .header("Content-Type", "application/json")
            .body(manifest.text);
        let answer = runtime.block_on(async { call.send().await?.error_for_status()?.text().await });
        assert!(answer.unwrap().contains("job_id"));
        bare.push(began.elapsed().as_secs_f64());
    }
    println!("{}", serde_json::json!({ "ours": ours[1..], "bare": bare[1..] })); // The first ones connect.
}
