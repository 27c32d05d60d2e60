//! The thread that moves lines between the ranks' sockets and the state of PMI-1. Owns sockets and buffers; decides nothing.
//! Hot path: a rank's line to its answer, once per key of every other rank while MPI starts.

use super::line::Lines;
use super::state::{Out, State};
use crate::bootstrap::{BootError, Event, RankSetup};
use crate::waker::Waker;
use crate::world::World;
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// A rank that does not read its answers is not read either, beyond this.
const UNREAD_LIMIT: usize = 64 << 10;

/// The agent's side of the thread.
pub(crate) struct Service {
    world: World,
    orders: Sender<Order>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Serve { rank: u32, socket: OwnedFd },
    Deliver { from: u32, bytes: Bytes },
    Stop,
}

impl Service {
    pub fn start(world: World, events: Box<dyn Fn(Event) + Send + Sync>) -> Result<Self, BootError> {
        let waker = Arc::new(Waker::new()?);
        let (orders, received) = channel();
        let state = State::new(world.clone());
        let server = Server {
            state,
            orders: received,
            waker: waker.clone(),
            ranks: BTreeMap::new(),
            events,
        };
        let thread = std::thread::Builder::new()
            .name("pmi".to_owned())
            .spawn(move || server.serve());
        let thread = thread.map_err(|source| BootError::System {
            what: "no thread for PMI",
            source,
        })?;
        Ok(Self {
            world,
            orders,
            waker,
            thread: Some(thread),
        })
    }

    pub fn setup(&self, rank: u32) -> Result<RankSetup, BootError> {
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (ours, theirs) = pair.map_err(|e| BootError::System {
            what: "no socket for a rank",
            source: e.into(),
        })?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|e| BootError::System {
            what: "a rank's socket waits",
            source: e.into(),
        })?;
        self.order(Order::Serve { rank, socket: ours });
        let here = self.world.part();
        let set = [
            ("PMI_RANK", rank),
            ("PMI_SIZE", self.world.size()),
            ("MPI_LOCALRANKID", rank - here.first),
            ("MPI_LOCALNRANKS", here.count),
        ];
        let set = set.map(|(name, value)| (name.to_owned(), value.to_string()));
        Ok(RankSetup {
            set: set.into(),
            fd: Some(("PMI_FD".to_owned(), theirs)),
        })
    }

    pub fn deliver(&self, from: u32, bytes: Bytes) {
        self.order(Order::Deliver { from, bytes });
    }

    fn order(&self, order: Order) {
        // The thread ends only after it was told to stop, so somebody receives.
        if self.orders.send(order).is_ok() {
            self.waker.wake();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self
            .thread
            .take()
            .filter(|thread| thread.thread().id() != std::thread::current().id())
        {
            // A panic of it was printed when it happened.
            let _ = thread.join();
        }
    }
}

struct Server {
    state: State,
    orders: Receiver<Order>,
    waker: Arc<Waker>,
    ranks: BTreeMap<u32, Rank>,
    events: Box<dyn Fn(Event) + Send + Sync>,
}

/// The socket of a rank, which lives until the rank closes it or sends what is no PMI.
struct Rank {
    socket: OwnedFd,
    lines: Lines,
    unsent: Vec<u8>,
}

impl Server {
    fn serve(mut self) {
        loop {
            let ready = self.wait();
            self.waker.clear();
            while let Ok(order) = self.orders.try_recv() {
                match order {
                    Order::Serve { rank, socket } => {
                        self.ranks.insert(
                            rank,
                            Rank {
                                socket,
                                lines: Lines::default(),
                                unsent: Vec::new(),
                            },
                        );
                    }
                    Order::Deliver { from, bytes } => {
                        let outs = self.state.peer(from, bytes);
                        self.carry_out(outs);
                    }
                    Order::Stop => return,
                }
            }
            for (rank, flags) in ready {
                self.attend(rank, flags);
            }
        }
    }

    /// Waits; gives the ranks that have something.
    fn wait(&self) -> Vec<(u32, PollFlags)> {
        let mut fds = vec![PollFd::new(&*self.waker, PollFlags::IN)];
        fds.extend(self.ranks.values().map(|rank| PollFd::new(&rank.socket, rank.wanted())));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            // Bad descriptors cannot be, as they are owned; no memory for a poll leaves nothing else to try.
            Err(error) => {
                let reason = format!("the sockets of the ranks cannot be waited for: {error}; start the gang again");
                (self.events)(Event::Failed { reason });
                std::thread::park_timeout(std::time::Duration::from_secs(1));
            }
        }
        let ready = self.ranks.keys().zip(&fds[1..]).map(|(rank, fd)| (*rank, fd.revents()));
        ready.filter(|(_, flags)| !flags.is_empty()).collect()
    }

    fn attend(&mut self, at: u32, flags: PollFlags) {
        let Some(rank) = self.ranks.get_mut(&at) else { return };
        if flags.contains(PollFlags::OUT) && rank.flush().is_err() {
            self.ranks.remove(&at);
            return;
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        match rank.read() {
            Ok(lines) => {
                for line in lines {
                    let outs = self.state.line(at, &line);
                    self.carry_out(outs);
                }
            }
            Err(Closed) => drop(self.ranks.remove(&at)),
        }
    }

    fn carry_out(&mut self, outs: Vec<Out>) {
        for out in outs {
            match out {
                Out::Event(event) => (self.events)(event),
                Out::Line { rank, line } => {
                    let Some(socket) = self.ranks.get_mut(&rank) else {
                        continue;
                    };
                    socket.unsent.extend_from_slice(&line);
                    if socket.flush().is_err() {
                        self.ranks.remove(&rank);
                    }
                }
            }
        }
    }
}

/// The rank's end is closed, or it sends no PMI. Its agent sees how its process ends.
struct Closed;

impl Rank {
    fn wanted(&self) -> PollFlags {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, self.unsent.len() < UNREAD_LIMIT);
        wanted.set(PollFlags::OUT, !self.unsent.is_empty());
        wanted
    }

    fn read(&mut self) -> Result<Vec<Vec<u8>>, Closed> {
        let mut buffer = [0_u8; 16 << 10];
        match rustix::io::read(&self.socket, &mut buffer) {
            Ok(0) => Err(Closed),
            Ok(count) => self.lines.feed(&buffer[..count]).map_err(|_| Closed),
            Err(Errno::INTR | Errno::AGAIN) => Ok(Vec::new()),
            Err(_) => Err(Closed),
        }
    }

    fn flush(&mut self) -> Result<(), Closed> {
        while !self.unsent.is_empty() {
            let sent = rustix::net::send(&self.socket, &self.unsent, rustix::net::SendFlags::NOSIGNAL);
            match sent {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Closed),
            }
        }
        Ok(())
    }
}
