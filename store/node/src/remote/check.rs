//! Sums of what comes from other nodes, and other nodes in the place of one that gave no good bytes. Large objects are summed by
//! a mover, so that the conversation goes on meanwhile.

use super::fetches::Fetch;
use super::{Conversation, Done, Order};
use crate::node::{Job, lock};
use crate::verify::{damage, sum_of};
use bridgehead_fabric::PeerId;
use bridgehead_spec::ObjectId;
use bridgehead_store_core::Extent;
use bridgehead_wire::ObjectRef;

impl Fetch {
    /// What is wrong with bytes that have come, if they can be checked and anything is.
    pub(super) fn damage_of(&self, bytes: &[u8]) -> Option<String> {
        (self.sum != 0).then(|| self.mismatch(sum_of(bytes))).flatten()
    }

    fn mismatch(&self, found: u64) -> Option<String> {
        let place = format!("as they came from node {}", self.peer.0);
        (found != self.sum).then(|| damage(self.source, self.sum, found, &place))
    }
}

impl Conversation {
    /// Nodes other than this one that may have an object, the lowest last.
    fn others(&self) -> Vec<PeerId> {
        let mut others: Vec<PeerId> = self.addresses.keys().copied().collect();
        others.sort_unstable_by(|a, b| b.cmp(a));
        others
    }

    /// Asks all others for an object.
    pub(super) fn begin_elsewhere(&mut self, object: &ObjectRef, id: ObjectId, done: Done) {
        let mut others = self.others();
        match others.pop() {
            Some(first) => self.start(id, &object.at(first.0), (0, object.len), Some(others), done),
            None => done(Err("there is no other node".to_owned())),
        }
    }

    /// A node has no good bytes of an object. One that can be checked is asked of the others, one after the other; of any other
    /// the fetch fails.
    pub(super) fn pass_over(&mut self, token: u64, reason: &str) {
        let others = self.others();
        let Some(fetch) = self.fetches.get_mut(&token) else {
            return;
        };
        if fetch.sum == 0 {
            return self.fail(token, reason);
        }
        let tried = fetch.peer;
        let why = fetch.why.get_or_insert_with(|| reason.to_owned());
        tracing::warn!(object = %fetch.source, node = tried.0, reason, "a node has no good bytes of an object");
        let left = fetch
            .others
            .get_or_insert_with(|| others.into_iter().filter(|peer| *peer != tried).collect());
        match left.pop() {
            Some(peer) => {
                fetch.peer = peer;
                self.ask(token);
            }
            None => {
                let why = why.clone();
                self.fail(token, &why);
            }
        }
    }

    /// The node that a fetch asks is gone: the next one is asked if one was passed over already, else the fetch fails, and the head
    /// knows where else the object is.
    pub(super) fn lose(&mut self, token: u64, reason: &str) {
        if self.fetches.get(&token).is_some_and(|fetch| fetch.others.is_some()) {
            self.pass_over(token, reason);
        } else {
            self.fail(token, reason);
        }
    }

    /// All bytes are in `extent`: a mover takes their sum. Until then the fetch counts as if a read were open, so that nothing
    /// else ends it and gives the range to somebody else.
    pub(super) fn check_later(&mut self, token: u64, extent: Extent, len: u64) {
        if let Some(fetch) = self.fetches.get_mut(&token) {
            fetch.extent = Some(extent);
            fetch.open = 1;
        }
        let (orders, fabric) = (self.orders.clone(), self.fabric.clone());
        let job: Job = Box::new(move |shared| {
            let sum = sum_of(shared.granted(extent, len));
            lock(&orders.0).push(Order::Checked(token, sum));
            fabric.wake();
        });
        let _ = self.jobs.send(job); // The movers are gone only at the end.
    }

    pub(super) fn on_checked(&mut self, token: u64, found: u64) {
        let Some(fetch) = self.fetches.get_mut(&token) else {
            return;
        };
        fetch.open = 0;
        let len = fetch.len;
        match (fetch.mismatch(found), fetch.extent) {
            (None, Some(extent)) => {
                fetch.extent = None;
                self.complete(token, extent, len);
            }
            (damage, _) => self.pass_over(token, &damage.unwrap_or_default()),
        }
    }
}
