//! Compares the fabric with plain blocking sockets on loopback, in one run: `cargo run --release -p bridgehead-tcp --example compare`.
//!
//! Prints the median of `ROUNDS` rounds each: a read of 64 MiB against a blocking copy of 64 MiB, and a request of 1 KiB with an answer
//! of 1 KiB against a ping-pong of 1 KiB. Names of integrities as arguments choose among them. Both ends run in one process with a thread each, as two agents would.

use bridgehead_fabric::{Access, Buffer, Completion, Fabric, LocalSlice, OpId, PeerId, Posted, RemoteSlice};
use bridgehead_tcp::{Integrity, Options, TcpFabric};
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: usize = 15;
const LARGE: usize = 64 << 20;
const SMALL: usize = 1 << 10;
const TRIPS: u32 = 2000;
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((LOCAL, 0)).expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
    let (far, _) = listener.accept().expect("a connection");
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("a socket");
    }
    (near, far)
}

/// Blocking sockets: the far side answers each request of 1 KiB with `LARGE` or 1 KiB.
struct Plain {
    near: TcpStream,
    far: std::thread::JoinHandle<()>,
    room: Vec<u8>,
}

impl Plain {
    fn start() -> Self {
        let (near, mut far) = sockets();
        let far = std::thread::spawn(move || {
            let source = vec![7_u8; LARGE];
            let mut request = [0; SMALL];
            while far.read_exact(&mut request).is_ok() {
                let size = if request[0] == 1 { LARGE } else { SMALL };
                far.write_all(&source[..size]).expect("the near side reads");
            }
        });
        Self {
            near,
            far,
            room: vec![0; LARGE],
        }
    }

    fn get(&mut self, size: usize) {
        let mut request = [0; SMALL];
        request[0] = u8::from(size == LARGE);
        self.near.write_all(&request).expect("the far side reads");
        self.near
            .read_exact(&mut self.room[..size])
            .expect("the far side writes");
    }

    fn end(self) {
        drop(self.near);
        self.far.join().expect("no panic");
    }
}

/// Two fabrics; the far one is served by a thread that waits, as a store's is.
struct Pair {
    near: Arc<TcpFabric>,
    stop: Arc<AtomicBool>,
    far: Arc<TcpFabric>,
    server: Option<std::thread::JoinHandle<()>>,
    from: RemoteSlice,
    into: LocalSlice,
    next: u64,
}

impl Pair {
    fn start(integrity: Integrity) -> Self {
        let start = |number| {
            let mut options = Options::new(number, [7; 32], LOCAL);
            options.integrity = integrity;
            Arc::new(TcpFabric::start(options).expect("a fabric"))
        };
        let (near, far) = (start(0), start(1));
        near.add_peer(PeerId(1), &far.address()).expect("its address");
        far.add_peer(PeerId(0), &near.address()).expect("its address");
        let source = far
            .register(Arc::new(Buffer::from_bytes(vec![7; LARGE])), Access::REMOTE_READ)
            .expect("memory");
        let copy = near
            .register(Arc::new(Buffer::from_bytes(vec![1; LARGE])), Access::LOCAL_WRITE)
            .expect("memory");
        let stop = Arc::new(AtomicBool::new(false));
        let server = Some(Self::serve(far.clone(), stop.clone()));
        let from = RemoteSlice {
            region: source.remote(),
            offset: 0,
            len: LARGE as u64,
        };
        let into = LocalSlice {
            region: copy,
            offset: 0,
            len: LARGE as u64,
        };
        Self {
            near,
            stop,
            far,
            server,
            from,
            into,
            next: 0,
        }
    }

    fn serve(far: Arc<TcpFabric>, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let mut news = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                far.wait(Duration::from_secs(1));
                far.poll(&mut news);
                for completion in news.drain(..) {
                    if let Completion::Message { peer, message } = completion {
                        assert_eq!(far.send(peer, message), Posted::Accepted);
                    }
                }
            }
        })
    }

    fn news(&self) -> Completion {
        let mut news = Vec::new();
        while self.near.poll(&mut news) == 0 {
            self.near.wait(Duration::from_secs(1));
        }
        news.remove(0)
    }

    fn get(&mut self, size: usize) {
        self.next += 1;
        let op = OpId(self.next);
        let from = RemoteSlice {
            len: size as u64,
            ..self.from.clone()
        };
        let into = LocalSlice {
            len: size as u64,
            ..self.into.clone()
        };
        assert_eq!(self.near.read(op, PeerId(1), from, into), Posted::Accepted);
        assert_eq!(self.news(), Completion::Done { op });
    }

    fn ask(&self, request: &Bytes) {
        assert_eq!(self.near.send(PeerId(1), request.clone()), Posted::Accepted);
        let answer = self.news();
        assert!(matches!(answer, Completion::Message { message, .. } if message.len() == SMALL));
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.far.wake();
        if let Some(server) = self.server.take() {
            server.join().expect("no panic");
        }
    }
}

fn timed(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn trips(mut trip: impl FnMut()) -> f64 {
    timed(|| (0..TRIPS).for_each(|_| trip())) / f64::from(TRIPS)
}

struct Row {
    name: &'static str,
    large: Vec<f64>,
    read: Vec<f64>,
    message: Vec<f64>,
}

fn main() {
    let mut kinds = vec![
        ("mac", Integrity::Mac),
        ("crc32c", Integrity::Crc32c),
        ("encrypt", Integrity::Encrypt),
    ];
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    kinds.retain(|(name, _)| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name));
    let row = |name| Row {
        name,
        large: Vec::new(),
        read: Vec::new(),
        message: Vec::new(),
    };
    let mut rows: Vec<Row> = std::iter::once("plain")
        .chain(kinds.iter().map(|(name, _)| *name))
        .map(row)
        .collect();
    let request = Bytes::from(vec![0_u8; SMALL]);
    let mut plain = Plain::start();
    let mut pairs: Vec<Pair> = kinds.iter().map(|(_, integrity)| Pair::start(*integrity)).collect();
    for round in 0..=ROUNDS {
        let mut times = vec![(timed(|| plain.get(LARGE)), trips(|| plain.get(SMALL)), 0.0)];
        for pair in &mut pairs {
            let large = timed(|| pair.get(LARGE));
            times.push((large, trips(|| pair.get(SMALL)), trips(|| pair.ask(&request))));
        }
        times[0].2 = times[0].1;
        // The first round warms memory and connections up.
        for (row, (large, read, message)) in rows.iter_mut().zip(times).filter(|_| round > 0) {
            row.large.push(large);
            row.read.push(read);
            row.message.push(message);
        }
    }
    plain.end();
    pairs.into_iter().for_each(Pair::end);
    print(&rows);
}

fn print(rows: &[Row]) {
    println!(
        "{:10} {:>12} {:>9} {:>13} {:>9} {:>16} {:>9}",
        "", "64 MiB GB/s", "of plain", "1 KiB read us", "x plain", "1 KiB answer us", "x plain"
    );
    let base = [&rows[0].large, &rows[0].read, &rows[0].message].map(|times| median(times.clone()));
    for row in rows {
        let [large, read, message] = [&row.large, &row.read, &row.message].map(|times| median(times.clone()));
        println!(
            "{:10} {:12.2} {:9.2} {:13.1} {:9.2} {:16.1} {:9.2}",
            row.name,
            LARGE as f64 / large / 1e9,
            base[0] / large,
            read * 1e6,
            read / base[1],
            message * 1e6,
            message / base[2]
        );
    }
}
