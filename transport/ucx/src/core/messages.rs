//! What peers say, and the answers. Nothing of a message is believed before its code was checked.

use super::{Core, News};
use crate::codec::{Address, Grant, Header, Kind};
use crate::keys::PairKey;
use crate::peer::{Granting, Standing, is_answer};
use crate::session::{Incoming, Order};
use bridgehead_fabric::{Access, Completion, PeerId, Posted, Reason};
use bytes::Bytes;

impl Core {
    /// Sends a caller's message, or says why not.
    pub fn send(&mut self, number: u32, message: Bytes) -> Posted {
        let window = self.options.max_queued as u64;
        let Some(peer) = self.peers.get_mut(&number) else {
            return Posted::Refused(Reason::UnknownPeer);
        };
        if let Some(reason) = peer.refusal() {
            return Posted::Refused(reason);
        }
        let len = message.len() as u64;
        if !peer.has_room(len, window) {
            if !std::mem::replace(&mut peer.starved, true) {
                self.tell(number, Kind::Starved, 0, 0, Bytes::new());
            }
            return Posted::Busy;
        }
        self.tell(number, Kind::Message, 0, 0, message);
        if let Some(out) = self.peers.get_mut(&number).and_then(|peer| peer.out.as_mut()) {
            out.sent += len;
        }
        Posted::Accepted
    }

    /// The caller has taken a message of that many bytes.
    pub fn taken(&mut self, number: u32, session: u64, bytes: u64) {
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        if peer.incoming.session != session || peer.incoming.ended {
            return;
        }
        peer.incoming.taken += bytes;
        peer.incoming.waiting -= bytes;
        self.credit(number);
    }

    fn credit(&mut self, number: u32) {
        let window = self.options.max_queued as u64;
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        let session = peer.incoming.session;
        if let Some(sum) = peer.incoming.credit(window) {
            self.tell(number, Kind::Credit, sum, session, Bytes::new());
        }
    }

