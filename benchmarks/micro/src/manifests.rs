//! Manifests: what it costs to render a gang of 10,000 ranks for Kubernetes, request to YAML, in each flavour with a gang scheduler. Owns a typical
//! request; the rendering is `adapters/kubernetes`'.

use crate::meter::cpu_ns;
use crate::report::{Report, Target};
use bridgehead_backend::LaunchRequest;
use bridgehead_kubernetes::{Flavor, Gang, KubernetesOptions, Surroundings, render};
use bridgehead_spec::RunId;
use std::error::Error;
use std::hint::black_box;

const RANKS: u32 = 10_000;
const FLAVORS: [(Flavor, &str); 4] = [
    (Flavor::Volcano, "Volcano"),
    (Flavor::Kueue, "JobSet"),
    (Flavor::AppWrapper, "AppWrapper"),
    (Flavor::IndexedJob, "Indexed Job"),
];

/// Adds the rows.
///
/// # Errors
/// The request cannot be rendered.
pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let run = RunId::parse("sweep-7").ok_or("the run's id is none")?;
    let mut request = LaunchRequest::first(run, "/bridgehead/runs/sweep-7".into(), "bridgehead".into(), RANKS);
    request.env.insert("BRIDGEHEAD_BUNDLE_PARTS".to_owned(), "8".to_owned());
    let options = KubernetesOptions {
        image: Some("registry.example/app:1".to_owned()),
        volume: Some("results".to_owned()),
        queue: Some("team".to_owned()),
        topology: Some("topology.kubernetes.io/rack".to_owned()),
        ..KubernetesOptions::default()
    };
    for (flavor, word) in FLAVORS {
        let name = format!("manifest: {RANKS} ranks, {word}");
        if !report.wants(&name) {
            continue;
        }
        let mut best = f64::INFINITY;
        for _ in 0..report.repeats() {
            let begin = cpu_ns();
            let gang = Gang::new(black_box(&request), &options, "team", &Surroundings::default())?;
            black_box(render(&gang, flavor)?);
            best = best.min((cpu_ns() - begin) as f64 / 1e6);
        }
        report.add(name, best, "ms", Some(Target::AtMost(50.0)));
    }
    Ok(())
}
