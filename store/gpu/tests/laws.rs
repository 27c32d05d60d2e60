//! One suite of laws over every memory of a device: the stand-in, CUDA over a pretended driver, and CUDA over the machine's own
//! where there is a GPU. Blocks are opened in a process of their own, as they are in use.

use bridgehead_store_gpu::{Cuda, DeviceError, DeviceMemory, Export, HostStandIn, open};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

const CAPACITY: u64 = 16 << 20;
const ORDER: &str = "GPU_TEST_OPEN";
const DRIVER: &str = "BRIDGEHEAD_CUDA";

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (i.wrapping_mul(31).wrapping_add(seed * 7) >> 2) as u8)
        .collect()
}

/// All laws, over one memory.
fn check(memory: &Arc<dyn DeviceMemory>) {
    what_is_written_is_read_back(memory);
    a_block_is_free_again_when_it_is_dropped(memory);
    what_has_no_room_is_refused_by_name(memory);
    ranges_outside_a_block_are_refused(memory);
    another_process_reads_an_exported_block(memory);
    an_exported_block_does_not_change(memory);
    many_threads_may_copy_at_once(memory);
}

fn what_is_written_is_read_back(memory: &Arc<dyn DeviceMemory>) {
    for len in [0_usize, 1, 511, 4096, 1_000_003] {
        let block = memory.allocate(len as u64).expect("room");
        assert_eq!((block.len(), block.is_empty()), (len as u64, len == 0));
        let (half, bytes) = (len / 3, pattern(1, len));
        block.write(half as u64, &bytes[half..]).expect("inside");
        block.write(0, &bytes[..half]).expect("inside");
        let mut back = vec![0; len];
        block.read(0, &mut back).expect("inside");
        assert!(
            back == bytes,
            "{len} bytes of {} are as they were written",
            memory.name()
        );
        let mut some = vec![0; len - half];
        block.read(half as u64, &mut some).expect("inside");
        assert!(some == bytes[half..], "a range is what lies there");
    }
}

fn a_block_is_free_again_when_it_is_dropped(memory: &Arc<dyn DeviceMemory>) {
    assert!(memory.capacity() > 0);
    for _ in 0..40 {
        drop(memory.allocate(CAPACITY / 4).expect("what was dropped is free again"));
    }
    let free = memory.available().expect("an answer");
    assert!(
        free <= memory.capacity() && free >= CAPACITY / 4,
        "{free} bytes are free"
    );
}

fn what_has_no_room_is_refused_by_name(memory: &Arc<dyn DeviceMemory>) {
    match memory.allocate(memory.capacity() + 1) {
        Err(DeviceError::Full { device, len, free }) => {
            assert_eq!((device, len), (memory.name(), memory.capacity() + 1));
            assert!(free <= memory.capacity());
        }
        other => panic!("{} has more than all its memory: {other:?}", memory.name()),
    }
    drop(memory.allocate(1000).expect("a refusal takes no room"));
}

fn ranges_outside_a_block_are_refused(memory: &Arc<dyn DeviceMemory>) {
    let block = memory.allocate(100).expect("room");
    for (offset, len) in [(0, 101), (100, 1), (99, 2), (u64::MAX, 1)] {
        let mut bytes = vec![0; len];
        assert!(matches!(block.read(offset, &mut bytes), Err(DeviceError::Refused(_))));
        assert!(matches!(block.write(offset, &bytes), Err(DeviceError::Refused(_))));
    }
    block.write(100, &[]).expect("nothing, at its end");
}

fn another_process_reads_an_exported_block(memory: &Arc<dyn DeviceMemory>) {
    let block = memory.allocate(300_000).expect("room");
    block.write(0, &pattern(5, 300_000)).expect("inside");
    for _ in 0..2 {
        let export = block.export().expect("it can be shared");
        let words = format!("{} 300000 5 {}", hex(&export.bytes), memory.is_stand_in());
        opened_elsewhere(&words, export.descriptor);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts `opening_process` with an order; a descriptor of an export becomes its standard input.
fn opened_elsewhere(order: &str, descriptor: Option<OwnedFd>) {
    let stdin = descriptor.map_or_else(Stdio::null, Stdio::from);
    let out = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "opening_process", "--nocapture"])
        .env(ORDER, order)
        .stdin(stdin)
        .output()
        .expect("a process");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("read it"), "{text}");
}

