//! The thread of one helper: moves frames between its socket, its gang and the agent. Owns the process from its start to its end;
//! which gang it gets is `host`'s matter, what frames mean `gang`'s.
//! Hot path: none; a gang has some dozens of frames.

use super::frames::{Do, Forget, Frames, Order, Register, Report, Tell, frame};
use super::gang::{Gang, Out};
use crate::bootstrap::Event;
use crate::waker::Waker;
use bytes::{Buf, Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Release;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

/// A helper ends by itself when its socket is closed; then it is ended.
const GRACE: Duration = Duration::from_secs(2);
/// One that has not forgotten its gang by then is stuck.
const FORGETS: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// What a helper is at.
pub(super) const SERVES: u8 = 0;
pub(super) const WARM: u8 = 1;
pub(super) const ENDED: u8 = 2;

pub(super) type Events = Box<dyn Fn(Event) + Send + Sync>;

/// What the helper's thread is to do.
pub(super) enum Errand {
    Begin(Box<Member>),
    Deliver { gang: u64, from: u32, bytes: Bytes },
    End { gang: u64 },
    Stop,
}

pub(super) type Ready = Result<Vec<Vec<String>>, String>;

/// The thread of one helper.
pub(super) struct Server {
    pub(super) child: Child,
    pub(super) folder: PathBuf,
    pub(super) socket: OwnedFd,
    pub(super) frames: Frames,
    pub(super) unsent: BytesMut,
    pub(super) errands: Receiver<Errand>,
    pub(super) waker: Arc<Waker>,
    pub(super) at: Arc<AtomicU8>,
    pub(super) member: Option<Box<Member>>,
    /// It has been told to forget a gang and has not yet.
    pub(super) forgets: bool,
}

/// The gang that a helper has.
pub(super) struct Member {
    pub(super) number: u64,
    pub(super) register: Register,
    pub(super) gang: Gang,
    pub(super) events: Events,
    pub(super) ready: Option<Sender<Ready>>,
    /// Ranks that came and have not left.
    pub(super) inside: HashSet<u32>,
}

/// Why the thread ends.
enum End {
    Told,
    Lost(String),
}

impl Server {
    pub(super) fn serve(mut self) {
        let end = loop {
            if let Err(end) = self.turn() {
                break end;
            }
        };
        self.at.store(ENDED, Release);
        let status = self.reap();
        if let (End::Lost(reason), Some(mut member)) = (end, self.member.take()) {
            let status = status.map_or_else(|| "not ended".to_owned(), |status| status.to_string());
            let reason =
                format!("the PMIx helper is lost ({reason}; {status}): start the gang again, and see its stderr");
            let outs = vec![Out::Ready(Err(reason.clone())), Out::Event(Event::Failed { reason })];
            member.tell(outs, |_| {});
        }
        // Files of libpmix's own; the agent removes what is above them.
        let _ = std::fs::remove_dir_all(&self.folder);
    }

    /// Waits once, and does what there is to do.
    fn turn(&mut self) -> Result<(), End> {
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, !self.unsent.is_empty());
        let mut fds = [
            PollFd::new(&*self.waker, PollFlags::IN),
            PollFd::new(&self.socket, wanted),
        ];
        match poll(&mut fds, self.forgets.then_some(&FORGETS)) {
            Ok(0) if self.forgets => return Err(End::Lost("it does not forget its last gang".to_owned())),
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(End::Lost(error.to_string())),
        }
        let readable = fds[1]
            .revents()
            .intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        // Reports first: an order to end must not overtake the news that the ranks have left.
        if readable {
            self.read()?;
        }
        self.waker.clear();
        while let Ok(errand) = self.errands.try_recv() {
            self.run(errand)?;
        }
        self.flush()
    }

    fn run(&mut self, errand: Errand) -> Result<(), End> {
        match errand {
            Errand::Begin(member) => {
                self.order(member.number, Do::Register(member.register.clone()));
                self.member = Some(member);
            }
            Errand::Deliver { gang, from, bytes } => self.with(gang, |member| member.gang.peer(from, bytes)),
            Errand::End { gang } => {
                let Some(member) = self.member.take_if(|member| member.number == gang) else {
                    return Ok(());
                };
                if member.ready.is_some() || !member.inside.is_empty() {
                    return Err(End::Told);
                }
                self.order(gang, Do::Forget(Forget {}));
                self.forgets = true;
            }
            Errand::Stop => return Err(End::Told),
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), End> {
        let mut buffer = [0_u8; 64 << 10];
        match rustix::io::read(&self.socket, &mut buffer) {
            Ok(0) => return Err(End::Lost("it closed its socket".to_owned())),
            Ok(count) => self.frames.feed(&buffer[..count]),
            Err(Errno::INTR | Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(End::Lost(error.to_string())),
        }
        while let Some(report) = self
            .frames
            .next::<Report>()
            .map_err(|garbage| End::Lost(garbage.to_string()))?
        {
            match (report.gang, report.what) {
                (0, Some(Tell::Failed(reason))) => return Err(End::Lost(reason)),
                (_, Some(Tell::Forgotten(_))) if self.forgets => {
                    self.forgets = false;
                    self.at.store(WARM, Release);
                }
                (gang, Some(tell)) => self.with(gang, |member| member.gang.report(tell)),
                (_, None) => return Err(End::Lost("it sends what this build does not know".to_owned())),
            }
        }
        Ok(())
    }

    /// Carries out what follows for this gang, unless it is over.
    fn with(&mut self, gang: u64, outs: impl FnOnce(&mut Member) -> Vec<Out>) {
        let Some(member) = self.member.as_mut().filter(|member| member.number == gang) else {
            return;
        };
        let (outs, mut orders) = (outs(member), Vec::new());
        member.tell(outs, |order| orders.push(order));
        orders.into_iter().for_each(|order| self.order(gang, order));
    }

    fn order(&mut self, gang: u64, what: Do) {
        self.unsent.extend_from_slice(&frame(&Order { gang, what: Some(what) }));
    }

    fn flush(&mut self) -> Result<(), End> {
        while !self.unsent.is_empty() {
            match send(&self.socket, &self.unsent, SendFlags::NOSIGNAL) {
                Ok(count) => self.unsent.advance(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(End::Lost(error.to_string())),
            }
        }
        Ok(())
    }

    /// Closes the socket, by which the helper ends, and waits for that.
    fn reap(&mut self) -> Option<ExitStatus> {
        // Its other end may be closed already.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // It may have ended in this moment; then the wait below says how.
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

impl Member {
    fn tell(&mut self, outs: Vec<Out>, mut order: impl FnMut(Do)) {
        for out in outs {
            match out {
                Out::Order(what) => order(what),
                // Nobody waits any more where the gang was dropped meanwhile.
                Out::Ready(ready) => drop(self.ready.take().map(|sender| sender.send(ready))),
                Out::Event(event) => {
                    match event {
                        Event::Joined { rank } => drop(self.inside.insert(rank)),
                        Event::Left { rank } => drop(self.inside.remove(&rank)),
                        _ => {}
                    }
                    (self.events)(event);
                }
            }
        }
    }
}
