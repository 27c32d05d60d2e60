//! Gangs of real MPIs find one another: any number of ranks and nodes, aborts, killed ranks, other families' programs, and what
//! programs say of their MPI. MPIs that are missing are skipped by name.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

#[path = "../examples/gang/mod.rs"]
mod gang;
mod support;

use bridgehead_mpi::{Event, Family, loaded_by};
use gang::{Gang, Machine, Outcome, helper};
use std::path::Path;
use support::{Mpi, all, of, until, with_modes};

fn check(outcome: &Outcome, ranks: u32, what: &str) {
    assert!(
        outcome.statuses.iter().all(std::process::ExitStatus::success),
        "{what}: {outcome:?}"
    );
    assert_eq!(
        (outcome.joined(), outcome.left()),
        (ranks as usize, ranks as usize),
        "{what}: {outcome:?}"
    );
    for (rank, text) in outcome.texts.iter().enumerate() {
        let line = format!("rank {rank} of {ranks} sum {}", ranks * (ranks + 1) / 2);
        assert!(text.contains(&line), "{what}: {outcome:?}");
    }
}

/// All shapes of gangs with one MPI, on machines whose helpers stay warm.
fn shapes(name: &str, shapes: &[(u32, usize)]) {
    let folder = tempfile::tempdir().unwrap();
    let Some(mpi) = all(folder.path()).into_iter().find(|mpi| mpi.name == name) else {
        return;
    };
    for nodes in 1..=3 {
        let mut machine = Machine::new(nodes, &helper());
        for (ranks, _) in shapes.iter().filter(|(_, of)| *of == nodes) {
            let outcome = machine.run(&mpi.gang(*ranks, &[]));
            check(&outcome, *ranks, &format!("{ranks} ranks on {nodes} nodes"));
            assert_eq!(
                outcome.sent > 0,
                nodes > 1,
                "nodes speak to one another when there are several"
            );
        }
    }
}

const ALL: &[(u32, usize)] = &[(1, 1), (2, 1), (4, 1), (8, 1), (2, 2), (4, 2), (8, 2), (4, 3), (8, 3)];
/// Interpreters start slowly.
const SOME: &[(u32, usize)] = &[(1, 1), (4, 1), (4, 2), (5, 3)];

#[test]
fn ranks_of_debians_mpich_find_one_another() {
    shapes("Debian's MPICH", ALL);
}

#[test]
fn ranks_of_debians_open_mpi_find_one_another() {
    shapes("Debian's Open MPI", ALL);
}

#[test]
fn ranks_of_mpichs_wheel_find_one_another() {
    shapes("MPICH's wheel", SOME);
}

#[test]
fn ranks_of_open_mpis_wheel_find_one_another() {
    shapes("Open MPI's wheel", SOME);
}

#[test]
fn an_abort_is_told_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    for mpi in with_modes(folder.path()) {
        let outcome = Machine::new(2, &helper()).run(&mpi.gang(4, &["abort"]));
        let told = outcome.count(|event| matches!(event, Event::Aborted { rank: 1, code: 7, .. }));
        assert_eq!(told, 1, "{}: {outcome:?}", mpi.name);
    }
}

