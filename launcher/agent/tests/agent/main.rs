//! The agent against a head that is two channels and workers that are this very program, so that nothing else is needed.
//! `check` in `harness` runs one case and proves that no process is left behind.

mod fake_worker;
mod far;
mod gangs;
mod guests;
mod harness;
mod leftovers;
mod objects;
mod programs;
mod workers;
