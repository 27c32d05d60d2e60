//! What libpmix is told: of itself, of a gang's nodes and ranks, of each rank that is here. Owns the memory of these values while
//! libpmix reads them, and the waiting for its answers.

use super::calls;
use super::library::Library;
use super::sys::{self, Data, DataArray, Info, Proc, Value};
use crate::pmix::frames::Begin;
use crate::world::{NodePart, World};
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// libpmix answers at once, or its thread hangs.
const PATIENCE: Duration = Duration::from_secs(15);

/// A list of values, with the memory of what they point to.
#[derive(Default)]
struct Infos {
    infos: Vec<Info>,
    strings: Vec<CString>,
    /// Boxes, because values point to them and the lists grow.
    arrays: Vec<(Box<DataArray>, Box<Infos>)>,
}

impl Infos {
    fn add(&mut self, key: &str, kind: u16, data: Data) -> &mut Self {
        let mut info = Info {
            key: [0; sys::MAX_KEYLEN + 1],
            flags: 0,
            value: Value { kind, data },
        };
        copy(key, &mut info.key);
        self.infos.push(info);
        self
    }

    fn number(&mut self, key: &str, number: u32) -> &mut Self {
        self.add(key, sys::UINT32, Data { uint32: number })
    }

    fn short(&mut self, key: &str, number: u32) -> &mut Self {
        // Ranks of one node: libpmix has 16 bits for them.
        self.add(
            key,
            sys::UINT16,
            Data {
                uint16: u16::try_from(number).unwrap_or(u16::MAX),
            },
        )
    }

    fn rank(&mut self, key: &str, rank: u32) -> &mut Self {
        self.add(key, sys::PROC_RANK, Data { uint32: rank })
    }

    fn flag(&mut self, key: &str) -> &mut Self {
        self.add(key, sys::BOOL, Data { flag: true })
    }

    fn text(&mut self, key: &str, text: &str) -> Result<&mut Self, String> {
        let text = CString::new(text).map_err(|_| format!("{key} has a zero byte in it"))?;
        let data = Data {
            string: text.as_ptr().cast_mut(),
        };
        self.strings.push(text);
        Ok(self.add(key, sys::STRING, data))
    }

    fn list(&mut self, key: &str, list: Infos) -> &mut Self {
        let mut list = Box::new(list);
        let array = list.infos.as_mut_ptr().cast();
        let mut array = Box::new(DataArray {
            kind: sys::INFO,
            size: list.infos.len(),
            array,
        });
        let data = Data {
            darray: &raw mut *array,
        };
        self.arrays.push((array, list));
        self.add(key, sys::DATA_ARRAY, data)
    }
}

/// Starts libpmix's server.
pub fn init(library: &Library, begin: &Begin) -> Result<(), String> {
    let mut infos = Infos::default();
    infos
        .text("pmix.srvr.tmpdir", &begin.folder)?
        .text("pmix.sys.tmpdir", &begin.folder)?;
    infos
        .text("pmix.srv.nspace", &format!("bridgehead-{}", std::process::id()))?
        .rank("pmix.srv.rank", 0);
    infos.text("pmix.hname", &begin.host)?;
    // SAFETY: libpmix copies the module and the values before it returns; both live until then.
    let status = unsafe { (library.init)(calls::module(), infos.infos.as_mut_ptr(), infos.infos.len()) };
    library.check(status, "to serve")
}

/// Makes the gang known.
pub fn register(library: &Library, world: &World, folder: &str) -> Result<(), String> {
    let mut infos = job(library, world, folder)?;
    for (at, node) in world.nodes.iter().enumerate() {
        for local in 0..node.count {
            infos.list("pmix.pdata", process(at, node, local)?);
        }
    }
    let name = CString::new(world.name.as_str()).map_err(|error| error.to_string())?;
    let (values, count) = (infos.infos.as_mut_ptr(), infos.infos.len());
    let local = world.part().count as i32;
    // SAFETY: all that is pointed to lives until `wait` has seen the answer; if that does not come it is leaked below.
    let done = wait(library, "to know the gang", |callback, data| unsafe {
        (library.register_nspace)(name.as_ptr(), local, values, count, callback, data)
    });
    if done.is_err() {
        std::mem::forget((infos, name));
    }
    done
}

