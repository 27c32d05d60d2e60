//! The invariants, walked through: for tests and for debugging a live engine.

use crate::Engine;
use crate::tasks::Phase;
use bridgehead_spec::Resources;

impl Engine {
    /// Walks all invariants. Costs as much as there are tasks; meant for tests.
    ///
    /// # Panics
    /// An invariant does not hold.
    pub fn sanity_check(&self) {
        for (&id, agent) in &self.agents {
            let mut held = Resources::zero();
            held.named = agent.total.named.keys().map(|name| (name.clone(), 0)).collect();
            for &task in &agent.held {
                let row = self.tasks.get(task).expect("a held task is known");
                assert_eq!((row.phase, row.agent), (Phase::Held, id), "t{task} is held by a{id}");
                if row.blocked {
                    continue;
                }
                let r = &self.classes.list[row.class as usize].resources;
                held.cpu_millis += r.cpu_millis;
                held.memory += r.memory;
                held.gpus += r.gpus;
                for (name, amount) in &r.named {
                    *held.named.entry(name.clone()).or_insert(0) += amount;
                }
            }
            assert!(held.fits(&agent.total), "a{id} is over-committed");
            assert_eq!(
                agent.free.cpu_millis + held.cpu_millis,
                agent.total.cpu_millis,
                "cores of a{id}"
            );
            assert_eq!(agent.free.memory + held.memory, agent.total.memory, "memory of a{id}");
            assert_eq!(agent.free.gpus + held.gpus, agent.total.gpus, "gpus of a{id}");
            assert!(
                agent.prefetched.len() <= self.prefetch,
                "a{id} was given too much ahead"
            );
        }
        for (task, row) in self.tasks.iter() {
            match row.phase {
                Phase::Ready => assert_eq!(row.open, 0, "t{task} is ready too early"),
                Phase::Held => assert!(self.agents[&row.agent].held.contains(&task), "t{task} is held nowhere"),
                Phase::Prefetched => {
                    assert!(
                        self.agents[&row.agent].prefetched.contains(&task),
                        "t{task} waits nowhere"
                    );
                }
                Phase::Waiting | Phase::Unknown => {}
            }
        }
    }
}
