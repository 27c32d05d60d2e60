//! Who makes progress. Owns the lock around the state, the news, and the fabric's own thread.
//!
//! One thread at a time leads: whoever is in `Fabric::wait`, which saves a wake-up of some 40 µs a message, else the fabric's own. The own
//! thread looks every `NAP` whether anybody leads, and sleeps for good while one leader stays. A leader works while there is work, looks
//! on for `Options::spin`, then sleeps on UCX's descriptor. Whoever posts while it sleeps rings its bell.

use crate::core::{Core, News};
use crate::worker::borrow;
use bridgehead_fabric::Completion;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::collections::VecDeque;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long UCX may be unattended before the own thread leads.
const NAP: Duration = Duration::from_millis(1);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Role {
    /// Somebody leads.
    taken: bool,
    /// How often the leadership changed.
    epoch: u64,
    /// The own thread sleeps until a leader leaves.
    helper_sleeps: bool,
    stop: bool,
}

pub(crate) struct Shared {
    core: Mutex<Core>,
    news: Mutex<VecDeque<News>>,
    has_news: AtomicBool,
    role: Mutex<Role>,
    /// Threads in `wait` that do not lead.
    followers: AtomicUsize,
    follower: Condvar,
    helper: Condvar,
    /// Threads that want the lock.
    posters: AtomicUsize,
    asleep: AtomicBool,
    woken: AtomicBool,
    /// Nobody makes progress, as if the process were stopped.
    held: AtomicBool,
    bell: OwnedFd,
    descriptor: RawFd,
    spin: Duration,
    period: Duration,
}

impl Shared {
    pub fn new(core: Core) -> std::io::Result<Self> {
        Ok(Self {
            descriptor: core.worker.descriptor(),
            spin: core.options.spin,
            period: core.period(),
            core: Mutex::new(core),
            news: Mutex::default(),
            has_news: AtomicBool::new(false),
            role: Mutex::default(),
            followers: AtomicUsize::new(0),
            follower: Condvar::new(),
            helper: Condvar::new(),
            posters: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            held: AtomicBool::new(false),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Works on the state, ahead of the leader, and hands on what came of it.
    pub fn with<T>(&self, work: impl FnOnce(&mut Core) -> T) -> T {
        self.posters.fetch_add(1, Ordering::SeqCst);
        let mut core = lock(&self.core);
        self.posters.fetch_sub(1, Ordering::SeqCst);
        let result = work(&mut core);
        self.publish(&mut core);
        drop(core);
        // What was posted may need progress that nothing tells a sleeper of.
        self.ring(false);
        result
    }

    /// Makes progress; whether there was anything to do.
    fn turn(&self) -> bool {
        let mut core = lock(&self.core);
        // Under the lock: whoever holds the fabric has held it for all turns that come after.
        if self.held.load(Ordering::SeqCst) {
            return false;
        }
        let any = core.turn();
        self.publish(&mut core);
        any
    }

    fn publish(&self, core: &mut Core) {
        if core.news.is_empty() {
            return;
        }
        lock(&self.news).extend(core.news.drain(..));
        self.has_news.store(true, Ordering::SeqCst);
        if self.followers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.role));
            self.follower.notify_one();
        }
    }

    /// Stops all progress, or lets it go on.
    pub fn hold(&self, held: bool) {
        let core = lock(&self.core);
        self.held.store(held, Ordering::SeqCst);
        drop(core);
        self.ring(true);
    }

    /// Whether nobody makes progress.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// Takes the news out, and credits the messages among them.
    pub fn take_news(&self, out: &mut Vec<Completion>) -> usize {
        if !self.has_news.load(Ordering::SeqCst) {
            self.turn();
        }
        let mut news = lock(&self.news);
        self.has_news.store(false, Ordering::SeqCst);
        let taken = std::mem::take(&mut *news);
        drop(news);
        let mut credits = Vec::new();
        let count = taken.len();
        for News { completion, session } in taken {
            if let Completion::Message { peer, message } = &completion {
                credits.push((peer.0, session, message.len() as u64));
            }
            out.push(completion);
        }
        if !credits.is_empty() {
            self.with(|core| {
                credits
                    .into_iter()
                    .for_each(|(peer, session, bytes)| core.taken(peer, session, bytes))
            });
        }
        count
    }

