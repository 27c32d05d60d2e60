//! Variables of ranks: who they are and where the others are, in the words that MPI programs, torch and numeric libraries look for.
//! Owns the names; what an MPI needs beyond these is the bootstrap's.

use super::Part;
use crate::calls::threads;
use crate::environment::Environment;
use crate::worker::THREAD_VARIABLES;
use bridgehead_spec::Digest;

/// Ports for `MASTER_PORT` begin here and end below those that the kernel gives to connections.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;

/// The name of an attempt of a gang, the same on all its nodes and no other's on any of them.
pub(super) fn world_name(run: &str, task: u64, attempt: u32) -> String {
    let digest = Digest::of(run.as_bytes()).to_string();
    format!("bh-{}-{task}-{attempt}", &digest[..16])
}

/// A port that is this attempt's on all its nodes, so that the ranks need not be told it. Another process may have it: the
/// program then says so.
fn port(name: &str) -> u16 {
    let [a, b, ..] = Digest::of(name.as_bytes()).0;
    FIRST_PORT + u16::from_be_bytes([a, b]) % PORTS
}

/// The run's variables without those of other launchers.
pub(super) fn of_run(env: &Environment) -> Environment {
    let mut env = env.clone();
    env.retain(|name| !bridgehead_mpi::foreign(name));
    env
}

/// Variables of every rank of a part, on top of the run's in `env`. Ranks that are not `bound` may be more than the processors.
pub(super) fn of_part(env: &Environment, part: &Part, run: &str, bound: bool) -> Vec<(String, String)> {
    let gang = part.given.call.gang.clone().unwrap_or_default();
    let call = &part.given.call;
    let name = world_name(run, call.task, call.attempt);
    let place = gang.nodes.iter().position(|at| at.agent == part.at.agent).unwrap_or(0);
    let address = match gang.nodes.as_slice() {
        [] | [_] => "127.0.0.1",
        [first, ..] => &first.host,
    };
    let mut pairs = vec![
        ("BRIDGEHEAD_RANKS", part.size.to_string()),
        ("WORLD_SIZE", part.size.to_string()),
        ("LOCAL_WORLD_SIZE", part.at.count.to_string()),
        ("NODE_RANK", place.to_string()),
        ("GROUP_RANK", place.to_string()),
        ("MASTER_ADDR", address.to_owned()),
        ("MASTER_PORT", port(&name).to_string()),
    ];
    let threads = threads(call).to_string();
    let threads = THREAD_VARIABLES.map(|name| (name, threads.clone()));
    // A rank that spins while another one needs its processor waits for itself.
    let yields = (!bound).then(|| ("OMPI_MCA_mpi_yield_when_idle", "1".to_owned()));
    pairs.extend(
        threads
            .into_iter()
            .chain(yields)
            .filter(|(name, _)| env.get(name).is_none()),
    );
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Variables of one rank.
pub(super) fn of_rank(rank: u32, first: u32, port: Option<&str>) -> Vec<(String, String)> {
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let mut pairs = vec![
        pair("BRIDGEHEAD_RANK", rank.to_string()),
        pair("RANK", rank.to_string()),
        pair("LOCAL_RANK", (rank - first).to_string()),
    ];
    if let Some(port) = port {
        pairs.push(pair("UCX_NET_DEVICES", port.to_owned()));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_have_names_and_ports_of_their_own() {
        let names = [
            world_name("r", 1, 1),
            world_name("r", 1, 2),
            world_name("r", 2, 1),
            world_name("s", 1, 1),
        ];
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
        assert!(names.iter().all(|name| name.len() < 64), "{names:?}");
        assert!(
            names
                .iter()
                .all(|name| (FIRST_PORT..FIRST_PORT + PORTS).contains(&port(name)))
        );
    }
}
