//! Compares the fabric with UCX's own `ucx_perftest` for the same operation over the same lane, in one run:
//! `cargo run --release -p bridgehead-ucx --example perftest -- LIBUCP UCX_PERFTEST`.
//!
//! Prints for each lane, operation and size the median of `ROUNDS` rounds taken in turns, one operation at a time. Without RDMA the fabric moves
//! bytes by messages, so that it is compared with UCX's active messages: up to `SMALL` bytes with a message there and one back (`ucp_am_lat`),
//! above with messages of that size sent without a break (`ucp_am_bw`), eagerly, which nobody answers. Those have no code and are not copied to a
//! place. With `--one-sided` it is compared with UCX's gets and puts, which UCX emulates here; a put of the fabric is over when the bytes are
//! in the peer's memory, each of `ucx_perftest` when its source is free. `ucx_perftest` has a process for each end, the fabric's two ends are here, with
//! a thread each. `ucx_perftest` of UCX 1.13 sleeps at the far end between operations over TCP.

use bridgehead_fabric::{Access, Buffer, Completion, Fabric, LocalSlice, OpId, PeerId, Posted, RegionKey, RemoteSlice};
use bridgehead_ucx::{Moving, Options, UcxFabric};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const SIZES: [usize; 4] = [8, 64 << 10, 1 << 20, 16 << 20];
/// Lane, `UCX_TLS`, devices.
const LANES: [(&str, &str, Option<&str>); 2] = [("tcp", "tcp", Some("lo")), ("shared memory", "posix,sysv,self", None)];
const OPERATIONS: [&str; 2] = ["get", "put"];
/// Up to here the way there and back is what counts.
const SMALL: usize = 8;

/// What of `ucx_perftest` does the same, and how often.
fn same(moving: Moving, operation: &str, size: usize) -> (&'static str, f64) {
    match (moving, operation) {
        (Moving::OneSided, "get") => ("ucp_get", 1.0),
        (Moving::OneSided, _) => ("ucp_put_bw", 1.0),
        (Moving::Messages, _) if size <= SMALL => ("ucp_am_lat", 2.0),
        (Moving::Messages, _) => ("ucp_am_bw", 1.0),
    }
}

