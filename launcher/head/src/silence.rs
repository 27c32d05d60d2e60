//! Agents that say nothing: a node that vanished or froze closes no connection. Owns the count; agents beat once a second.
//!
//! Time is counted in the head's own ticks and not by a clock: a machine that slept, or a head that was stopped, wakes
//! with its agents, and must not take the pause for theirs.

use std::collections::HashMap;

/// An agent that was silent for so many ticks of a tenth of a second is lost.
const MOST: u32 = 300;
/// The same in seconds, for people.
pub(crate) const SECONDS: u32 = MOST / 10;
/// And one that another agent could not reach, after so many: eight beats, for a busy node may miss some.
const SUSPECT: u32 = 80;
/// The same in seconds, for people.
pub(crate) const SUSPECT_SECONDS: u32 = SUSPECT / 10;

/// Ticks since each agent was last heard.
#[derive(Debug, Default)]
pub(crate) struct Silence(HashMap<u32, u32>);

impl Silence {
    /// An agent said something.
    pub(crate) fn heard(&mut self, agent: u32) {
        self.0.insert(agent, 0);
    }

    /// An agent is gone.
    pub(crate) fn forget(&mut self, agent: u32) {
        self.0.remove(&agent);
    }

    /// Whether an agent that another one could not reach has been silent here too for long enough.
    pub(crate) fn confirms(&self, suspect: u32) -> bool {
        self.0.get(&suspect).is_some_and(|&ticks| ticks >= SUSPECT)
    }

    /// A tick is over: the agents that have been silent for too long, which are forgotten.
    pub(crate) fn tick(&mut self) -> Vec<u32> {
        let mut lost: Vec<u32> = Vec::new();
        self.0.retain(|&agent, ticks| {
            *ticks += 1;
            if *ticks >= MOST {
                lost.push(agent);
            }
            *ticks < MOST
        });
        lost.sort_unstable();
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspicion_is_confirmed_by_beats_that_did_not_come() {
        let mut silence = Silence::default();
        silence.heard(1);
        for tick in 1..=SUSPECT {
            assert!(!silence.confirms(1) && !silence.confirms(2), "tick {tick}");
            silence.tick();
        }
        assert!(silence.confirms(1));
        silence.heard(1);
        assert!(!silence.confirms(1));
    }

    #[test]
    fn only_an_agent_that_is_silent_long_enough_is_lost_and_only_once() {
        let mut silence = Silence::default();
        silence.heard(1);
        silence.heard(2);
        silence.heard(3);
        silence.forget(3);
        for tick in 1..=2 * MOST {
            if tick % 10 == 0 {
                silence.heard(1);
            }
            let expected = if tick == MOST { vec![2] } else { Vec::new() };
            assert_eq!(silence.tick(), expected, "tick {tick}");
        }
    }
}
