//! One node of a run: workers, programs, logs. Owns starting and ending processes and handing calls to them; decides
//! nothing about which task runs where, and cannot tell which scheduler started it.

mod agent;
mod calls;
mod capture;
mod data;
mod door;
mod environment;
mod far;
mod forks;
mod io;
mod logs;
mod orphans;
mod program;
mod ranks;
mod reaper;
mod spawn;
mod spin;
mod verdict;
mod worker;

pub use agent::{AgentEnd, AgentError, AgentOptions, FabricMaker, Link, MakeFabric, foreseen, run};
pub use far::FarFolder;
pub use orphans::take_orphans;
pub use reaper::{MARK, reaper_main, sweep};
