//! `bridgehead`: the one binary. Owns the command line, exit codes and the composition of head, agents and reaper.

mod args;
mod doctor;
mod error;
mod follow;
mod inspect;
mod join;
mod processes;
mod runs;
mod script;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use error::{CliError, OK};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("bridgehead: {error}");
            ExitCode::from(error.code())
        }
    }
}

fn dispatch(command: Command) -> Result<u8, CliError> {
    match command {
        Command::Run(args) => script::execute(&args, "run"),
        Command::Plan(args) => script::execute(&args, "plan"),
        Command::Submit(args) => script::execute(&args, "submit"),
        Command::Ps(args) => runs::ps(&args),
        Command::Status(args) => inspect::status(&args),
        Command::Watch(args) => follow::watch(&args),
        Command::Logs(args) => inspect::logs(&args),
        Command::Why(args) => inspect::why(&args),
        Command::Cancel(args) => runs::cancel(&args),
        Command::Resume(args) => runs::resume(&args),
        Command::Results(args) => inspect::results(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Gc(args) => runs::gc(&args),
        Command::Completions(args) => {
            clap_complete::generate(args.shell, &mut Cli::command(), "bridgehead", &mut std::io::stdout());
            Ok(OK)
        }
        Command::Head(args) => Ok(processes::head(&args)),
        Command::Agent(args) => Ok(processes::agent(&args)),
        Command::Reaper(args) => Ok(processes::reaper(&args)),
    }
}
