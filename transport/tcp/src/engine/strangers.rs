//! Connections that have not proved that they know the run's key: taken, bounded in number and time, welcomed or dropped.

use super::{Engine, Entry};
use crate::connection::{Phase, lock};
use crate::handshake::{HELLO_LEN, Hello, Keys};
use crate::peer::Standing;
use crate::socket;
use crate::stranger::{Stranger, Verdict};
use bridgehead_fabric::Reason;
use rustix::event::epoll::{self, EventData, EventFlags};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

impl Engine {
    pub(super) fn accept(&self) {
        for _ in 0..self.options.max_strangers.max(1) {
            match socket::accept(&self.listener) {
                Ok(fd) => self.admit(fd),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.out_of_descriptors(&error),
            }
        }
    }

    /// Takes and drops the connection, which would else be reported for ever.
    fn out_of_descriptors(&self, error: &io::Error) {
        let mut reserve = lock(&self.reserve);
        if reserve.take().is_some() {
            drop(socket::accept(&self.listener));
        }
        *reserve = open_null().ok();
        tracing::warn!(%error, "a connection could not be accepted");
    }

    fn admit(&self, fd: OwnedFd) {
        if let Err(error) = socket::tune(&fd, self.options.timeout) {
            tracing::debug!(%error, "a connection ended before it was accepted");
            return;
        }
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        let mut table = lock(&self.table);
        if epoll::add(&self.poller, &fd, EventData::new_u64(token), EventFlags::IN).is_err() {
            return;
        }
        table.insert(token, Entry::Stranger(Arc::new(Mutex::new(Stranger::new(fd)))));
        self.bound_strangers(&mut table);
        self.watch_time();
    }

    /// The oldest goes: a silent one costs a place for as long as there is room, and never keeps an honest one out.
    fn bound_strangers(&self, table: &mut HashMap<u64, Entry>) {
        let strangers = table
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Stranger(_)))
            .map(|(token, _)| *token);
        let (count, oldest) = strangers.fold((0, u64::MAX), |(count, oldest), token| (count + 1, oldest.min(token)));
        if count > self.options.max_strangers {
            table.remove(&oldest);
        }
    }

    pub(super) fn stranger(&self, token: u64, stranger: &Arc<Mutex<Stranger>>) {
        let verdict = lock(stranger).readable(self);
        if let Verdict::Waits = verdict {
            return;
        }
        let Some(Entry::Stranger(_)) = lock(&self.table).remove(&token) else {
            return;
        };
        let Some(fd) = lock(stranger).fd.take() else { return };
        // A descriptor that goes on gets another token.
        let _ = epoll::delete(&self.poller, &fd);
        match verdict {
            Verdict::Proved(hello, keys) => self.welcome(fd, &hello, &keys),
            Verdict::Refused(refusal) => tracing::warn!(%refusal, "a connection was refused"),
            Verdict::Waits => {}
        }
    }

    fn welcome(&self, fd: OwnedFd, hello: &Hello, keys: &Keys) {
        let peer = self.peer(hello.from);
        let mut state = peer.state();
        if state.standing == Standing::Removed {
            return;
        }
        let phase = Phase::Connecting { hello: [0; HELLO_LEN] };
        // Nothing is looked for until the keys are in place.
        match self.enter(fd, &peer, false, hello.lane, phase, EventFlags::empty()) {
            Ok(connection) => {
                let open = connection.open(self, keys);
                *lock(&connection.phase) = open;
                state.inbound.push(connection.clone());
                drop(state);
                let waiting = self.interest(&connection, &lock(&connection.tx));
                if let Err(error) = waiting {
                    self.broken(&connection, &Reason::PeerLost(error.to_string().into()));
                }
            }
            Err(error) => tracing::warn!(%error, "a connection could not be kept"),
        }
    }

    /// Drops those that took too long to prove themselves; whether any are left.
    pub(super) fn drop_old_strangers(&self) -> bool {
        let mut table = lock(&self.table);
        table.retain(|_, entry| match entry {
            Entry::Stranger(stranger) => lock(stranger).since.elapsed() < self.options.handshake_timeout,
            Entry::Connection(_) => true,
        });
        table.values().any(|entry| matches!(entry, Entry::Stranger(_)))
    }
}

/// A descriptor to hold in reserve.
pub(super) fn open_null() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/dev/null")?.into())
}
