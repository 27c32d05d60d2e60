//! How fast a fabric moves bytes between two ends on this machine, next to a plain blocking socket on loopback. Owns the measuring:
//! every figure is the median of a few, and a whole curve takes a second or two.

use bridgehead_fabric::{Access, Buffer, Completion, Fabric, LocalSlice, OpId, PeerId, Posted, RegionKey, RemoteSlice};
use serde::Serialize;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sizes of a curve, in bytes.
pub(super) const SIZES: [usize; 7] = [1, 64, 4 << 10, 64 << 10, 1 << 20, 8 << 20, 64 << 20];
/// How long one figure may take, after its fewest rounds.
const BUDGET: Duration = Duration::from_millis(50);
const FEWEST: usize = 3;
const MOST: usize = 2000;
/// How long one transfer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Seconds that one transfer of each size takes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Curve {
    pub get: Vec<f64>,
    pub put: Vec<f64>,
}

type Outcome<T> = Result<T, String>;

/// The median of the times of `work`.
fn median(mut work: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    let mut times = Vec::new();
    let begin = Instant::now();
    work()?; // Connects, and touches memory for the first time.
    while times.len() < FEWEST || (times.len() < MOST && begin.elapsed() < BUDGET) {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// A plain blocking socket: 8 bytes ask for `size` bytes, which are received into one buffer.
pub(super) fn plain() -> Outcome<Vec<f64>> {
    let said = |error: std::io::Error| format!("sockets on loopback: {error}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(said)?;
    let mut near = TcpStream::connect(listener.local_addr().map_err(said)?).map_err(said)?;
    let (mut far, _) = listener.accept().map_err(said)?;
    near.set_nodelay(true).map_err(said)?;
    far.set_nodelay(true).map_err(said)?;
    let far = std::thread::spawn(move || {
        let source = vec![7_u8; largest()];
        let mut asked = [0; 8];
        while far.read_exact(&mut asked).is_ok() {
            let size = usize::try_from(u64::from_le_bytes(asked)).unwrap_or(0);
            if far.write_all(&source[..size.min(source.len())]).is_err() {
                return;
            }
        }
    });
    let mut room = vec![0; largest()];
    let mut once = |size: usize| {
        near.write_all(&(size as u64).to_le_bytes()).map_err(said)?;
        near.read_exact(&mut room[..size]).map_err(said)
    };
    let times = SIZES.iter().map(|&size| median(|| once(size))).collect();
    drop(near); // The far side ends with its socket.
    let _ = far.join();
    times
}

fn largest() -> usize {
    SIZES.into_iter().max().unwrap_or(0)
}

/// One end, as the one who asks sees it.
struct End<'a> {
    fabric: &'a dyn Fabric,
    own: RegionKey,
    theirs: RegionKey,
    next: u64,
}

impl End<'_> {
    /// One read or write of `size` bytes, from its posting to its completion.
    fn once(&mut self, size: usize, get: bool) -> Outcome<()> {
        self.next += 1;
        let (op, len) = (OpId(self.next), size as u64);
        let far = RemoteSlice {
            region: self.theirs.remote(),
            offset: 0,
            len,
        };
        let near = LocalSlice {
            region: self.own.clone(),
            offset: 0,
            len,
        };
        let posted = if get {
            self.fabric.read(op, PeerId(1), far, near)
        } else {
            self.fabric.write(op, PeerId(1), near, far)
        };
        if posted != Posted::Accepted {
            return Err(format!("{posted:?}"));
        }
        let (end, mut news) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            self.fabric.poll(&mut news);
            for completion in news.drain(..) {
                match completion {
                    Completion::Done { .. } => return Ok(()),
                    Completion::Failed { reason, .. } => return Err(reason.to_string()),
                    _ => {}
                }
            }
            if Instant::now() > end {
                return Err(format!("{size} bytes were not moved in {PATIENCE:?}"));
            }
            self.fabric.wait(Duration::from_millis(100));
        }
    }
}

/// The curve of two ends of a fabric, 0 and 1, that do not know each other yet. The bytes are compared.
pub(super) fn of(ends: &[Arc<dyn Fabric>; 2]) -> Outcome<Curve> {
    let said = |error: bridgehead_fabric::FabricError| error.to_string();
    for (at, other, number) in [(0, 1, 1), (1, 0, 0)] {
        ends[at]
            .add_peer(PeerId(number), &ends[other].address())
            .map_err(said)?;
    }
    let bytes: Vec<u8> = (0..largest()).map(|at| (at % 251) as u8).collect();
    let source = Arc::new(Buffer::from_bytes(bytes.clone()));
    let buffer = Arc::new(Buffer::from_bytes(vec![0; largest()]));
    let theirs = ends[1].register(source.clone(), Access::ALL).map_err(said)?;
    let own = ends[0].register(buffer.clone(), Access::ALL).map_err(said)?;
    let mut end = End {
        fabric: &*ends[0],
        own,
        theirs,
        next: 0,
    };
    let mut curve = Curve {
        get: Vec::new(),
        put: Vec::new(),
    };
    for size in SIZES {
        curve.get.push(median(|| end.once(size, true))?);
        compare(&buffer, &bytes, size)?;
    }
    source.fill(0, &vec![0; largest()]);
    for size in SIZES {
        curve.put.push(median(|| end.once(size, false))?);
        compare(&source, &bytes, size)?;
    }
    let (own, theirs) = (end.own.clone(), end.theirs.clone());
    ends[0].deregister(&own);
    ends[1].deregister(&theirs);
    Ok(curve)
}

fn compare(buffer: &Buffer, expected: &[u8], size: usize) -> Outcome<()> {
    if buffer.bytes(0, size) == expected[..size] {
        return Ok(());
    }
    Err(format!("of {size} bytes some arrived changed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::transports::tcp_ends;

    #[test]
    fn a_curve_has_a_time_for_each_size_and_direction() {
        let curve = of(&tcp_ends().expect("fabrics on loopback")).expect("a curve");
        let plain = plain().expect("sockets");
        for times in [curve.get, curve.put, plain] {
            assert_eq!(times.len(), SIZES.len());
            assert!(times.iter().all(|time| *time > 0.0), "{times:?}");
        }
    }
}
