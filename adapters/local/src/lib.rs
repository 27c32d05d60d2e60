//! Runs a plan on this machine: starts the head and its agents as processes.
