//! Begins and ends operations: checks, waits for the peer's grant, hands them to UCX, and completes each once.

use super::{Core, Live, Token};
use crate::codec::{Grant, Kind, unpack_key};
use crate::fabric::MAX_OPERATION;
use crate::peer::{Granting, Request, Standing};
use crate::staging::Staging;
use crate::worker::{Started, Transfer, Worker};
use bridgehead_fabric::{Access, Completion, LocalSlice, OpId, PeerId, Posted, Reason, RemoteSlice};
use bridgehead_ucx_sys as sys;
use bytes::Bytes;
use std::sync::Arc;

impl Core {
    /// Accepts an operation, or says that there is no room. What is wrong with it completes it.
    pub fn post(&mut self, op: OpId, peer: PeerId, read: bool, local: &LocalSlice, remote: &RemoteSlice) -> Posted {
        let (request, region) = match self.check(op, peer, read, local, remote) {
            Ok(checked) => checked,
            Err(reason) => {
                self.fail(op, reason);
                return Posted::Accepted;
            }
        };
        let limit = self.options.max_in_flight;
        if let Some(known) = self.peers.get_mut(&peer.0) {
            if known.in_flight >= limit {
                known.starved = true;
                return Posted::Busy;
            }
            known.in_flight += 1;
        }
        match self.begin_session(peer.0) {
            Ok(()) if self.peers.get(&peer.0).is_some_and(|peer| peer.by_messages) => {
                self.begin_move(peer.0, region, request);
            }
            Ok(()) => self.enter(peer.0, region, request),
            Err(reason) => {
                self.end(peer.0, request.op, Err(reason.clone()));
                self.doomed.push((peer.0, reason));
            }
        }
        Posted::Accepted
    }

    fn check(
        &self,
        op: OpId,
        peer: PeerId,
        read: bool,
        local: &LocalSlice,
        remote: &RemoteSlice,
    ) -> Result<(Request, u64), Reason> {
        let region = self
            .regions
            .get(&local.region.local())
            .ok_or(Reason::UnknownLocalRegion)?;
        if !region
            .access
            .contains(if read { Access::LOCAL_WRITE } else { Access::LOCAL_READ })
        {
            return Err(Reason::AccessDenied { side: "local" });
        }
        if !region.contains(local.offset, local.len) {
            return Err(Reason::LocalOutOfRange);
        }
        if local.len != remote.len {
            return Err(Reason::LengthsDiffer {
                local: local.len,
                remote: remote.len,
            });
        }
        if local.len > MAX_OPERATION {
            return Err(Reason::TooLong {
                len: local.len,
                limit: MAX_OPERATION,
            });
        }
        let known = self.peers.get(&peer.0).ok_or(Reason::UnknownPeer)?;
        if matches!(known.standing, Standing::Stranger | Standing::Removed) {
            return Err(Reason::UnknownPeer);
        }
        let number = match unpack_key(&remote.region.0) {
            Some((number, of)) if of == known.who.incarnation => number,
            _ => return Err(Reason::UnknownRemoteRegion),
        };
        if let Some(reason) = known.refusal() {
            return Err(reason);
        }
        let request = Request {
            op,
            read,
            region: Arc::clone(region),
            local: local.offset,
            remote: remote.offset,
            len: local.len,
        };
        Ok((request, number))
    }

    /// An accepted operation goes to UCX, or waits for the region's grant, or fails.
    pub(super) fn enter(&mut self, number: u32, region: u64, request: Request) {
        let out = self.peers.get_mut(&number).and_then(|peer| peer.out.as_mut());
        let Some(out) = out else {
            return self.end(number, request.op, Err(Reason::UnknownPeer));
        };
        match out.grants.get_mut(&region) {
            Some(Granting::Given { revoked: true, .. }) => {
                self.end(number, request.op, Err(Reason::UnknownRemoteRegion));
            }
            Some(Granting::Given { .. }) => self.launch(number, region, request),
            Some(Granting::Asked(waiting)) => waiting.push(request),
            None => {
                out.grants.insert(region, Granting::Asked(vec![request]));
                self.tell(number, Kind::Open, region, 0, Bytes::new());
            }
        }
    }

