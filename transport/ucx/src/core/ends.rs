//! How peers and regions end. What is pending with a peer ends only after UCX has let go of its memory, and then exactly once.

use super::{Core, Token};
use crate::codec::{Header, Kind};
use crate::peer::{Dying, Granting, Peer, Request, Standing};
use crate::regions::Region;
use crate::worker::{Endpoint, Outgoing as Sent, Started};
use bridgehead_fabric::{Completion, PeerId, Reason};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

impl Core {
    /// Begins to give a peer up: its endpoint is closed at once, and what it had of this side is taken from it. `bury` ends it.
    pub fn lose(&mut self, number: u32, reason: &Reason, after: Standing, bye: bool, tell: bool) {
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        if let Some(dying) = &mut peer.dying {
            if after == Standing::Removed {
                (dying.after, dying.tell) = (after, false);
            }
            return;
        }
        let sessions = (peer.out.as_ref().map_or(0, |out| out.session), peer.incoming.session);
        let was_open = peer.out.is_some() || peer.incoming.is_open();
        self.tainted.extend(peer.incoming.end());
        peer.dying = Some(Dying {
            reason: reason.clone(),
            after,
            tell,
            bye: (bye && was_open).then_some(sessions),
            rkeys: Vec::new(),
            rkeys_in_use: false,
        });
        self.fail_waiting(number, |_, _| true, reason);
        self.end_moves(number, |_| true, reason);
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        if let (Some(out), Some(dying)) = (peer.out.take(), &mut peer.dying) {
            let given = out.grants.into_values().filter_map(|granting| match granting {
                Granting::Given { rkey, .. } => rkey,
                Granting::Asked(_) => None,
            });
            dying.rkeys.extend(given);
            self.close(out.endpoint);
        }
        let abandoned = self.abandon(number, reason);
        if let Some(dying) = self.peers.get_mut(&number).and_then(|peer| peer.dying.as_mut()) {
            dying.rkeys_in_use = abandoned;
        }
    }

    /// Fails the operations by messages that fit. What is answered to them later touches nothing.
    fn end_moves(&mut self, number: u32, fits: impl Fn(&Request) -> bool, reason: &Reason) {
        let out = self.peers.get_mut(&number).and_then(|peer| peer.out.as_mut());
        for op in out.map(|out| out.moves.end(fits)).unwrap_or_default() {
            self.end(number, op, Err(reason.clone()));
        }
    }

    pub(super) fn close(&mut self, endpoint: Endpoint) {
        let token = self.fresh();
        if self.worker.close(&endpoint, true, token) == Started::Pending {
            self.tokens.insert(token, Token::Closed { _endpoint: endpoint });
        }
    }

