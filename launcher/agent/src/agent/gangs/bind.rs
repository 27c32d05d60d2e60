//! What each rank of a part is bound to. Owns which processors of the node are taken by ranks; who gets which of the others is decided
//! in `bridgehead-plan`.

use super::{Agent, Part};
use bridgehead_plan::binding::{RankBinding, Wish, bind};
use bridgehead_spec::{RanksSpec, Resources};
use bridgehead_topology::NumberSet;
use bridgehead_wire::RankBound;

impl Agent {
    /// What each rank is bound to, and the processors of it by number; none: it is not bound.
    pub(super) fn bind_ranks(&self, task: u64) -> Vec<(RankBound, Vec<u32>)> {
        let Some(part) = self.gangs.parts.get(&task) else {
            return Vec::new();
        };
        let places = self.places(&part.given.devices);
        let bindings = self.bindings(part, &places);
        let ranks = (part.at.first..).zip(bindings);
        ranks
            .map(|(rank, binding)| told(rank, binding, &part.given.devices, &places))
            .collect()
    }

    fn bindings(&self, part: &Part, places: &[u32]) -> Vec<RankBinding> {
        let topology = &self.options.topology;
        let allowed = &topology.processors.allowed;
        let own = self.options.resources.cpu_millis;
        let (alone, free) = if own / 1000 >= allowed.len() as u64 {
            let free: NumberSet = allowed
                .iter()
                .filter(|processor| !self.gangs.bound.contains(processor))
                .collect();
            (true, free)
        } else {
            (false, NumberSet::default())
        };
        let each = part
            .given
            .call
            .resources
            .as_ref()
            .map_or_else(Resources::default, Resources::from);
        let gang = part.given.call.gang.as_ref();
        let wish = Wish {
            ranks: part.at.count,
            cpu_millis: each.cpu_millis,
            gpus: each.gpus,
            map: gang.map(|gang| RanksSpec::from(&gang.ranks).map).unwrap_or_default(),
            processors: &free,
            gpus_free: places,
        };
        let mut bindings = bind(topology, &wish).unwrap_or_default();
        bindings.resize_with(part.at.count as usize, RankBinding::default);
        if !alone {
            let reason = format!(
                "the agent has {} of the {} processors here, and others may use any of them",
                own / 1000,
                allowed.len()
            );
            bindings
                .iter_mut()
                .for_each(|binding| binding.reason.clone_from(&reason));
        }
        bindings
    }

    /// Places in the topology of devices as calls number them: the agent may have been given some of the node's only, by number.
    fn places(&self, devices: &[u32]) -> Vec<u32> {
        let name = |device: u32| self.surroundings.devices.get(device as usize);
        let place = |&device: &u32| name(device).and_then(|name| name.parse().ok()).unwrap_or(device);
        devices.iter().map(place).collect()
    }
}

fn told(rank: u32, binding: RankBinding, devices: &[u32], places: &[u32]) -> (RankBound, Vec<u32>) {
    let device = |gpu: &u32| {
        places
            .iter()
            .position(|place| place == gpu)
            .and_then(|at| devices.get(at).copied())
    };
    let processors: NumberSet = binding.processors.iter().copied().collect();
    let bound = RankBound {
        rank,
        processors: processors.to_string(),
        numa: binding.numa,
        gpus: binding.gpus.iter().filter_map(device).collect(),
        network: binding.infiniband.or(binding.network).unwrap_or_default(),
        reason: binding.reason,
    };
    (bound, binding.processors)
}