    fn launch(&mut self, number: u32, region: u64, request: Request) {
        let (live, tokens) = (self.fresh(), [self.fresh(), self.fresh()]);
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        let Some(out) = &mut peer.out else { return };
        let Some(Granting::Given {
            grant,
            rkey,
            live: users,
            ..
        }) = out.grants.get_mut(&region)
        else {
            return;
        };
        if let Err(reason) = fits(grant, &request) {
            return self.end(number, request.op, Err(reason));
        }
        let (Some(rkey), Ok(len)) = (&*rkey, usize::try_from(request.len)) else {
            return self.end(number, request.op, Ok(())); // A region without a byte.
        };
        if len == 0 {
            return self.end(number, request.op, Ok(()));
        }
        let staging = (request.read && out.staged).then(|| self.pool.take(len));
        let transfer = Transfer {
            endpoint: &out.endpoint,
            rkey,
            remote: grant.first + request.remote,
            local: &request.region,
            offset: request.local,
            len,
        };
        let started = start(&mut self.worker, &transfer, request.read, staging.as_ref(), tokens);
        *users += 1;
        peer.live += 1;
        request.region.begin();
        let [moving, flushing] = started.map(|part| part == Started::Pending);
        let entry = Live {
            op: request.op,
            peer: number,
            session: out.session,
            region: request.region,
            local: request.local,
            len,
            remote: region,
            moving,
            staged: staging.is_some(),
            flushing,
            status: sys::OK,
        };
        self.live.insert(live, entry);
        if flushing {
            self.tokens.insert(tokens[1], Token::Flushed(live));
        }
        if moving {
            self.tokens.insert(tokens[0], Token::Moved { live, staging });
        } else {
            self.on_moved(live, staging, started[0].status());
        }
        if !flushing {
            self.on_flushed(live, started[1].status());
        }
    }

    /// The bytes of an operation have left local memory, or have come to it or to where they are staged.
    pub(super) fn on_moved(&mut self, number: u64, staging: Option<Staging>, status: sys::Status) {
        if let Some(live) = self.live.get_mut(&number) {
            live.moving = false;
            live.status = live.status.min(status);
            if let Some(staging) = staging.as_ref().filter(|_| status == sys::OK) {
                live.region.fill(live.local, staging.bytes(live.len));
            }
            self.settle(number);
        }
        self.pool.put(staging);
    }

    /// The bytes of an operation are where they belong.
    pub(super) fn on_flushed(&mut self, number: u64, status: sys::Status) {
        if let Some(live) = self.live.get_mut(&number) {
            live.flushing = false;
            live.status = live.status.min(status);
            self.settle(number);
        }
    }

    /// Completes an operation if UCX is through with it.
    fn settle(&mut self, number: u64) {
        if self.live.get(&number).is_none_or(|live| live.moving || live.flushing) {
            return;
        }
        let Some(live) = self.live.remove(&number) else { return };
        live.region.end();
        let result = self.result(live.peer, live.status);
        let Some(peer) = self.peers.get_mut(&live.peer) else {
            return;
        };
        peer.live -= 1;
        if result.is_ok() {
            peer.hear();
        }
        self.end(live.peer, live.op, result);
        self.leave_grant(&live);
    }

    /// Ends the operations with a peer that is being given up for which UCX has no local memory any more: it may keep those for as long as the
    /// peer's process is stopped. Whether there were any.
    pub(super) fn abandon(&mut self, number: u32, reason: &Reason) -> bool {
        let free = |live: &Live| live.peer == number && (live.staged || !live.moving);
        let mut free: Vec<u64> = self
            .live
            .iter()
            .filter(|(_, live)| free(live))
            .map(|(number, _)| *number)
            .collect();
        free.sort_unstable();
        for live in &free {
            let Some(live) = self.live.remove(live) else { continue };
            live.region.end();
            if let Some(peer) = self.peers.get_mut(&number) {
                peer.live -= 1;
            }
            self.end(number, live.op, Err(reason.clone()));
        }
        !free.is_empty()
    }

