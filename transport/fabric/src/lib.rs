//! The data port: regions, one-sided reads, completions, capabilities, and a simulated fabric.
