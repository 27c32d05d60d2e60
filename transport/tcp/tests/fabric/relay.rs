//! A relay between two sockets that can stop, alter, repeat and cut what it carries: the network as an adversary.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// What the relay does to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    None,
    /// Flips one bit at this place of the stream.
    Flip(u64),
    /// Sends up to 72 bytes before this place, at least one, a second time.
    Repeat(u64),
    /// Ends the stream at this place.
    Cut(u64),
}

#[derive(Default)]
struct Shared {
    frozen: Mutex<bool>,
    changed: Condvar,
    stop: AtomicBool,
    harmed: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

pub struct Relay {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl Relay {
    /// Carries connections to `to`; `there` and `back` are what happens to them.
    pub fn start(to: SocketAddr, there: Harm, back: Harm) -> Self {
        let listener = TcpListener::bind((to.ip(), 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let listener = std::thread::spawn(move || own.listen(&listener, to, there, back));
        Self {
            address,
            shared,
            listener: Some(listener),
        }
    }

    pub fn freeze(&self, frozen: bool) {
        *self.shared.frozen.lock().expect("no panic") = frozen;
        self.shared.changed.notify_all();
    }

    /// How many times harm was done.
    pub fn harmed(&self) -> u64 {
        self.shared.harmed.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn listen(self: &Arc<Self>, listener: &TcpListener, to: SocketAddr, there: Harm, back: Harm) {
        let mut carriers = Vec::new();
        while let Ok((near, _)) = listener.accept() {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            let Ok(far) = TcpStream::connect(to) else { continue };
            let mut streams = self.streams.lock().expect("no panic");
            for (from, into, harm) in [(&near, &far, there), (&far, &near, back)] {
                let (from, into) = (
                    from.try_clone().expect("a descriptor"),
                    into.try_clone().expect("a descriptor"),
                );
                let own = self.clone();
                carriers.push(std::thread::spawn(move || own.carry(from, into, harm)));
            }
            streams.extend([near, far]);
        }
        carriers
            .into_iter()
            .for_each(|carrier| carrier.join().expect("a carrier does not panic"));
    }

    fn carry(&self, mut from: TcpStream, mut into: TcpStream, harm: Harm) {
        let mut buffer = vec![0; 64 << 10];
        let mut place = 0_u64;
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut frozen = self.frozen.lock().expect("no panic");
            while *frozen {
                frozen = self.changed.wait(frozen).expect("no panic");
            }
            drop(frozen);
            if self.pass(&mut into, &mut buffer[..count], place, harm).is_err() {
                break;
            }
            place += count as u64;
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = into.shutdown(Shutdown::Both);
    }

    fn pass(&self, into: &mut TcpStream, bytes: &mut [u8], place: u64, harm: Harm) -> std::io::Result<()> {
        let (Harm::Flip(at) | Harm::Repeat(at) | Harm::Cut(at)) = harm else {
            return into.write_all(bytes);
        };
        let Some(at) = at.checked_sub(place).filter(|at| *at < bytes.len() as u64) else {
            return into.write_all(bytes);
        };
        let at = usize::try_from(at).expect("within the buffer");
        self.harmed.fetch_add(1, Ordering::SeqCst);
        match harm {
            Harm::Flip(_) => bytes[at] ^= 4,
            Harm::Cut(_) => {
                into.write_all(&bytes[..at])?;
                return Err(std::io::ErrorKind::Other.into());
            }
            _ => into.write_all(&bytes[at.saturating_sub(72)..at.max(1)])?,
        }
        into.write_all(bytes)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.freeze(false);
        self.shared
            .streams
            .lock()
            .expect("no panic")
            .drain(..)
            .for_each(|stream| {
                let _ = stream.shutdown(Shutdown::Both);
            });
        // Rouses the listener.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            listener.join().expect("the listener does not panic");
        }
    }
}
