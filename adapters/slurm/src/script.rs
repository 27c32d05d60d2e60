//! The batch script: set-up lines, one `srun` that starts the run's program once on each node, then the look at what is left
//! to do. Owns its text and the quoting of words for the shell and for `#SBATCH` lines.

use crate::job::SlurmJob;
use crate::options::{ContainerTool, GpuForm};
use std::fmt::Write as _;

/// The script with its `#SBATCH` lines: what sbatch takes, also by hand.
#[must_use]
pub fn for_sbatch(job: &SlurmJob) -> String {
    let mut out = String::from(shebang(job));
    for line in directives(job) {
        let _ = writeln!(out, "#SBATCH {line}");
    }
    out + &body(job)
}

/// The script alone: slurmrestd does not read `#SBATCH` lines.
#[must_use]
pub fn for_rest(job: &SlurmJob) -> String {
    String::from(shebang(job)) + &body(job)
}

/// Set-up lines want what a login shell has, `module` for instance; without them its start files only cost time.
fn shebang(job: &SlurmJob) -> &'static str {
    if job.setup.is_empty() {
        "#!/bin/bash\n"
    } else {
        "#!/bin/bash -l\n"
    }
}

fn directives(job: &SlurmJob) -> Vec<String> {
    let mut lines = vec![
        directive("job-name", &job.name),
        directive("comment", &job.comment),
        directive("nodes", &job.nodes.to_string()),
        directive("ntasks", &job.nodes.to_string()),
        directive("ntasks-per-node", "1"),
    ];
    match job.cpus {
        Some(cpus) => lines.push(directive("cpus-per-task", &cpus.to_string())),
        None => lines.push("--exclusive".to_owned()),
    }
    let gres = job.gpus.as_ref().map(|gpus| match gpus.form {
        GpuForm::Gres => directive("gres", &format!("gpu:{}", gpus.amount())),
        GpuForm::GpusPerNode => directive("gpus-per-node", &gpus.amount()),
    });
    lines.extend(gres);
    let asked = [
        ("mem", job.memory_mib.map(|mib| format!("{mib}M"))),
        ("mem-per-cpu", job.memory_per_cpu_mib.map(|mib| format!("{mib}M"))),
        ("time", job.time_minutes.map(|minutes| minutes.to_string())),
        ("partition", job.partition.clone()),
        ("account", job.account.clone()),
        ("qos", job.qos.clone()),
        ("constraint", job.constraint.clone()),
        ("reservation", job.reservation.clone()),
        ("exclude", job.exclude.clone()),
        ("nodelist", job.nodelist.clone()),
        ("licenses", job.licenses.clone()),
        ("signal", job.signal_before.map(|before| format!("USR1@{before}"))),
        ("dependency", job.dependency()),
        ("array", job.array_range()),
    ];
    lines.extend(
        asked
            .into_iter()
            .filter_map(|(name, value)| Some(directive(name, &value?))),
    );
    lines.push(if job.requeue { "--requeue" } else { "--no-requeue" }.to_owned());
    lines.push("--no-kill".to_owned());
    lines.push("--open-mode=append".to_owned());
    lines.push(directive("chdir", &job.run_dir));
    lines.push(directive("output", &job.output()));
    lines.extend(job.native.iter().cloned());
    lines
}

fn directive(name: &str, value: &str) -> String {
    format!("--{name}={}", escaped(value))
}

fn body(job: &SlurmJob) -> String {
    let mut out = format!(
        "# Launch {} of run {}: one agent on each node; then, if the run was paused, its next job.\n",
        job.launch, job.name
    );
    // What an outer job or sbatch's own options left must not change the step.
    out += "unset SLURM_EXPORT_ENV SLURM_TRES_PER_TASK SRUN_CPUS_PER_TASK\n";
    // The signal before the time limit is for the agents; where a site sends it to this shell too, the shell goes on.
    out += "trap : USR1\n";
    for (name, value) in &job.env {
        let _ = writeln!(out, "export {name}={}", quoted(value));
    }
    for line in &job.setup {
        let _ = writeln!(out, "{line}");
    }
    if let Some(cpus) = job.cpus {
        let _ = writeln!(out, "export SRUN_CPUS_PER_TASK={cpus}");
    }
    let _ = writeln!(out, "{}", step(job).join(" \\\n    "));
    let _ = writeln!(out, "exec {}", command(job, "after"));
    out
}

/// The one step: `srun`, its options, what runs the image, the program.
fn step(job: &SlurmJob) -> Vec<String> {
    let mut words = vec![
        "srun --nodes=\"$SLURM_JOB_NUM_NODES\" --ntasks=\"$SLURM_JOB_NUM_NODES\" --ntasks-per-node=1".to_owned(),
        // Agents bind their tasks themselves, speak no MPI, and outlive each other's end.
        "--cpu-bind=none --mpi=none --no-kill --kill-on-bad-exit=0 --wait=0 --export=ALL".to_owned(),
    ];
    // Asking for cores holds the step to them; a step that asks for none has all cores of the job on each node, also where
    // the nodes differ.
    words.extend(job.cpus.map(|cpus| format!("--cpus-per-task={cpus}")));
    words.push(format!("--open-mode=append --output={}", quoted(&job.step_output())));
    words.extend(image(job));
    words.push(command(job, "node"));
    words
}

fn image(job: &SlurmJob) -> Option<String> {
    let container = job.container.as_ref()?;
    let (image, dir, program) = (&container.image, &job.run_dir, &job.program);
    Some(match container.tool {
        ContainerTool::Pyxis => format!(
            "--container-image={} --container-mounts={} --container-workdir={}",
            quoted(image),
            quoted(&format!("{dir}:{dir},{program}:{program}")),
            quoted(dir)
        ),
        ContainerTool::Apptainer => format!(
            "apptainer exec {}--bind {} --pwd {} {}",
            if job.gpus.is_some() { "--nv " } else { "" },
            quoted(&format!("{dir},{program}")),
            quoted(dir),
            quoted(image)
        ),
    })
}

fn command(job: &SlurmJob, verb: &str) -> String {
    let (program, dir) = (quoted(&job.program), quoted(&job.run_dir));
    format!("{program} {verb} --run-dir {dir} --launch {}", job.launch)
}

/// Whether neither the shell nor sbatch sees anything but text in it.
fn plain(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&b))
}

/// One word of a shell command.
fn quoted(text: &str) -> String {
    if plain(text) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// One value of an `#SBATCH` line. sbatch ends a word at a space, escaped or not, unless it stands in quotes; a backslash keeps
/// the next character in them.
fn escaped(text: &str) -> String {
    if !text.contains(|c: char| c.is_whitespace() || "\"'#\\".contains(c)) {
        return text.to_owned();
    }
    let kept = text.replace('\\', r"\\").replace('"', r#"\""#);
    format!("\"{kept}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_word_reaches_the_shell_as_it_is() {
        for text in [
            "/plain/path",
            "/with space",
            "it's",
            "$HOME `id` \"x\" \\ * ?",
            "",
            "#no comment",
            "a\nb",
        ] {
            let script = format!("printf %s {}", quoted(text));
            let output = Command::new("bash")
                .args(["-c", &script])
                .output()
                .expect("bash is there");
            assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        }
    }

    #[test]
    fn a_directives_value_keeps_its_spaces_and_quotes() {
        assert_eq!(escaped("a b#c\"d'e\\f"), r#""a b#c\"d'e\\f""#);
        assert_eq!(escaped("[a|b]*2&c"), "[a|b]*2&c");
    }
}