    /// Rouses whoever sleeps; the followers too, if it is for them.
    fn ring(&self, all: bool) {
        if all && self.followers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.role));
            self.follower.notify_one();
        }
        if self.asleep.load(Ordering::SeqCst) {
            // A counter that is full is as loud.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    pub fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.ring(true);
    }

    pub fn stop(&self) {
        lock(&self.role).stop = true;
        self.helper.notify_all();
        self.ring(true);
    }

    fn stopped(&self) -> bool {
        lock(&self.role).stop
    }

    fn done_waiting(&self) -> bool {
        self.woken.swap(false, Ordering::SeqCst) || self.has_news.load(Ordering::SeqCst)
    }

    /// Waits for news, making progress meanwhile if nobody else does.
    pub fn wait(&self, limit: Duration) -> bool {
        let end = Instant::now().checked_add(limit);
        loop {
            if self.done_waiting() {
                return true;
            }
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            if self.try_lead() {
                self.lead(left, || {
                    self.has_news.load(Ordering::SeqCst) || self.woken.load(Ordering::SeqCst)
                });
                self.leave();
            } else {
                self.follow(left);
            }
        }
    }

    fn try_lead(&self) -> bool {
        !std::mem::replace(&mut lock(&self.role).taken, true)
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

    /// Waits while another leads.
    fn follow(&self, limit: Duration) {
        self.followers.fetch_add(1, Ordering::SeqCst);
        let role = lock(&self.role);
        let idle = !self.has_news.load(Ordering::SeqCst) && !self.woken.load(Ordering::SeqCst);
        if role.taken && idle {
            let limit = limit.min(self.period);
            drop(
                self.follower
                    .wait_timeout(role, limit)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
        self.followers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Makes progress for so long, or until it is enough; asleep where there is nothing to do.
    fn lead(&self, limit: Duration, enough: impl Fn() -> bool) {
        let end = Instant::now().checked_add(limit);
        let mut busy = Instant::now();
        loop {
            let any = self.turn();
            let now = Instant::now();
            if enough() || end.is_some_and(|end| now >= end) {
                return;
            }
            if any {
                busy = now;
            } else if now - busy >= self.spin {
                let left = end.map_or(self.period, |end| end - now);
                self.sleep(left.min(self.period), &enough);
                busy = Instant::now();
                continue;
            }
            // Whoever wants the lock, or the processor, is let ahead.
            if !any || self.posters.load(Ordering::SeqCst) > 0 {
                std::thread::yield_now();
            }
        }
    }

    /// Sleeps until UCX or the bell has something, if neither has now.
    fn sleep(&self, limit: Duration, enough: &impl Fn() -> bool) {
        self.asleep.store(true, Ordering::SeqCst);
        let held = self.held.load(Ordering::SeqCst);
        if !enough() && (held || lock(&self.core).worker.arm()) {
            let limit = Timespec::try_from(limit).unwrap_or(Timespec {
                tv_sec: 0,
                tv_nsec: 1_000_000,
            });
            let mut descriptors = vec![PollFd::new(&self.bell, PollFlags::IN)];
            let own = borrow(self.descriptor);
            if !held {
                descriptors.push(PollFd::new(&own, PollFlags::IN));
            }
            // A signal only ends the sleep early.
            let _ = poll(&mut descriptors, Some(&limit));
            // Another ring may come at any time; then the next sleep is short.
            let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
        }
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// The own thread: leads when nobody does.
    pub fn help(&self) {
        let mut seen = None;
        while !self.stopped() {
            let mut role = lock(&self.role);
            if !role.taken {
                role.taken = true;
                drop(role);
                self.lead(Duration::MAX, || self.stopped() || self.is_followed());
                self.leave();
                seen = None;
                continue;
            }
            let stays = seen == Some(role.epoch);
            seen = Some(role.epoch);
            if stays && !role.stop {
                role.helper_sleeps = true;
                drop(self.helper.wait(role).unwrap_or_else(PoisonError::into_inner));
            } else if !role.stop {
                drop(
                    self.helper
                        .wait_timeout(role, NAP)
                        .unwrap_or_else(PoisonError::into_inner),
                );
            }
        }
    }

    /// Whether a thread in `wait` could lead instead of the own one.
    fn is_followed(&self) -> bool {
        self.followers.load(Ordering::SeqCst) > 0
    }

    /// Makes progress until that is so; false if it is not within the limit.
    pub fn until(&self, limit: Duration, mut so: impl FnMut(&mut Core) -> bool) -> bool {
        let end = Instant::now() + limit;
        loop {
            let done = self.with(|core| {
                core.turn();
                so(core)
            });
            if done {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            std::thread::yield_now();
        }
    }
}