    /// What UCX's word means for an operation. A failure is the peer's loss: UCX fails nothing else that was checked before. A success that
    /// comes while the peer is given up may only mean that UCX was told to forget it.
    fn result(&mut self, number: u32, status: sys::Status) -> Result<(), Reason> {
        let dying = self.peers.get(&number).and_then(|peer| peer.dying.as_ref());
        if let Some(dying) = dying {
            return Err(dying.reason.clone());
        }
        if status == sys::OK {
            return Ok(());
        }
        self.doom(number, status);
        Err(Reason::PeerLost(self.worker.context.ucp.text(status).into()))
    }

    /// Completes an operation, and tells of room if that is waited for.
    pub(super) fn end(&mut self, number: u32, op: OpId, result: Result<(), Reason>) {
        self.push(match result {
            Ok(()) => Completion::Done { op },
            Err(reason) => Completion::Failed { op, reason },
        });
        if self.peers.get_mut(&number).is_some_and(crate::peer::Peer::free_place) {
            self.push(Completion::Ready { peer: PeerId(number) });
        }
    }

    /// An operation no longer uses a grant; if its owner wants it back and that was the last, it gets it.
    fn leave_grant(&mut self, ended: &Live) {
        let out = self.peers.get_mut(&ended.peer).and_then(|peer| peer.out.as_mut());
        let Some(out) = out.filter(|out| out.session == ended.session) else {
            return;
        };
        if let Some(Granting::Given { live, .. }) = out.grants.get_mut(&ended.remote) {
            *live -= 1;
            self.give_back(ended.peer, ended.remote);
        }
    }

    /// Gives a revoked grant back once nothing uses it.
    pub(super) fn give_back(&mut self, number: u32, region: u64) {
        let out = self.peers.get_mut(&number).and_then(|peer| peer.out.as_mut());
        let Some(out) = out else { return };
        if !matches!(
            out.grants.get(&region),
            Some(Granting::Given {
                live: 0,
                revoked: true,
                ..
            })
        ) {
            return;
        }
        if let Some(Granting::Given { rkey: Some(rkey), .. }) = out.grants.remove(&region) {
            self.worker.destroy(rkey);
        }
        self.tell(number, Kind::Revoked, region, 0, Bytes::new());
    }

    /// Fails what waits for a grant and fits; the others go on waiting.
    pub(super) fn fail_waiting(&mut self, number: u32, fails: impl Fn(u64, &Request) -> bool, reason: &Reason) {
        let mut failed = Vec::new();
        if let Some(out) = self.peers.get_mut(&number).and_then(|peer| peer.out.as_mut()) {
            for (region, granting) in &mut out.grants {
                if let Granting::Asked(waiting) = granting {
                    failed.extend(
                        waiting
                            .extract_if(.., |request| fails(*region, request))
                            .map(|request| request.op),
                    );
                }
            }
        }
        failed.sort_unstable();
        for op in failed {
            self.end(number, op, Err(reason.clone()));
        }
    }
}

/// Hands it to UCX. A put is over when its source is free; the flush after it, when the bytes are there.
fn start(
    worker: &mut Worker,
    transfer: &Transfer<'_>,
    read: bool,
    staging: Option<&Staging>,
    tokens: [u64; 2],
) -> [Started; 2] {
    if read {
        return [worker.get(transfer, staging, tokens[0]), Started::Done];
    }
    match worker.put(transfer, tokens[0]) {
        Started::Failed(status) => [Started::Failed(status), Started::Done],
        put => [put, worker.flush(transfer.endpoint, tokens[1])],
    }
}

/// Whether the region as its owner describes it allows the operation.
fn fits(grant: &Grant, request: &Request) -> Result<(), Reason> {
    let needed = if request.read { Grant::READ } else { Grant::WRITE };
    if grant.rights & needed == 0 {
        return Err(Reason::AccessDenied { side: "remote" });
    }
    let end = request.remote.checked_add(request.len);
    if end.is_none_or(|end| end > grant.len) {
        return Err(Reason::RemoteOutOfRange);
    }
    Ok(())
}