    pub(super) fn on_arrived(&mut self, bytes: &[u8], payload: Bytes) {
        let Some(header) = Header::parse(bytes).filter(|header| header.from.number != self.me.number) else {
            return tracing::debug!("a message over UCX that is none of ours was dropped");
        };
        let number = header.from.number;
        let known = self.peers.get(&number).is_some_and(|peer| peer.who == header.from);
        let genuine = match self.peers.get(&number).filter(|_| known) {
            Some(peer) => Header::is_genuine(bytes, &peer.from, &payload),
            None => Header::is_genuine(
                bytes,
                &PairKey::new(&self.options.key.0, header.from, self.me),
                &payload,
            ),
        };
        if !genuine {
            return tracing::warn!(
                peer = number,
                "a message over UCX whose maker does not know the run's key was dropped"
            );
        }
        if !known && !self.meet(&header, &payload) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.hear();
        }
        if header.kind == Kind::Bye {
            return self.on_bye(&header);
        }
        self.on_genuine(header, payload);
    }

    /// An agent that came by itself: it says where it is; whether its message counts.
    fn meet(&mut self, header: &Header, payload: &[u8]) -> bool {
        let number = header.from.number;
        if header.kind != Kind::Hello
            || self
                .peers
                .get(&number)
                .is_some_and(|peer| peer.standing == Standing::Removed)
        {
            return false;
        }
        let Ok(address) = Address::decode(payload) else {
            return false;
        };
        if address.who != header.from {
            return false;
        }
        if self.peers.contains_key(&number) {
            let reason = Reason::PeerLost("another process has its number now".into());
            self.lose(number, &reason, Standing::Lost(reason.clone()), false, true);
            self.bury();
            if self.is_dying(number) {
                return false; // What is pending with the other one ends first; this one gives up this side, and asks again.
            }
        }
        self.know(address, Standing::Stranger);
        true
    }

    /// Finds a message's place in its session.
    fn on_genuine(&mut self, header: Header, payload: Bytes) {
        let number = header.from.number;
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        let refused = peer.standing == Standing::Removed || peer.dying.is_some();
        if header.session > peer.incoming.session {
            let was_open = peer.incoming.is_open();
            if was_open && !refused {
                let reason = Reason::PeerLost("it gave up this side and began anew".into());
                self.lose(number, &reason, Standing::Lost(reason.clone()), false, true);
                // What was pending ends at the next turn; the new session begins now.
            }
            let Some(peer) = self.peers.get_mut(&number) else {
                return;
            };
            peer.incoming = Incoming::begin(header.session);
            peer.incoming.ended = refused;
        }
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        match peer.incoming.take(header, payload) {
            Order::Now(now) => {
                for (header, payload) in now {
                    self.on_message(&header, payload);
                }
            }
            Order::Ended => self.say_goodbye(number, 0, header.session),
            Order::Stale => {}
            Order::Broken(text) => self.doomed.push((number, Reason::PeerLost(text.into()))),
        }
    }

    /// A message whose turn it is.
    fn on_message(&mut self, header: &Header, payload: Bytes) {
        let number = header.from.number;
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        if is_answer(header.kind) && peer.out.as_ref().is_none_or(|out| out.session != header.b) {
            return; // To a session that is over.
        }
        match header.kind {
            Kind::Hello | Kind::Pong | Kind::Bye => {}
            Kind::Message => self.on_text(number, header.session, payload),
            Kind::Credit => self.on_credit(number, header.a),
            Kind::Starved => {
                peer.incoming.wants_credit = true;
                self.credit(number);
            }
            Kind::Open => self.on_open(number, header.session, header.a),
            Kind::Opened => self.on_opened(number, header.a, &payload),
            Kind::NoRegion => self.on_no_region(number, header.a),
            Kind::Revoke => self.on_revoke(number, header.a),
            Kind::Revoked => drop(peer.incoming.granted.remove(&header.a)),
            Kind::Read => self.on_read(number, header.a, &payload),
            Kind::Data => self.on_answer(number, header.a, Some(&payload)),
            Kind::Write => self.on_write(number, header.session, header.a, &payload),
            Kind::Written => self.on_answer(number, header.a, None),
            Kind::Refused => self.on_refused(number, header.a, &payload),
            Kind::Ping => self.tell(number, Kind::Pong, 0, 0, Bytes::new()),
        }
    }

    fn on_text(&mut self, number: u32, session: u64, message: Bytes) {
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.incoming.waiting += message.len() as u64;
        }
        let completion = Completion::Message {
            peer: PeerId(number),
            message,
        };
        self.news.push(News { completion, session });
    }

    fn on_credit(&mut self, number: u32, sum: u64) {
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        let Some(out) = &mut peer.out else { return };
        if sum < out.credited || sum > out.sent {
            let reason = Reason::PeerLost("it credits bytes that were never sent".into());
            return self.doomed.push((number, reason));
        }
        out.credited = sum;
        if std::mem::take(&mut peer.starved) {
            self.push(Completion::Ready { peer: PeerId(number) });
        }
    }

    /// A peer asks for the key of a region's memory.
    fn on_open(&mut self, number: u32, session: u64, key: u64) {
        if self.peers.get(&number).is_some_and(|peer| peer.by_messages) {
            return self.caught(
                number,
                "it asks for a memory key, though the two have agreed on messages",
            );
        }
        let grant = self.regions.get(&key).map(|region| {
            let right = |access, bit| if region.access.contains(access) { bit } else { 0 };
            let rights = right(Access::REMOTE_READ, Grant::READ) | right(Access::REMOTE_WRITE, Grant::WRITE);
            let (first, len, packed) = if region.is_remote() {
                region.grant()?
            } else {
                (0, 0, Vec::new())
            };
            Ok::<_, String>(Grant {
                first,
                len,
                rights,
                key: packed.into(),
            })
        });
        match grant {
            Some(Ok(grant)) => {
                if let Some(peer) = self.peers.get_mut(&number) {
                    peer.incoming.granted.insert(key);
                }
                self.tell(number, Kind::Opened, key, session, grant.encode());
            }
            Some(Err(error)) => {
                tracing::error!(error, "a region cannot be given to a peer");
                self.tell(number, Kind::NoRegion, key, session, Bytes::new());
            }
            None => self.tell(number, Kind::NoRegion, key, session, Bytes::new()),
        }
    }

    fn on_opened(&mut self, number: u32, region: u64, payload: &Bytes) {
        let Some(grant) = Grant::decode(payload) else {
            let reason = Reason::PeerLost("it gives out a region that makes no sense".into());
            return self.doomed.push((number, reason));
        };
        let Some(out) = self.peers.get_mut(&number).and_then(|peer| peer.out.as_mut()) else {
            return;
        };
        if !matches!(out.grants.get(&region), Some(Granting::Asked(_))) {
            return; // Nobody asked.
        }
        let Some(Granting::Asked(waiting)) = out.grants.remove(&region) else {
            return;
        };
        let rkey = if grant.key.is_empty() {
            Ok(None)
        } else {
            self.worker.unpack(&out.endpoint, &grant.key).map(Some)
        };
        match rkey {
            Ok(rkey) => {
                out.staged = self.worker.keeps_what_it_has(&out.endpoint);
                out.grants.insert(
                    region,
                    Granting::Given {
                        grant,
                        rkey,
                        live: 0,
                        revoked: false,
                    },
                );
                for request in waiting {
                    self.enter(number, region, request);
                }
            }
            Err(text) => {
                let reason = Reason::PeerLost(text.into());
                for request in waiting {
                    self.end(number, request.op, Err(reason.clone()));
                }
                self.doomed.push((number, reason));
            }
        }
    }

    fn on_no_region(&mut self, number: u32, key: u64) {
        self.fail_waiting(number, |region, _| region == key, &Reason::UnknownRemoteRegion);
        if let Some(out) = self.peers.get_mut(&number).and_then(|peer| peer.out.as_mut()) {
            out.grants.remove(&key);
        }
    }

    fn on_revoke(&mut self, number: u32, key: u64) {
        let Some(out) = self.peers.get_mut(&number).and_then(|peer| peer.out.as_mut()) else {
            return;
        };
        match out.grants.get_mut(&key) {
            Some(Granting::Given { revoked, .. }) => {
                *revoked = true;
                self.give_back(number, key);
            }
            _ => self.tell(number, Kind::Revoked, key, 0, Bytes::new()),
        }
    }
}