/// Operations of a round: about 64 MiB, or a thousand.
fn count(size: usize) -> usize {
    ((64 << 20) / size).clamp(4, 1000)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

struct Ends {
    fabrics: [Arc<UcxFabric>; 2],
    own: RegionKey,
    theirs: RegionKey,
    next: u64,
}

impl Ends {
    fn start(library: &Path, (_, transports, devices): (&str, &str, Option<&str>), moving: Moving) -> Self {
        let fabrics = [0, 1].map(|number| {
            let mut options = Options::new(number, [0; 32], vec![library.to_owned()]);
            options.transports = Some(transports.to_owned());
            options.devices = devices.map(ToOwned::to_owned);
            options.moving = moving;
            Arc::new(UcxFabric::start(options).expect("a fabric over UCX"))
        });
        fabrics[0]
            .add_peer(PeerId(1), &fabrics[1].address())
            .expect("an address");
        fabrics[1]
            .add_peer(PeerId(0), &fabrics[0].address())
            .expect("an address");
        let register = |at: usize| {
            let buffer = Arc::new(Buffer::from_bytes(vec![1; SIZES[SIZES.len() - 1]]));
            fabrics[at].register(buffer, Access::ALL).expect("registered")
        };
        let (own, theirs) = (register(0), register(1));
        Self {
            fabrics,
            own,
            theirs,
            next: 0,
        }
    }

    fn once(&mut self, get: bool, size: usize) {
        self.next += 1;
        let (op, len, near) = (OpId(self.next), size as u64, &self.fabrics[0]);
        let far = RemoteSlice {
            region: self.theirs.remote(),
            offset: 0,
            len,
        };
        let local = LocalSlice {
            region: self.own.clone(),
            offset: 0,
            len,
        };
        let posted = if get {
            near.read(op, PeerId(1), far, local)
        } else {
            near.write(op, PeerId(1), local, far)
        };
        assert_eq!(posted, Posted::Accepted);
        let mut news = Vec::new();
        while near.poll(&mut news) == 0 {
            near.wait(Duration::from_secs(10));
        }
        assert_eq!(news, [Completion::Done { op }]);
    }

    /// Seconds an operation.
    fn round(&mut self, get: bool, size: usize) -> f64 {
        for _ in 0..3 {
            self.once(get, size);
        }
        let start = Instant::now();
        for _ in 0..count(size) {
            self.once(get, size);
        }
        start.elapsed().as_secs_f64() / f64::from(u32::try_from(count(size)).expect("few"))
    }
}

/// Seconds an operation, by `ucx_perftest` with the fabric's settings.
fn theirs(library: &Path, program: &Path, lane: (&str, &str, Option<&str>), operation: &str, size: usize) -> f64 {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a port")
        .port()
        .to_string();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(["-p", &port])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command.env("UCX_TLS", lane.1).env("UCX_MM_ERROR_HANDLING", "y");
        command
            .env("UCX_TCP_TX_SEG_SIZE", "512k")
            .env("UCX_TCP_RX_SEG_SIZE", "512k");
        if operation.starts_with("ucp_am") {
            command.env("UCX_RNDV_THRESH", "inf");
        }
        if let Some(folder) = library.parent() {
            command.env("LD_LIBRARY_PATH", folder);
        }
        if let Some(devices) = lane.2 {
            command.env("UCX_NET_DEVICES", devices);
        }
        command
    };
    let mut server = command(&[]).stdout(Stdio::null()).spawn().expect("ucx_perftest starts");
    let (size, count) = (size.to_string(), count(size).to_string());
    let arguments = [
        "127.0.0.1",
        "-e",
        "-t",
        operation,
        "-s",
        &size,
        "-n",
        &count,
        "-w",
        "3",
        "-O",
        "1",
        "-f",
        "-v",
    ];
    let end = Instant::now() + Duration::from_secs(20);
    let figure = loop {
        let out = command(&arguments).output().expect("ucx_perftest starts");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let last = text
            .lines()
            .last()
            .and_then(|line| line.split(',').nth(3)?.trim().parse::<f64>().ok());
        match last {
            Some(micros) => break micros / 1e6,
            // The server may not listen yet.
            None => assert!(Instant::now() < end, "ucx_perftest says: {text}"),
        }
    };
    server.wait().expect("the server ends with its client");
    figure
}

#[allow(clippy::cast_precision_loss)] // Figures for people.
fn main() {
    let (flags, files): (Vec<_>, Vec<_>) = std::env::args_os().skip(1).partition(|given| given == "--one-sided");
    let moving = if flags.is_empty() {
        Moving::Messages
    } else {
        Moving::OneSided
    };
    let mut arguments = files.into_iter().map(PathBuf::from);
    let (Some(library), Some(program)) = (arguments.next(), arguments.next()) else {
        eprintln!("give the file libucp.so.0 and the program ucx_perftest of the same release");
        std::process::exit(2);
    };
    println!(
        "{:<14} {:<4} {:>9} {:>12} {:>12} {:>10} {:>6}",
        "lane", "op", "bytes", "ucx_perftest", "fabric", "GB/s", "ratio"
    );
    for lane in LANES {
        let mut ends = Ends::start(&library, lane, moving);
        for operation in OPERATIONS {
            for size in SIZES {
                let (name, times) = same(moving, operation, size);
                let rounds = (0..ROUNDS).map(|_| {
                    (
                        times * theirs(&library, &program, lane, name, size),
                        ends.round(operation == "get", size),
                    )
                });
                let (theirs, ours): (Vec<f64>, Vec<f64>) = rounds.unzip();
                let (theirs, ours) = (median(theirs), median(ours));
                let speed = size as f64 / ours / 1e9;
                println!(
                    "{:<14} {operation:<4} {size:>9} {:>9.1} us {:>9.1} us {speed:>10.2} {:>6.2}",
                    lane.0,
                    theirs * 1e6,
                    ours * 1e6,
                    theirs / ours
                );
            }
        }
    }
}
