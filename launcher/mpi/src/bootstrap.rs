//! The bootstrap of one gang on one node: the face of this crate. Owns what agents see; the protocols are in modules of their own.

use crate::pmi1;
use crate::pmix;
use crate::world::World;
use bytes::Bytes;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The MPI that a program was built with, as far as the bootstrap differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// MPICH and what comes of it: Intel MPI, MVAPICH. PMI-1.
    Mpich,
    /// Open MPI 4 and 5. PMIx.
    OpenMpi,
}

/// What a rank's process gets.
#[derive(Debug)]
pub struct RankSetup {
    /// Variables to set.
    pub set: Vec<(String, String)>,
    /// A descriptor to inherit, and the variable that says its number in the rank.
    pub fd: Option<(String, OwnedFd)>,
}

/// News of a gang. That a rank left or aborted is told before its process can end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// To the same gang's bootstrap on another agent, in order.
    Send {
        /// The agent.
        to: u32,
        /// At most 1 MiB; opaque.
        bytes: Bytes,
    },
    /// A rank called `MPI_Init`.
    Joined {
        /// The rank.
        rank: u32,
    },
    /// A rank called `MPI_Finalize`.
    Left {
        /// The rank.
        rank: u32,
    },
    /// A rank called `MPI_Abort`. It ends by itself soon; the others must be ended.
    Aborted {
        /// The rank.
        rank: u32,
        /// The code that it gave.
        code: i32,
        /// What its library says of it; often empty, as the library prints it itself.
        message: String,
    },
    /// The bootstrap cannot go on.
    Failed {
        /// One sentence with the way out.
        reason: String,
    },
}

/// How a gang's bootstrap is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of mode 0700 for this gang, which the agent removes at the gang's end.
    pub scratch: PathBuf,
    /// The `bridgehead` program, which is also the helper.
    pub helper: PathBuf,
    /// The libpmix that the program's MPI uses; asked for with Open MPI.
    pub libpmix: Option<PathBuf>,
    /// The whole environment of the helper.
    pub helper_env: Vec<(OsString, OsString)>,
}

/// Why a bootstrap does not begin.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// What was said of the gang cannot be.
    #[error("the gang cannot be bootstrapped: {reason}")]
    World {
        /// What of it.
        reason: String,
    },
    /// A rank that is not here, or that was set up already.
    #[error("rank {rank} is not on this node or was set up already")]
    Rank {
        /// The rank.
        rank: u32,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// Open MPI's gang without its libpmix, or with one that does not work.
    #[error("{reason}")]
    Pmix {
        /// One sentence with the way out.
        reason: String,
    },
}

/// What gangs of one agent share: helpers that stay warm between them. The agent makes one and keeps it to its end.
///
/// A helper serves one gang at a time and is kept for the next one with the same libpmix if the gang ended well. It ends with `Servers`,
/// and by itself when the agent does; when it is lost its gang is told by [`Event::Failed`].
pub struct Servers {
    helpers: pmix::Helpers,
}

impl Servers {
    /// Starts nothing yet. `folder` is one of mode 0700 that outlives all gangs; the agent removes it at its own end. Its path
    /// is best short: what is in it may be as long as a path can be.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            helpers: pmix::Helpers::new(folder),
        }
    }
}

/// The bootstrap of a gang's ranks on this node. Dropping it ends everything that serves them.
pub struct Bootstrap {
    world: World,
    ready: Vec<bool>,
    service: Service,
}

enum Service {
    Pmi1(pmi1::Service),
    Pmix(pmix::Service),
}

impl Bootstrap {
    /// Begins to serve the ranks that are here. `events` is called from other threads and must not block.
    ///
    /// # Errors
    /// The world cannot be, or the system refused what is needed.
    pub fn start(
        servers: &Servers,
        family: Family,
        world: World,
        options: &Options,
        events: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Self, BootError> {
        world.check()?;
        let service = match family {
            Family::Mpich => Service::Pmi1(pmi1::Service::start(world.clone(), Box::new(events))?),
            Family::OpenMpi => Service::Pmix(servers.helpers.serve(world.clone(), options, Box::new(events))?),
        };
        Ok(Self {
            ready: vec![false; world.part().count as usize],
            world,
            service,
        })
    }

    /// What the process of this rank gets. Once for each rank that is here. With Open MPI the first call waits for the helper: some
    /// 50 ms when it has just been started, a few when it is warm.
    ///
    /// # Errors
    /// The rank is not here or was set up already, or the system refused a socket.
    pub fn setup(&mut self, rank: u32) -> Result<RankSetup, BootError> {
        let at = rank.checked_sub(self.world.part().first).map(|at| at as usize);
        let ready = at.and_then(|at| self.ready.get_mut(at)).filter(|ready| !**ready);
        *ready.ok_or(BootError::Rank { rank })? = true;
        match &mut self.service {
            Service::Pmi1(service) => service.setup(rank),
            Service::Pmix(service) => service.setup(rank),
        }
    }

    /// Bytes of [`Event::Send`] that agent `from` sent to this one.
    pub fn deliver(&self, from: u32, bytes: Bytes) {
        match &self.service {
            Service::Pmi1(service) => service.deliver(from, bytes),
            Service::Pmix(service) => service.deliver(from, bytes),
        }
    }
}

impl Drop for Bootstrap {
    fn drop(&mut self) {
        crate::leftovers();
    }
}
