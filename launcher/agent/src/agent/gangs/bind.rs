//! What each rank of a part is bound to. Owns which processors of the node are taken; who gets which of the others is decided in
//! `bridgehead-plan`.

use super::Agent;
use bridgehead_wire::RankBound;

impl Agent {
    /// What each rank is bound to, and the processors of it by number; none: it is not bound.
    pub(super) fn bind_ranks(&mut self, task: u64) -> Vec<(RankBound, Vec<u32>)> {
        let Some(part) = self.gangs.parts.get(&task) else {
            return Vec::new();
        };
        let each = part.given.devices.len() / (part.at.count.max(1) as usize);
        let mut devices = part.given.devices.chunks(each.max(1));
        let ranks = part.at.first..part.at.first + part.at.count;
        ranks
            .map(|rank| {
                let gpus = if each > 0 {
                    devices.next().unwrap_or_default()
                } else {
                    &[]
                };
                let bound = RankBound {
                    rank,
                    gpus: gpus.to_vec(),
                    ..RankBound::default()
                };
                (bound, Vec::new())
            })
            .collect()
    }
}