fn job(library: &Library, world: &World, folder: &str) -> Result<Infos, String> {
    let (here, size) = (world.part(), world.size());
    let hosts: Vec<&str> = world.nodes.iter().map(|node| node.host.as_str()).collect();
    let ranks = |node: &NodePart| {
        (node.first..node.first + node.count)
            .map(|rank| rank.to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    let maps: Vec<String> = world.nodes.iter().map(ranks).collect();
    let mut infos = Infos::default();
    infos
        .number("pmix.univ.size", size)
        .number("pmix.job.size", size)
        .number("pmix.max.size", size);
    infos
        .number("pmix.job.napps", 1)
        .number("pmix.app.size", size)
        .number("pmix.num.nodes", hosts.len() as u32);
    infos
        .number("pmix.local.size", here.count)
        .number("pmix.node.size", here.count)
        .number("pmix.nodeid", world.here as u32);
    infos
        .rank("pmix.lldr", here.first)
        .rank("pmix.aldr", 0)
        .rank("pmix.offset", 0);
    infos
        .text("pmix.jobid", &world.name)?
        .text("pmix.lpeers", &ranks(here))?
        .text("pmix.hname", &here.host)?;
    infos.text("pmix.nmap", &generated(library, library.regex, &hosts.join(","))?)?;
    infos.text("pmix.pmap", &generated(library, library.ppn, &maps.join(";"))?)?;
    infos
        .text("pmix.tmpdir", folder)?
        .text("pmix.nsdir", folder)?
        .flag("pmix.tdir.rmclean");
    Ok(infos)
}

fn process(at: usize, node: &NodePart, local: u32) -> Result<Infos, String> {
    let rank = node.first + local;
    let mut infos = Infos::default();
    // The rank comes first: it says whose the others are.
    infos
        .rank("pmix.rank", rank)
        .rank("pmix.grank", rank)
        .rank("pmix.apprank", rank)
        .number("pmix.appnum", 0);
    infos
        .short("pmix.lrank", local)
        .short("pmix.nrank", local)
        .number("pmix.nodeid", at as u32);
    infos.text("pmix.hname", &node.host)?;
    Ok(infos)
}

/// Makes a rank that is here known; gives its variables.
pub fn client(library: &Library, name: &str, rank: u32) -> Result<Vec<String>, String> {
    let process = proc_of(name, rank);
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: libpmix copies the name and rank before it returns.
    wait(library, "to know a rank", |callback, data| unsafe {
        (library.register_client)(&raw const process, uid, gid, std::ptr::null_mut(), callback, data)
    })?;
    let mut list: *mut *mut c_char = std::ptr::null_mut();
    // SAFETY: the list begins empty and is libpmix's to allocate and fill.
    let status = unsafe { (library.setup_fork)(&raw const process, &raw mut list) };
    library.check(status, "to set up a rank")?;
    // SAFETY: on success it is a list of strings from malloc that ends with a null.
    Ok(unsafe { taken(list) })
}

/// Ends what there is of a gang.
pub fn deregister(library: &Library, name: &str) -> Result<(), String> {
    let name = CString::new(name).map_err(|error| error.to_string())?;
    // SAFETY: libpmix copies the name.
    wait(library, "to forget the gang", |callback, data| unsafe {
        (library.deregister_nspace)(name.as_ptr(), callback, data);
        sys::SUCCESS
    })
}

pub fn proc_of(name: &str, rank: u32) -> Proc {
    let mut process = Proc {
        nspace: [0; sys::MAX_NSLEN + 1],
        rank,
    };
    copy(name, &mut process.nspace);
    process
}

/// As much as has room before the zero at the end.
fn copy(text: &str, to: &mut [c_char]) {
    let room = to.len() - 1;
    to.iter_mut()
        .zip(text.bytes().take(room))
        .for_each(|(to, byte)| *to = byte as c_char);
}

fn generated(library: &Library, generate: sys::Generate, input: &str) -> Result<String, String> {
    let input = CString::new(input).map_err(|error| error.to_string())?;
    let mut made: *mut c_char = std::ptr::null_mut();
    // SAFETY: it reads the input and gives a string from malloc.
    let status = unsafe { generate(input.as_ptr(), &raw mut made) };
    library.check(status, "a map of the ranks")?;
    if made.is_null() {
        return Err("libpmix made no map of the ranks".to_owned());
    }
    // SAFETY: on success it is a string, and ours to free.
    let text = unsafe { CStr::from_ptr(made) }.to_string_lossy().into_owned();
    // SAFETY: it came from malloc and nobody else has it.
    unsafe { libc::free(made.cast()) };
    Ok(text)
}

/// The strings of a list, which is freed.
///
/// # Safety
/// It is null, or a list from malloc of strings from malloc, with a null at its end.
unsafe fn taken(list: *mut *mut c_char) -> Vec<String> {
    let mut strings = Vec::new();
    if list.is_null() {
        return strings;
    }
    for at in 0.. {
        // SAFETY: entries up to the null at the end are there.
        let string = unsafe { *list.add(at) };
        if string.is_null() {
            break;
        }
        // SAFETY: each is a string.
        strings.push(unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned());
        // SAFETY: each is from malloc and ours.
        unsafe { libc::free(string.cast()) };
    }
    // SAFETY: so is the list.
    unsafe { libc::free(list.cast()) };
    strings
}

/// Calls, and waits for the answer if one is promised.
fn wait(
    library: &Library,
    wanted: &str,
    call: impl FnOnce(sys::OpCallback, *mut c_void) -> sys::Status,
) -> Result<(), String> {
    let (answer, answered) = channel::<sys::Status>();
    let answer: *mut Sender<sys::Status> = Box::into_raw(Box::new(answer));
    let status = call(Some(done), answer.cast());
    if status != sys::SUCCESS {
        // SAFETY: no answer follows, so nobody else has the box.
        drop(unsafe { Box::from_raw(answer) });
        return library.check(status, wanted);
    }
    let status = answered
        .recv_timeout(PATIENCE)
        .map_err(|_| format!("libpmix does not answer {wanted}"))?;
    library.check(status, wanted)
}

/// The answer to what `wait` called.
unsafe extern "C" fn done(status: sys::Status, data: *mut c_void) {
    // SAFETY: it is the box of `wait`, and libpmix answers once.
    let answer = unsafe { Box::from_raw(data.cast::<Sender<sys::Status>>()) };
    // Nobody waits any more after PATIENCE.
    let _ = answer.send(status);
}
