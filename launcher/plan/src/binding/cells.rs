//! Cells: the free processors of a node in pieces within which a rank should lie, with the GPUs near each. Owns what is left of
//! them while ranks take theirs.

use super::{RankBinding, Wish, deal};
use bridgehead_spec::MapSpec;
use bridgehead_topology::{NumberSet, Topology};
use std::collections::{BTreeMap, BTreeSet};

/// A core with what is left of it.
#[derive(Debug, Clone)]
struct Core {
    free: Vec<u32>,
    /// How many have less than the whole of it; one from the start if some of its threads were not free.
    sharers: usize,
}

/// A NUMA node, or what a package has of one, with its free processors.
#[derive(Debug, Clone)]
struct Cell {
    /// The NUMA node; `None` for processors that are on none.
    node: Option<u32>,
    cores: Vec<Core>,
    /// All that was free.
    processors: Vec<u32>,
    /// Thousandths of cores that shares may still be given.
    millis: u64,
    /// GPUs that are left, nearer to this cell than to others.
    gpus: Vec<u32>,
}

/// All cells of a node, in the order in which ranks are numbered.
pub(super) struct Cells<'a> {
    topology: &'a Topology,
    list: Vec<Cell>,
    /// Cells over which ranks are dealt evenly; within each they lie close.
    domains: Vec<Vec<usize>>,
}

impl Core {
    fn is_whole(&self) -> bool {
        self.sharers == 0
    }
}

impl Cell {
    /// Processors for a rank, `near` some first: whole cores, and for the rest a core that fewer than `most` ranks share.
    /// `None` leaves it as it is.
    fn take(&mut self, processors: usize, most: usize, near: Option<&NumberSet>) -> Option<Vec<u32>> {
        let mut order: Vec<usize> = (0..self.cores.len()).collect();
        if let Some(near) = near {
            let is_far = |&at: &usize| !self.cores[at].free.iter().any(|&cpu| near.contains(cpu));
            order.sort_by_key(is_far);
        }
        let mut picked: Vec<(usize, usize)> = Vec::new();
        let mut rest = processors;
        for &at in &order {
            let core = &self.cores[at];
            if core.is_whole() && !core.free.is_empty() && core.free.len() <= rest {
                rest -= core.free.len();
                picked.push((at, core.free.len()));
            }
        }
        for &at in &order {
            let core = &self.cores[at];
            let taken = picked.iter().any(|&(other, _)| other == at);
            if rest > 0 && !taken && !core.free.is_empty() && core.sharers < most {
                let part = rest.min(core.free.len());
                rest -= part;
                picked.push((at, part));
            }
        }
        (rest == 0).then(|| self.take_picked(&picked))
    }

    fn take_picked(&mut self, picked: &[(usize, usize)]) -> Vec<u32> {
        let mut processors = Vec::new();
        for &(at, count) in picked {
            let core = &mut self.cores[at];
            processors.extend(core.free.drain(..count));
            core.sharers += 1;
        }
        processors.sort_unstable();
        processors
    }

    /// How many ranks fit, at most as many as are wished for.
    fn ranks(&self, wish: &Wish<'_>, most: usize) -> u32 {
        let gpus = (self.gpus.len() as u64).checked_div(wish.gpus.into());
        let ranks = gpus.map_or(wish.ranks, |gpus| u32::try_from(gpus).unwrap_or(u32::MAX));
        let ranks = ranks.min(wish.ranks);
        match own_processors(wish) {
            Some(own) => {
                let mut copy = self.clone();
                (0..ranks).take_while(|_| copy.take(own, most, None).is_some()).count() as u32
            }
            None => match self.millis.checked_div(wish.cpu_millis) {
                Some(shares) => u32::try_from(shares).unwrap_or(u32::MAX).min(ranks),
                None => ranks,
            },
        }
    }

    fn free(&self) -> usize {
        self.cores.iter().map(|core| core.free.len()).sum()
    }

    fn name(&self) -> String {
        self.node
            .map_or_else(|| "no NUMA node".to_owned(), |node| format!("NUMA node {node}"))
    }
}

/// Processors of each rank's own; `None` for shares.
fn own_processors(wish: &Wish<'_>) -> Option<usize> {
    let whole = wish.cpu_millis > 0 && wish.cpu_millis.is_multiple_of(1000);
    whole.then(|| usize::try_from(wish.cpu_millis / 1000).unwrap_or(usize::MAX))
}