/// The other process of the law above: opens what it is told and reads it.
#[test]
fn opening_process() {
    let Ok(order) = std::env::var(ORDER) else {
        return; // Only a law gives it work.
    };
    let words: Vec<&str> = order.split(' ').collect();
    let [export, len, seed, stand_in] = words[..] else {
        panic!("four words");
    };
    let digits = export.as_bytes().chunks_exact(2);
    let digits = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hex"));
    let stand_in: bool = stand_in.parse().expect("a truth");
    let descriptor = stand_in.then(|| std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor"));
    let opened = open(Export {
        bytes: digits.collect(),
        descriptor,
    });
    let opened = opened.expect("it opens here");
    let len: usize = len.parse().expect("a number");
    assert_eq!((opened.len(), opened.is_empty()), (len as u64, false));
    assert_eq!(opened.is_stand_in(), stand_in);
    assert!(opened.address() != 0 && opened.ordinal() >= 0);
    let mut bytes = vec![0; len];
    opened.read(0, &mut bytes).expect("inside");
    assert!(
        bytes == pattern(seed.parse().expect("a number"), len),
        "the bytes that were written"
    );
    let mut end = vec![0; 7];
    opened.read(len as u64 - 7, &mut end).expect("inside");
    assert!(end == bytes[len - 7..] && opened.read(len as u64, &mut end).is_err());
    println!("read it");
}

fn an_exported_block_does_not_change(memory: &Arc<dyn DeviceMemory>) {
    let block = memory.allocate(10).expect("room");
    block.write(0, &[1; 10]).expect("inside");
    let export = block.export().expect("it can be shared");
    assert!(matches!(block.write(0, &[2; 10]), Err(DeviceError::Refused(_))));
    if let Some(fd) = export.descriptor {
        let written = std::fs::File::from(fd).write(&[3; 10]);
        assert!(written.is_err(), "who it was given to cannot write it either");
    }
    let mut bytes = [0; 10];
    block.read(0, &mut bytes).expect("inside");
    assert_eq!(bytes, [1; 10]);
}

fn many_threads_may_copy_at_once(memory: &Arc<dyn DeviceMemory>) {
    std::thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || {
                for round in 0..20 {
                    let bytes = pattern(seed * 100 + round, 50_000);
                    let block = memory.allocate(50_000).expect("room");
                    block.write(0, &bytes).expect("inside");
                    let mut back = vec![0; 50_000];
                    block.read(0, &mut back).expect("inside");
                    assert!(back == bytes, "threads do not see one another's bytes");
                }
            });
        }
    });
}

#[test]
fn host_memory_that_stands_in_keeps_the_laws_and_says_what_it_is() {
    let memory: Arc<dyn DeviceMemory> = Arc::new(HostStandIn::new(3, CAPACITY));
    assert_eq!(memory.name(), "host memory standing in for GPU 3");
    assert!(memory.is_stand_in() && memory.gpu() == 3 && memory.capacity() == CAPACITY);
    check(&memory);
    assert_eq!(memory.available(), Ok(CAPACITY), "all of it is free again");
}

fn pretended() -> PathBuf {
    let program = std::env::current_exe().expect("this program");
    let target = program.ancestors().nth(2).expect("target/PROFILE/deps/PROGRAM");
    target.join("examples/libpretend_cuda.so")
}

/// The laws over whatever driver this process opens, in a process of their own: the driver is opened once a process.
#[test]
fn cuda_process() {
    if std::env::var_os("GPU_TEST_CUDA").is_none() {
        return; // Only the next two tests give it work.
    }
    let memory: Arc<dyn DeviceMemory> = match Cuda::open(0) {
        Ok(cuda) => Arc::new(cuda),
        Err(error) => return println!("no GPU here: {error}"),
    };
    assert!(!memory.is_stand_in());
    check(&memory);
    let none = Cuda::open(bridgehead_store_gpu::cuda_devices().expect("there is one"));
    assert!(matches!(none, Err(DeviceError::Absent(_))), "{none:?}");
    println!("laws kept over {}", memory.name());
}

fn cuda_laws(driver: Option<&PathBuf>) -> String {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", "cuda_process", "--nocapture"])
        .env("GPU_TEST_CUDA", "1");
    match driver {
        Some(path) => command.env(DRIVER, path),
        None => command.env_remove(DRIVER),
    };
    let out = command.output().expect("a process");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    text
}

#[test]
fn cuda_keeps_the_laws_over_a_pretended_driver() {
    let said = cuda_laws(Some(&pretended()));
    assert!(said.contains("laws kept over GPU 0: Pretended GPU, by CUDA"), "{said}");
}

#[test]
fn cuda_keeps_the_laws_over_this_machines_driver() {
    let said = cuda_laws(None);
    if said.contains("no GPU here") {
        return println!("skipped, nothing was tried on a GPU: {said}");
    }
    assert!(said.contains("laws kept over"), "{said}");
}

#[test]
fn a_library_that_is_no_driver_is_refused_by_name() {
    let said = cuda_laws(Some(&PathBuf::from("/nowhere/libcuda.so.1")));
    assert!(
        said.contains("no GPU here: CUDA's driver cannot be opened: /nowhere/libcuda.so.1"),
        "{said}"
    );
}

#[test]
fn bytes_that_are_no_export_are_refused() {
    let memory = HostStandIn::new(0, CAPACITY);
    let block = memory.allocate(5000).expect("room");
    let export = || block.export().expect("it can be shared");
    for len in 0..export().bytes.len() {
        let Export { mut bytes, descriptor } = export();
        bytes.truncate(len);
        assert!(open(Export { bytes, descriptor }).is_err(), "cut off after {len} bytes");
    }
    for (at, byte) in [(0, 9), (0, 1), (5, 1), (12, 1)] {
        let Export { mut bytes, descriptor } = export();
        bytes[at] = byte;
        assert!(open(Export { bytes, descriptor }).is_err(), "byte {at} is another one");
    }
    let Export { bytes, .. } = export();
    let file = tempfile();
    file.set_len(5000).expect("room");
    let other = Export {
        bytes,
        descriptor: Some(file.into()),
    };
    assert!(open(other).is_err(), "a file that may shrink is not mapped");
}

fn tempfile() -> std::fs::File {
    let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
    fd.into()
}