    /// Ends the peers whose last operation is over.
    pub(super) fn bury(&mut self) {
        for (number, reason) in std::mem::take(&mut self.doomed) {
            self.lose(number, &reason, Standing::Lost(reason.clone()), false, true);
        }
        let over = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.dying.is_some() && peer.live == 0);
        for number in over.map(|(number, _)| *number).collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(&number) else {
                continue;
            };
            let Some(dying) = peer.dying.take() else { continue };
            peer.standing = dying.after;
            peer.starved = false;
            if dying.rkeys_in_use {
                self.leftover.extend(dying.rkeys);
            } else {
                dying.rkeys.into_iter().for_each(|rkey| self.worker.destroy(rkey));
            }
            if dying.tell {
                self.push(Completion::PeerLost {
                    peer: PeerId(number),
                    reason: dying.reason,
                });
            }
            if let Some((out, incoming)) = dying.bye {
                self.say_goodbye(number, out, incoming);
            }
        }
    }

    /// Whether a peer is still being given up.
    pub fn is_dying(&self, number: u32) -> bool {
        self.peers.get(&number).is_some_and(|peer| peer.dying.is_some())
    }

    /// Tells a peer that these sessions, this side's and its own, are over. It goes a way of its own, because that of the session
    /// may be stuck; if it does not arrive, the peer learns it when it next asks for something.
    pub(super) fn say_goodbye(&mut self, number: u32, out: u64, incoming: u64) {
        let (fresh, token) = (self.fresh(), self.fresh());
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        let Peer { out: open, spare, .. } = peer;
        let endpoint = match open {
            Some(open) => &open.endpoint,
            None => {
                if spare.is_none() {
                    *spare = self.worker.connect(&peer.address, fresh).ok();
                }
                let Some(spare) = spare else { return };
                spare
            }
        };
        let header = Header {
            kind: Kind::Bye,
            from: self.me,
            session: 0,
            place: 0,
            a: out,
            b: incoming,
        };
        let message = Sent {
            header: header.seal(&peer.to, &[]),
            payload: Bytes::new(),
        };
        if self.worker.send(endpoint, &message, token) == Started::Pending {
            self.tokens.insert(token, Token::Bye { _message: message });
        }
    }

    /// The peer gives up its session `a` and this side's session `b`.
    pub(super) fn on_bye(&mut self, header: &Header) {
        let number = header.from.number;
        let Some(peer) = self.peers.get(&number) else { return };
        let theirs = header.a != 0 && peer.incoming.is_open() && header.a == peer.incoming.session;
        let ours = header.b != 0 && peer.out.as_ref().is_some_and(|out| out.session == header.b);
        if !theirs && !ours {
            return; // Of sessions that are over here too.
        }
        let reason = Reason::PeerLost("it gave up this side, or ended".into());
        let after = if peer.standing == Standing::Removed {
            Standing::Removed
        } else {
            Standing::Lost(reason.clone())
        };
        self.lose(number, &reason, after, false, true);
    }

    /// Takes a region out of use: nothing new begins on it, and peers are asked for its key.
    pub fn retire(&mut self, key: u64) -> Option<Arc<Region>> {
        let region = self.regions.remove(&key)?;
        for number in self.peers.keys().copied().collect::<Vec<_>>() {
            let uses = |request: &Request| Arc::ptr_eq(&request.region, &region);
            self.fail_waiting(number, |_, request| uses(request), &Reason::Deregistered);
            self.end_moves(number, uses, &Reason::Deregistered);
        }
        for (number, session) in self.holders(key) {
            self.tell(number, Kind::Revoke, key, session, Bytes::new());
        }
        Some(region)
    }

    /// Peers that hold the key of a region's memory, with their sessions.
    fn holders(&self, key: u64) -> Vec<(u32, u64)> {
        let holds = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.incoming.granted.contains(&key));
        holds.map(|(number, peer)| (*number, peer.incoming.session)).collect()
    }

    /// Whether anybody may still touch a retired region.
    pub fn is_held(&self, key: u64, region: &Region) -> bool {
        region.is_used() || !self.holders(key).is_empty()
    }

    /// Gives up whoever keeps a retired region from its end.
    pub fn lose_holders(&mut self, key: u64, region: &Arc<Region>, waited: Duration) {
        let users = self
            .live
            .values()
            .filter(|live| Arc::ptr_eq(&live.region, region))
            .map(|live| live.peer);
        let numbers: Vec<u32> = self
            .holders(key)
            .into_iter()
            .map(|(number, _)| number)
            .chain(users)
            .collect();
        for number in numbers {
            let reason = Reason::TimedOut(waited);
            self.lose(number, &reason, Standing::Lost(reason.clone()), true, true);
        }
    }

    /// A retired region that a lost peer held stays mapped: UCX cannot say that none of its bytes are still on their way.
    pub fn release(&mut self, key: u64, region: Arc<Region>) {
        if self.tainted.contains(&key) || region.is_used() {
            self.quarantine.push(region);
        }
    }

    /// Leaves all peers, telling them.
    pub fn leave(&mut self) {
        for number in self.peers.keys().copied().collect::<Vec<_>>() {
            self.lose(number, &Reason::PeerRemoved, Standing::Removed, true, false);
        }
        self.bury();
        let tokens: Vec<u64> = (0..self.peers.len()).map(|_| self.fresh()).collect();
        for (spare, token) in self.peers.values().filter_map(|peer| peer.spare.as_ref()).zip(tokens) {
            if self.worker.flush(spare, token) == Started::Pending {
                self.tokens.insert(token, Token::Last);
            }
        }
    }

    /// Whether last words are still on their way.
    pub fn is_leaving(&self) -> bool {
        let last = |token: &Token| matches!(token, Token::Bye { .. } | Token::Last);
        self.tokens.values().any(last) || self.peers.values().any(|peer| peer.dying.is_some())
    }

    /// Closes what is left, whether or not anybody heard.
    pub fn shut(&mut self) {
        let spares: Vec<Endpoint> = self.peers.values_mut().filter_map(|peer| peer.spare.take()).collect();
        spares.into_iter().for_each(|spare| self.close(spare));
    }

    /// Whether UCX still works on what this side borrowed to it.
    pub fn is_busy(&self) -> bool {
        !self.tokens.is_empty()
    }
}