impl<'a> Cells<'a> {
    /// What is free, by NUMA node; by package and NUMA node if ranks are dealt over packages.
    pub(super) fn new(topology: &'a Topology, wish: &Wish<'_>, gpus: &BTreeSet<u32>) -> Self {
        let online = &topology.processors.online;
        let by_package = wish.map == MapSpec::Socket;
        let mut cells: BTreeMap<(usize, u32), Cell> = BTreeMap::new();
        for core in &topology.processors.by_core {
            let free: Vec<u32> = core.common(wish.processors).common(online).iter().collect();
            let Some(&first) = free.first() else { continue };
            let usable = core.common(&topology.processors.allowed).len();
            let node = topology.numa.iter().find(|node| node.processors.contains(first));
            let node = node.map(|node| node.node);
            let packages = &topology.processors.by_package;
            let package = packages.iter().position(|package| package.contains(first));
            let package = package.filter(|_| by_package).unwrap_or(0);
            let cell = cells
                .entry((package, node.unwrap_or(u32::MAX)))
                .or_insert_with(|| Cell {
                    node,
                    cores: Vec::new(),
                    processors: Vec::new(),
                    millis: 0,
                    gpus: Vec::new(),
                });
            cell.millis += 1000 * free.len() as u64;
            cell.processors.extend(&free);
            cell.cores.push(Core {
                sharers: usize::from(free.len() < usable),
                free,
            });
        }
        let mut domains: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, &(package, _)) in cells.keys().enumerate() {
            let domain = match wish.map {
                MapSpec::Numa => at,
                MapSpec::Socket => package,
                MapSpec::Core | MapSpec::Gpu | MapSpec::Node => 0,
            };
            domains.entry(domain).or_default().push(at);
        }
        let mut cells = Self {
            topology,
            list: cells.into_values().collect(),
            domains: domains.into_values().collect(),
        };
        cells.list.iter_mut().for_each(|cell| cell.processors.sort_unstable());
        cells.add_gpus(gpus);
        cells
    }

    /// Each GPU goes to the cell that is nearest to it.
    fn add_gpus(&mut self, gpus: &BTreeSet<u32>) {
        for &number in gpus {
            let gpu = self.topology.gpus.get(number as usize);
            let distance = |cell: &Cell| {
                let told = gpu.zip(cell.node);
                let told = told.and_then(|(gpu, node)| self.topology.distance_from_gpu(gpu, node));
                told.unwrap_or(u32::MAX)
            };
            let near = |cell: &Cell| {
                let near = |cpu: &&u32| gpu.is_some_and(|gpu| gpu.near.processors.contains(**cpu));
                std::cmp::Reverse(cell.processors.iter().filter(near).count())
            };
            let best = self.list.iter_mut().min_by_key(|cell| (distance(cell), near(cell)));
            if let Some(cell) = best {
                cell.gpus.push(number);
            }
        }
    }

    /// Why ranks cannot be bound: fewer processors than their cores.
    pub(super) fn lacking(&self, wish: &Wish<'_>) -> Option<String> {
        let free: usize = self.list.iter().map(Cell::free).sum();
        let asked = u128::from(wish.ranks) * u128::from(wish.cpu_millis);
        (asked > 1000 * free as u128 || free == 0).then(|| {
            let cores = asked.div_ceil(1000);
            format!("not bound: the ranks have {cores} cores, of processors that may be used {free} are free")
        })
    }

    /// Gives every rank its own; there are processors and GPUs enough.
    pub(super) fn bind(mut self, wish: &Wish<'_>) -> Vec<RankBinding> {
        let threads = self.list.iter().flat_map(|cell| &cell.cores);
        let densest = threads.map(|core| core.free.len()).max().unwrap_or(0) + 1;
        let even = matches!(wish.map, MapSpec::Numa | MapSpec::Socket);
        let sizes: Vec<usize> = self.list.iter().map(Cell::free).collect();
        let counts = deal::choose(&self.domains, &sizes, wish.ranks, even, densest, |most| {
            self.list.iter().map(|cell| cell.ranks(wish, most)).collect()
        });
        let mut bound = Vec::new();
        for (at, &count) in counts.iter().enumerate() {
            // Here it may do with fewer ranks on a core than elsewhere.
            let most = (1..densest).find(|&most| self.list[at].ranks(wish, most) >= count);
            let most = most.unwrap_or(densest);
            for _ in 0..count {
                bound.extend(self.within(at, wish, most).or_else(|| self.within(at, wish, densest)));
            }
        }
        while bound.len() < wish.ranks as usize {
            bound.push(self.anywhere(wish));
        }
        bound
    }

    /// A rank that lies within a cell.
    fn within(&mut self, at: usize, wish: &Wish<'_>, most: usize) -> Option<RankBinding> {
        let cell = &mut self.list[at];
        let gpus = cell.gpus.get(..wish.gpus as usize)?.to_vec();
        let near = gpus.first().and_then(|&gpu| self.topology.gpus.get(gpu as usize));
        let near = near.map(|gpu| &gpu.near.processors);
        let (processors, what) = match own_processors(wish) {
            Some(own) => (cell.take(own, most, near)?, "own processors on"),
            None => {
                cell.millis = cell.millis.saturating_sub(wish.cpu_millis);
                (cell.processors.clone(), "a share of the processors of")
            }
        };
        cell.gpus.drain(..gpus.len());
        let (what, node) = (format!("{what} {}", cell.name()), cell.node);
        let numa = self.memory_of(&processors);
        Some(RankBinding {
            reason: self.reason(what, node, &gpus),
            processors,
            numa,
            gpus,
            ..RankBinding::default()
        })
    }

    /// A rank for which no cell has enough: from where most is left, and then from cells near that.
    fn anywhere(&mut self, wish: &Wish<'_>) -> RankBinding {
        let left = |cell: &Cell| if wish.gpus > 0 { cell.gpus.len() } else { cell.free() };
        let most = (0..self.list.len()).rev().max_by_key(|&at| left(&self.list[at]));
        let node = most.and_then(|at| self.list[at].node);
        let near = node.map_or_else(Vec::new, |node| self.topology.nodes_by_distance(node));
        let mut order: Vec<usize> = (0..self.list.len()).collect();
        order.sort_by_key(|&at| {
            let node = self.list[at].node;
            let place = near.iter().position(|&near| Some(near) == node);
            (Some(at) != most, place.unwrap_or(usize::MAX))
        });
        let mut gpus = Vec::new();
        for &at in &order {
            let count = (wish.gpus as usize - gpus.len()).min(self.list[at].gpus.len());
            gpus.extend(self.list[at].gpus.drain(..count));
        }
        let processors = match own_processors(wish) {
            Some(own) => self.gather(&order, own),
            None => self.share(&order, wish.cpu_millis),
        };
        let numa = self.memory_of(&processors);
        let node = self.node_of(&processors);
        let what = match node {
            Some(node) => format!("processors of NUMA node {node}"),
            None => "processors of several NUMA nodes, as no one has enough left".to_owned(),
        };
        RankBinding {
            reason: self.reason(what, node, &gpus),
            processors,
            numa,
            gpus,
            ..RankBinding::default()
        }
    }

    /// So many processors of one cell, the first in `order` that has them, or else of several in that order.
    fn gather(&mut self, order: &[usize], own: usize) -> Vec<u32> {
        if let Some(&one) = order.iter().find(|&&at| self.list[at].free() >= own) {
            return self.list[one].take(own, usize::MAX, None).unwrap_or_default();
        }
        let mut processors = Vec::new();
        for &at in order {
            let cell = &mut self.list[at];
            let count = cell.free().min(own - processors.len());
            processors.extend(cell.take(count, usize::MAX, None).unwrap_or_default());
        }
        processors.sort_unstable();
        processors
    }

    /// What was chosen, and whether the GPUs are near.
    fn reason(&self, what: String, node: Option<u32>, gpus: &[u32]) -> String {
        let names: Vec<String> = gpus.iter().map(ToString::to_string).collect();
        let gpu = if gpus.len() == 1 { "GPU" } else { "GPUs" };
        let is_near = |&gpu: &u32| {
            let gpu = self.topology.gpus.get(gpu as usize);
            gpu.zip(node).is_some_and(|(gpu, node)| gpu.near.nodes.contains(node))
        };
        match gpus {
            [] => what,
            near if near.iter().all(is_near) => format!("{what}, beside {gpu} {}", names.join(", ")),
            _ => format!("{what}, away from {gpu} {}", names.join(", ")),
        }
    }

    /// The processors of one cell that has a share left, the first in `order`, or else of all.
    fn share(&mut self, order: &[usize], millis: u64) -> Vec<u32> {
        let one = order.iter().find(|&&at| self.list[at].millis >= millis);
        if let Some(&one) = one {
            self.list[one].millis -= millis;
            return self.list[one].processors.clone();
        }
        let mut all: Vec<u32> = self.list.iter().flat_map(|cell| cell.processors.clone()).collect();
        all.sort_unstable();
        all
    }

    /// The NUMA node of the processors of a rank, if these are on one.
    fn node_of(&self, processors: &[u32]) -> Option<u32> {
        let nodes = self.topology.numa.iter();
        let mut nodes = nodes.filter(|node| processors.iter().any(|&cpu| node.processors.contains(cpu)));
        let first = nodes.next()?;
        nodes.next().is_none().then_some(first.node)
    }

    /// The memory to use for processors of a node: its own, or if that may not be used the nearest that may.
    fn memory_of(&self, processors: &[u32]) -> Option<u32> {
        let own = self.node_of(processors)?;
        let near = self.topology.memory_near_processor(*processors.first()?);
        Some(near.first().copied().unwrap_or(own))
    }
}
