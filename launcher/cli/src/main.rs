//! `bridgehead`: the one binary. Owns the command line and the composition of head, agents and reaper; decides nothing.

mod args;
mod join;
mod processes;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Head(head) => processes::head(&head),
        Command::Agent(agent) => processes::agent(&agent),
        Command::Reaper(reaper) => processes::reaper(&reaper),
    }
}
