//! Plans a checked pipeline on a cluster profile, purely.
