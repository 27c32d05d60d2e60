//! A store full of objects of 64 bytes: `cargo run --release -p bridgehead-store-node --example million -- 1000000`.
//!
//! This process is the agent; one of its own puts the objects, another one takes a lease on each, all of them at once, and compares the
//! bytes. References travel through pipes, which stand for the messages of a run. Prints a line of JSON: rates, and bytes an object of
//! the index, the reader's lease table and the agent's own memory (with all objects, and after their release).

use bridgehead_spec::ObjectId;
use bridgehead_store_node::{Client, Node, NodeOptions, new_id};
use bridgehead_wire::ObjectRef;
use std::error::Error;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const LEN: usize = 64;
/// Bytes of a reference in a pipe: five words.
const REFERENCE: usize = 40;
type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["put", socket, count] => put(Path::new(socket), count.parse()?),
        ["get", socket] => get(Path::new(socket)),
        [count] => agent(count.parse()?),
        _ => Err("give the number of objects".into()),
    }
}

/// What object `number` holds.
fn content(number: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    for (at, word) in bytes.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&number.wrapping_mul(at as u64 + 1).to_le_bytes());
    }
    bytes
}

fn encode(object: &ObjectRef) -> [u8; REFERENCE] {
    let mut bytes = [0; REFERENCE];
    let words = [object.id_hi, object.id_lo, object.len, object.offset, object.slot];
    for (into, word) in bytes.chunks_exact_mut(8).zip(words) {
        into.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn decode(bytes: &[u8; REFERENCE]) -> ObjectRef {
    let word = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().expect("eight bytes"));
    let id = ObjectId(u128::from(word(0)) << 64 | u128::from(word(1)));
    ObjectRef::new(id, word(2), 0, word(3), word(4))
}

/// References from a pipe, until its end.
fn references(from: impl Read) -> impl Iterator<Item = ObjectRef> {
    let mut from = BufReader::with_capacity(1 << 16, from);
    std::iter::from_fn(move || {
        let mut bytes = [0; REFERENCE];
        from.read_exact(&mut bytes).ok()?;
        Some(decode(&bytes))
    })
}

/// The process that puts.
fn put(socket: &Path, count: u64) -> Outcome<()> {
    let client = Client::connect(socket)?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    for number in 0..count {
        let mut reservation = client.reserve(LEN)?;
        reservation.bytes().copy_from_slice(&content(number));
        let (object, _lease) = reservation.seal(new_id()?);
        out.write_all(&encode(&object))?;
    }
    out.flush()?;
    Ok(())
}

/// The process that reads; prints its rate and the bytes of its lease table.
fn get(socket: &Path) -> Outcome<()> {
    let client = Client::connect(socket)?;
    let objects: Vec<ObjectRef> = references(io::stdin().lock()).collect();
    let start = Instant::now();
    let mut leases = Vec::with_capacity(objects.len());
    for (number, object) in objects.iter().enumerate() {
        let lease = client.lease(object)?;
        if lease.bytes() != content(number as u64) {
            return Err(format!("object {number} has other bytes than were put").into());
        }
        leases.push(lease);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{} {}", objects.len() as f64 / seconds, resident("bridgehead-leases")?);
    Ok(())
}

/// Bytes that this process has of the memory file of that name.
fn resident(name: &str) -> Outcome<u64> {
    let maps = std::fs::read_to_string("/proc/self/smaps")?;
    let mut inside = false;
    let mut kib = 0;
    for line in maps.lines() {
        if line.contains('/') || line.split(' ').next().is_some_and(|word| word.contains('-')) {
            inside = line.contains(name);
        } else if let Some(figure) = line.strip_prefix("Rss:").filter(|_| inside) {
            kib += figure.trim().trim_end_matches(" kB").parse::<u64>()?;
        }
    }
    Ok(kib << 10)
}

/// Bytes of this process's own memory, shared memory left out.
fn own() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: u64 = line.ok_or("no RssAnon")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

fn start(arguments: &[&str]) -> Outcome<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command.spawn()?)
}

fn end(mut child: Child, what: &str) -> Outcome<()> {
    let status = child.wait()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the process that {what} ended with {status}").into())
    }
}

/// Publishes what the first process puts, lets the second one read it, releases it.
fn agent(count: u64) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("store.sock");
    let path = socket.to_str().ok_or("a folder with an odd name")?;
    let limit = (count * LEN as u64 + (64 << 20)).next_multiple_of(1 << 20);
    let node = Node::start(NodeOptions::new(0, folder.path(), limit))?;
    let mut objects = Vec::with_capacity(count as usize);
    objects.resize(count as usize, ObjectRef::default()); // Pages of this list are no growth of the store's.
    objects.clear();
    let (own_before, index_before) = (own()?, resident("bridgehead-index")?);

    let begin = Instant::now();
    let mut writer = start(&["put", path, &count.to_string()])?;
    for object in references(writer.stdout.take().ok_or("no pipe")?) {
        node.publish(&object)?;
        objects.push(object);
    }
    let put = objects.len() as f64 / begin.elapsed().as_secs_f64();
    end(writer, "puts")?;
    let published = node.usage().objects;
    if published as u64 != count {
        return Err(format!("{published} of {count} objects are there").into());
    }
    let each = |bytes: u64| bytes as f64 / count as f64;
    let index = each(resident("bridgehead-index")?.saturating_sub(index_before));
    let agent = each(own()?.saturating_sub(own_before));

    let (get, leases) = read(path, &objects)?;
    for object in &objects {
        node.release(object.id());
    }
    let left = node.usage().objects;
    if left > 0 {
        return Err(format!("{left} objects are there after their release").into());
    }
    let back = each(own()?.saturating_sub(own_before));
    let leases = leases / count as f64;
    println!(
        r#"{{"put": {put:.0}, "get": {get:.0}, "index": {index:.1}, "leases": {leases:.1}, "agent": {agent:.1}, "back": {back:.1}}}"#
    );
    Ok(())
}

/// The reader's rate and the bytes of its lease table.
fn read(path: &str, objects: &[ObjectRef]) -> Outcome<(f64, f64)> {
    let mut reader = start(&["get", path])?;
    let mut into = BufWriter::with_capacity(1 << 16, reader.stdin.take().ok_or("no pipe")?);
    for object in objects {
        into.write_all(&encode(object))?;
    }
    into.flush()?;
    drop(into);
    let mut said = String::new();
    reader.stdout.take().ok_or("no pipe")?.read_to_string(&mut said)?;
    end(reader, "reads")?;
    let (rate, bytes) = said.trim().split_once(' ').ok_or("the reader said nothing")?;
    Ok((rate.parse()?, bytes.parse()?))
}