/// Runs ranks into a barrier that never ends, and calls with their processes once they are there.
fn into_a_barrier(machine: &mut Machine, mpi: &Mpi, then: impl Fn(&[u32]) + Clone + Send + 'static) -> Outcome {
    let marks = tempfile::tempdir().unwrap();
    let gang = mpi.gang(4, &["wait", marks.path().to_str().unwrap()]);
    let mut watcher = None;
    let outcome = machine.run_with(&gang, |_, pids| {
        if watcher.is_none() {
            let (marks, pids, then) = (marks.path().to_owned(), pids.to_owned(), then.clone());
            watcher = Some(std::thread::spawn(move || {
                until("all ranks come to the barrier", || {
                    (0..4).all(|rank| marks.join(rank.to_string()).exists())
                });
                then(&pids);
            }));
        }
    });
    watcher.unwrap().join().unwrap();
    outcome
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_rank_killed_in_a_barrier_ends_its_gang_alone() {
    let folder = tempfile::tempdir().unwrap();
    for mpi in with_modes(folder.path()) {
        let mut machine = Machine::new(2, &helper());
        let outcome = into_a_barrier(&mut machine, &mpi, |pids| kill(pids[1]));
        assert_eq!((outcome.joined(), outcome.left()), (4, 0), "{}: {outcome:?}", mpi.name);
        check(&machine.run(&mpi.gang(4, &[])), 4, mpi.name);
    }
}

#[test]
fn a_running_rank_says_which_mpi_it_has() {
    let folder = tempfile::tempdir().unwrap();
    for mpi in with_modes(folder.path()) {
        let (family, libpmix) = (mpi.family, mpi.libpmix.clone());
        let mut machine = Machine::new(1, &helper());
        into_a_barrier(&mut machine, &mpi, move |pids| {
            let found = loaded_by(pids[1]).unwrap();
            kill(pids[1]);
            let real = |path: Option<&Path>| path.map(|path| path.canonicalize().unwrap());
            assert_eq!(
                (found.family, real(found.libpmix.as_deref())),
                (family, real(libpmix.as_deref()))
            );
        });
    }
}

#[test]
fn ranks_of_the_other_family_do_not_join() {
    let folder = tempfile::tempdir().unwrap();
    let (Some(mpich), Some(open)) = (of(folder.path(), Family::Mpich), of(folder.path(), Family::OpenMpi)) else {
        println!("skipped: two families are needed");
        return;
    };
    let mixed = [
        Gang {
            family: Family::Mpich,
            ..open.gang(2, &[])
        },
        Gang {
            family: Family::OpenMpi,
            libpmix: open.libpmix.clone(),
            ..mpich.gang(2, &[])
        },
    ];
    for gang in mixed {
        let outcome = Machine::new(1, &helper()).run(&gang);
        assert_eq!(outcome.joined(), 0, "{outcome:?}");
    }
}

#[test]
fn a_program_without_mpi_ends_without_joining() {
    for family in [Family::Mpich, Family::OpenMpi] {
        let folder = tempfile::tempdir().unwrap();
        let Some(mpi) = of(folder.path(), family) else { continue };
        let gang = Gang {
            command: vec!["true".into()],
            ..mpi.gang(3, &[])
        };
        let outcome = Machine::new(1, &helper()).run(&gang);
        assert!(outcome.events.is_empty() && outcome.statuses.iter().all(std::process::ExitStatus::success));
    }
}

/// The helper is killed while its ranks wait in a barrier: the gang is told, and the next one has another helper.
#[test]
fn a_lost_helper_fails_its_gang_alone() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mpi) = of(folder.path(), Family::OpenMpi) else {
        return;
    };
    let mut machine = Machine::new(1, &helper());
    let own = std::process::id().to_string();
    let outcome = into_a_barrier(&mut machine, &mpi, move |pids| {
        let server = rustix::process::Pid::from_raw(pids[0] as i32).unwrap();
        let helpers = support::servers_of(server);
        assert!(!helpers.is_empty(), "{own} has a helper");
        helpers.into_iter().for_each(kill);
    });
    let failed = |event: &Event| matches!(event, Event::Failed { reason } if reason.contains("SIGKILL") || reason.contains("signal: 9"));
    assert_eq!(outcome.count(failed), 1, "{outcome:?}");
    check(&machine.run(&mpi.gang(2, &[])), 2, mpi.name);
}

#[test]
fn a_libpmix_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let servers = bridgehead_mpi::Servers::new(folder.path());
    for (libpmix, words) in [
        (None, "not known"),
        (Some("/nowhere/libpmix.so"), "/nowhere/libpmix.so"),
    ] {
        let options = bridgehead_mpi::Options {
            scratch: folder.path().to_owned(),
            helper: helper(),
            libpmix: libpmix.map(Into::into),
            helper_env: Vec::new(),
        };
        let world = gang::world("gang", 1, 1, 0);
        let boot = bridgehead_mpi::Bootstrap::start(&servers, Family::OpenMpi, world, &options, |_| {});
        let error = boot.and_then(|mut boot| boot.setup(0)).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// Whoever has helpers is killed: they see it by their sockets.
#[test]
fn helpers_end_with_an_owner_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mpi) = of(folder.path(), Family::OpenMpi) else {
        return;
    };
    let mark = folder.path().join("rank");
    let script = format!("echo $$ > {0}.part; mv {0}.part {0}; exec sleep 60", mark.display());
    let mut owner = std::process::Command::new(helper());
    owner
        .args(["openmpi", "1", "1", "1", "--libpmix"])
        .arg(mpi.libpmix.unwrap())
        .args(["sh", "-c", &script]);
    let mut owner = owner.env("TMPDIR", folder.path()).spawn().unwrap();
    until("the rank runs", || mark.exists());
    let rank: i32 = std::fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
    let servers = support::servers_of(rustix::process::Pid::from_raw(rank).unwrap());
    owner.kill().unwrap();
    owner.wait().unwrap();
    until("the helper ends", || {
        servers
            .iter()
            .all(|pid| !Path::new(&format!("/proc/{pid}")).exists() || is_dead(*pid))
    });
    kill(rank as u32);
    // Its folder in shared memory is the next sweep's, of this one or of another gang's end beside us.
    bridgehead_mpi::leftovers();
    assert!(!Path::new(&format!("/dev/shm/bridgehead-mpi.g{}-1.0", owner.id())).exists());
}

/// It has ended, and whoever adopted it has not taken note yet.
fn is_dead(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}
