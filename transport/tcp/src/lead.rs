//! Who does the network's work. Owns the leadership: one thread at a time polls the sockets, whichever is in `wait`; when none
//! is for a while, the fabric's own thread is.
//!
//! A thread that waits and works itself saves a wake-up of about 40 µs a message. A waiter that leaves hands over to the
//! next waiter; the helper only looks every `NAP` whether anybody leads, and sleeps for good while one leader stays. It is not
//! roused by leaders that come and go, as with each message of a conversation: its wake-ups would cost more than the messages.

use crate::connection::lock;
use crate::engine::{Engine, TICK};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the sockets may be unattended before the helper leads.
const NAP: Duration = Duration::from_millis(1);
/// Events that are taken at once.
const EVENTS: usize = 64;

#[derive(Default)]
struct Role {
    /// Somebody leads.
    taken: bool,
    /// How often the leadership changed.
    epoch: u64,
    /// The helper sleeps until a leader leaves.
    helper_sleeps: bool,
    stop: bool,
}

pub(crate) struct Lead {
    /// Rouses the leader from the poller.
    pub bell: OwnedFd,
    role: Mutex<Role>,
    followers: AtomicUsize,
    follower: Condvar,
    helper: Condvar,
    /// The leader is, or is about to be, asleep in the poller.
    asleep: AtomicBool,
    woken: AtomicBool,
}

impl Lead {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            role: Mutex::default(),
            followers: AtomicUsize::new(0),
            follower: Condvar::new(),
            helper: Condvar::new(),
            asleep: AtomicBool::new(false),
            woken: AtomicBool::new(false),
        })
    }

    /// There is something new for whoever sleeps.
    pub fn ring(&self) {
        if self.followers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.role));
            self.follower.notify_one();
        }
        if self.asleep.load(Ordering::SeqCst) {
            // A counter that is full is as loud.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    /// The bell was heard by the leader.
    pub fn heard(&self) {
        // Another ring may come at any time; then the poller tells again.
        let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
    }

    pub fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Ends the helper.
    pub fn stop(&self) {
        lock(&self.role).stop = true;
        self.helper.notify_all();
        self.ring();
    }

    fn stopped(&self) -> bool {
        lock(&self.role).stop
    }

    fn leave(&self) {
        let mut role = lock(&self.role);
        role.taken = false;
        role.epoch += 1;
        let rouse = std::mem::take(&mut role.helper_sleeps);
        drop(role);
        if self.followers.load(Ordering::SeqCst) > 0 {
            self.follower.notify_one();
        }
        if rouse {
            self.helper.notify_one();
        }
    }

    fn try_take(&self) -> bool {
        !std::mem::replace(&mut lock(&self.role).taken, true)
    }
}

impl Engine {
    /// Waits for news, doing the network's work meanwhile if nobody else does.
    pub fn wait(&self, limit: Duration) -> bool {
        let end = Instant::now().checked_add(limit);
        loop {
            if self.lead.woken.swap(false, Ordering::SeqCst) || self.has_news() {
                return true;
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                return false;
            }
            if self.lead.try_take() {
                self.lead_until(end, || self.has_news() || self.lead.woken.load(Ordering::SeqCst));
                self.lead.leave();
            } else {
                self.follow(end);
            }
        }
    }

    /// Does a little work without waiting, if nobody else does.
    pub fn glance(&self) {
        if self.lead.try_take() {
            self.turn(Some(Duration::ZERO));
            self.lead.leave();
        }
    }

    fn follow(&self, end: Option<Instant>) {
        let lead = &self.lead;
        lead.followers.fetch_add(1, Ordering::SeqCst);
        // A helper that leads makes room for a waiter.
        if lead.asleep.load(Ordering::SeqCst) && self.helper_leads.load(Ordering::SeqCst) {
            let _ = rustix::io::write(&lead.bell, &1_u64.to_ne_bytes());
        }
        let role = lock(&lead.role);
        if role.taken && !self.has_news() && !lead.woken.load(Ordering::SeqCst) {
            let limit = end.map_or(TICK, |end| end.saturating_duration_since(Instant::now()).min(TICK));
            drop(
                lead.follower
                    .wait_timeout(role, limit)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
        lead.followers.fetch_sub(1, Ordering::SeqCst);
    }

    /// The life of the fabric's own thread.
    pub fn help(&self) {
        let mut stays = None; // The epoch of a leader that was there for a whole nap.
        loop {
            let mut role = lock(&self.lead.role);
            if role.stop {
                return;
            }
            if role.taken && stays == Some(role.epoch) {
                role.helper_sleeps = true;
                drop(self.lead.helper.wait(role).unwrap_or_else(PoisonError::into_inner));
                stays = None;
                continue;
            }
            let seen = role.epoch;
            let (mut role, _) = self
                .lead
                .helper
                .wait_timeout(role, NAP)
                .unwrap_or_else(PoisonError::into_inner);
            stays = (role.epoch == seen).then_some(seen);
            if role.taken || role.epoch != seen || role.stop {
                continue;
            }
            role.taken = true;
            drop(role);
            self.helper_leads.store(true, Ordering::SeqCst);
            self.lead_until(None, || {
                self.lead.followers.load(Ordering::SeqCst) > 0 || self.lead.stopped()
            });
            self.helper_leads.store(false, Ordering::SeqCst);
            self.lead.leave();
        }
    }

    /// Works until `enough`, or until `end`. Looks for more for a moment before it sleeps.
    fn lead_until(&self, end: Option<Instant>, enough: impl Fn() -> bool) {
        let mut active = Instant::now();
        loop {
            if self.turn(Some(Duration::ZERO)) {
                active = Instant::now();
            }
            if enough() {
                return;
            }
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) {
                return;
            }
            if now.duration_since(active) < self.options.spin {
                std::thread::yield_now();
                continue;
            }
            self.lead.asleep.store(true, Ordering::SeqCst);
            if !enough() {
                self.turn(self.sleep_limit(end));
                active = Instant::now();
            }
            self.lead.asleep.store(false, Ordering::SeqCst);
        }
    }

    fn sleep_limit(&self, end: Option<Instant>) -> Option<Duration> {
        let end = end.map(|end| end.saturating_duration_since(Instant::now()));
        let tick = self.watch.load(Ordering::SeqCst).then_some(TICK);
        [end, tick].into_iter().flatten().min()
    }

    /// Takes what the poller has and handles it; whether there was anything.
    fn turn(&self, limit: Option<Duration>) -> bool {
        let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        let came = match epoll::wait(&self.poller, &mut events, limit.as_ref()) {
            Ok((came, _)) => came,
            Err(_) => return false,
        };
        let any = !came.is_empty();
        for event in came.iter() {
            let (data, flags) = (event.data, event.flags);
            self.event(data.u64(), flags);
        }
        self.look_at_time();
        any
    }
}
