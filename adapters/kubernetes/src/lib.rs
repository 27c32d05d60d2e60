//! Kubernetes as a backend: one gang, rendered for the gang scheduler that a cluster has.
//!
//! The core is pure: options (`options`, `check`) and a launch request become a gang (`gang`), which becomes a manifest (`template`, `render`,
//! `manifest`), the objects that the API server is handed. The shell is thin: a client of the API server (`client`) behind a blocking
//! facade ([`Kubernetes`]). It knows nothing of stores or Python.

mod check;
mod client;
mod gang;
mod kubernetes;
mod manifest;
mod options;
mod render;
mod template;
mod words;
mod yaml;

pub use client::{LogLine, PodLog};
pub use gang::{Gang, Group, PodShape, Surroundings, Topology};
pub use kubernetes::{Kubernetes, LogLines};
pub use manifest::{Flavor, Manifest, SecretData};
pub use options::{KubernetesOptions, OptionError};
pub use render::appwrapper::refuse_old;
pub use render::{HASH, KEY, render};
pub use words::{gang_name, run_label};

/// The backend's name, as users write it.
pub const NAME: &str = "kubernetes";

/// The word of a report for a job that the user suspended.
pub const SUSPENDED: &str = "Suspended";

/// Where things lie in a pod, and what it is told. The program `bridgehead pod` reads the same words.
pub mod pod {
    /// The folder below which run folders lie: the volume, or what goes with the pod.
    pub const RUNS: &str = "/bridgehead/runs";
    /// The run's secrets, one file each.
    pub const SECRET: &str = "/bridgehead/secret";
    /// The pieces of the bundle, `part-000` and so on; not there where the bundle is uploaded.
    pub const BUNDLE: &str = "/bridgehead/bundle";
    /// A home that can be written.
    pub const HOME: &str = "/bridgehead/home";
    /// The variable that says where the user's files lie, if that is where they do on the user's machine: a volume is mounted there.
    pub const PROJECT: &str = "BRIDGEHEAD_PROJECT";
    /// The port of the head's folder service.
    pub const PORT: u16 = 7641;
    /// The variable with the indices of an array that may have gaps, as `0-2,5`: a rank is the place among them.
    pub const INDICES: &str = "BRIDGEHEAD_INDICES";
    /// Exit codes after which a pod is not to be started again: the run has ended without success, its folder is damaged.
    pub const FINAL_EXITS: [i32; 2] = [1, 6];
}
