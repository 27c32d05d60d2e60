//! `bridgehead`: the one binary. Owns the command line, exit codes and the composition of head, agents and reaper.

mod after;
mod args;
mod doctor;
mod echo;
mod error;
mod far;
mod folder;
mod follow;
mod gc;
mod handed;
mod indices;
mod inspect;
mod join;
mod launch;
mod logs;
mod looks;
mod node;
mod order;
mod orders;
mod output;
mod place;
mod pod;
mod pod_place;
mod processes;
mod ranks;
mod runs;
mod script;
mod secrets;
mod standing;
mod survivor;
mod target;
mod transport;
mod why;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use error::{BROKEN, CliError, OK};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse_from(order::arranged(std::env::args_os().collect(), &Cli::command()));
    let done = std::panic::catch_unwind(|| dispatch(cli.command));
    let done = done.unwrap_or_else(|_| Err(CliError::new(BROKEN, "this is a bug, please report what is above")));
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if error.code() != OK {
                output::note(&error);
            }
            ExitCode::from(error.code())
        }
    }
}

fn dispatch(command: Command) -> Result<u8, CliError> {
    match command {
        Command::Run(args) => script::run(&args),
        Command::Plan(args) => script::plan(&args),
        Command::Submit(args) => script::submit(&args),
        Command::Ps(args) => inspect::ps(&args),
        Command::Status(args) => inspect::status(&args),
        Command::Watch(args) => follow::watch(&args),
        Command::Logs(args) => logs::logs(&args),
        Command::Why(args) => why::why(&args),
        Command::Cancel(args) => runs::cancel(&args),
        Command::Suspend(args) => runs::suspend(&args),
        Command::Resume(args) => runs::resume(&args),
        Command::Results(args) => inspect::results(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Gc(args) => gc::gc(&args),
        Command::Completions(args) => completions(&args),
        Command::Head(args) => Ok(processes::head(&args)),
        Command::Agent(args) => Ok(processes::agent(&args)),
        Command::Reaper(args) => Ok(processes::reaper(&args)),
        Command::PmixServer => match bridgehead_mpi::serve_pmix() {
            Ok(never) => match never {},
            Err(reason) => Err(CliError::new(BROKEN, reason)),
        },
        Command::Launch(args) => launch::launch(&args),
        Command::Backend => launch::backend(),
        Command::Node(args) => Ok(node::node(&args)),
        Command::Pod(args) => Ok(pod::pod(&args)),
        Command::Mirror(args) => far::mirror(&args),
        Command::After(args) => after::after(&args),
    }
}

/// The script completes what `--help` shows; what backends and agents start is left out.
fn completions(args: &args::Completions) -> Result<u8, CliError> {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut offered = clap::Command::new("bridgehead")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .args(all.get_arguments().cloned())
        .subcommands(shown);
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut offered, "bridgehead", &mut script);
    output::raw(&script)?;
    Ok(OK)
}
