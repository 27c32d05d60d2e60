//! A soak with a seed: several nodes' stores, several client processes, random puts, reads, parts of objects, leases that are held and
//! dropped, releases, files, clients and nodes that are killed, all against a model (`driver`). Ten seconds of it over each
//! network run with the other tests; `make soak SEED=7 MINUTES=5` goes on for that long, half of it over each. A failure names its seed and step.

mod actors;
mod driver;

use driver::{Soak, Wire};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

static ONE: Mutex<()> = Mutex::new(());

/// The body of the processes that the other tests start.
#[test]
fn actor_process() {
    actors::act();
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

fn soak(wire: Wire) {
    if std::env::var(actors::ROLE).is_ok() {
        return; // This process is an actor.
    }
    // One after the other: each looks at the descriptors of this process at its end.
    let _turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let time = match number("BRIDGEHEAD_SOAK_MINUTES", 0) {
        0 => Duration::from_secs(10),
        minutes => Duration::from_secs(30 * minutes),
    };
    let seed = number("BRIDGEHEAD_SOAK_SEED", 1);
    let figures = Soak::start(wire, seed).run(time);
    println!("soak over {wire:?}, seed {seed}, {} s: {figures}", time.as_secs());
}

#[test]
fn stores_over_the_simulated_network_agree_with_the_model() {
    soak(Wire::Sim);
}

#[test]
fn stores_over_tcp_agree_with_the_model() {
    soak(Wire::Tcp);
}
