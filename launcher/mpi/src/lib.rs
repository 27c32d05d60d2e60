//! Bootstrap of MPI gangs: what the ranks of one program ask to find one another, answered without mpirun, ssh or srun.
//!
//! Owns the two protocols that MPI libraries speak to whoever started them (PMI-1 of the MPICH family, PMIx of Open MPI), the
//! variables that a rank gets and those that must not reach it, and the question which MPI a program was built with. It starts no
//! rank, kills none and moves none of MPI's own data; the agent does the first two, MPI the last. What the bootstraps of one
//! gang on several agents say to each other travels as opaque bytes in [`Event::Send`] and [`Bootstrap::deliver`].
//!
//! `world` says where ranks are, `exchange` gathers bytes over nodes (pure), `peer` has the messages between agents, `pmi1`
//! serves the MPICH family, `pmix` Open MPI, `look` finds out which MPI a program needs, `leftovers` removes shared memory of killed ranks, `foreign` lists other launchers' variables. The page of the formats is
//! `docs/formats/gang-bootstrap.md`.

mod bootstrap;
mod exchange;
mod foreign;
mod leftovers;
mod look;
mod peer;
mod pmi1;
mod pmix;
mod waker;
mod world;

pub use bootstrap::{BootError, Bootstrap, Event, Family, Options, RankSetup, Servers};
pub use foreign::foreign;
pub use leftovers::leftovers;
pub use look::{Found, LookError, loaded_by, look_at, of_library};
pub use pmix::server::serve as serve_pmix;
pub use world::{NodePart, World};
