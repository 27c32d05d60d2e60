//! What one ELF file needs: names of libraries, and the folders that it says they are in. Owns the reading of its dynamic
//! section; finding files is `loader`'s matter.

use elf::ElfStream;
use elf::abi::{DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_SONAME, DT_STRTAB, PT_LOAD};
use elf::endian::AnyEndian;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The longest name or list of folders that is read.
const STRING_LIMIT: usize = 16 << 10;

/// What a file says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Processor and word size: libraries of others are passed over.
    pub kind: (u16, bool),
    /// Its own name as a library; empty of a program.
    pub soname: String,
    /// Libraries by name, in order.
    pub needed: Vec<String>,
    /// Folders that count for its libraries' libraries too, and before `LD_LIBRARY_PATH`. Empty where there is a `runpath`.
    pub rpath: Vec<PathBuf>,
    /// Folders for its own libraries, after `LD_LIBRARY_PATH`.
    pub runpath: Vec<PathBuf>,
}

impl Needs {
    /// Folders by which its libraries are looked for first: its own `rpath` and those of whoever needs it.
    pub fn inherits(&self, inherited: &[PathBuf]) -> Vec<PathBuf> {
        self.rpath.iter().chain(inherited).cloned().collect()
    }
}

/// None: it is no ELF file, or needs nothing.
pub(super) fn read(path: &Path) -> io::Result<Option<Needs>> {
    let file = File::open(path)?;
    let mut magic = [0_u8; 4];
    if file.read_exact_at(&mut magic, 0).is_err() || magic != *b"\x7fELF" {
        return Ok(None);
    }
    let wrong = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut stream = ElfStream::<AnyEndian, _>::open_stream(&file).map_err(wrong)?;
    let kind = (stream.ehdr.e_machine, stream.ehdr.class == elf::file::Class::ELF64);
    let loaded: Vec<_> = stream
        .segments()
        .iter()
        .filter(|segment| segment.p_type == PT_LOAD)
        .copied()
        .collect();
    let Some(table) = stream.dynamic().map_err(wrong)? else {
        return Ok(None);
    };
    let entries: Vec<_> = table.iter().map(|entry| (entry.d_tag, entry.d_val())).collect();
    let value = |tag| entries.iter().find(|(found, _)| *found == tag).map(|(_, value)| *value);
    let strings = value(DT_STRTAB).and_then(|address| {
        let holds = |start: u64, size: u64| address.checked_sub(start).is_some_and(|into| into < size);
        let segment = loaded.iter().find(|segment| holds(segment.p_vaddr, segment.p_filesz))?;
        segment.p_offset.checked_add(address - segment.p_vaddr)
    });
    let Some(strings) = strings else { return Ok(None) };
    let text = |at: u64| string(&file, strings.saturating_add(at));
    let texts = |tag| {
        entries
            .iter()
            .filter(move |(found, _)| *found == tag)
            .map(|(_, at)| text(*at))
    };
    let folders = |tag| -> io::Result<Vec<PathBuf>> {
        let lists: Vec<String> = texts(tag).collect::<io::Result<_>>()?;
        Ok(lists
            .iter()
            .flat_map(|list| list.split(':'))
            .filter_map(|folder| expand(folder, path))
            .collect())
    };
    let runpath = folders(DT_RUNPATH)?;
    let rpath = if runpath.is_empty() {
        folders(DT_RPATH)?
    } else {
        Vec::new()
    };
    let soname = value(DT_SONAME).map(text).transpose()?.unwrap_or_default();
    Ok(Some(Needs {
        kind,
        soname,
        needed: texts(DT_NEEDED).collect::<io::Result<_>>()?,
        rpath,
        runpath,
    }))
}

/// A string of the file, which ends with a zero.
fn string(file: &File, at: u64) -> io::Result<String> {
    let mut bytes = vec![0_u8; 256];
    loop {
        let count = file.read_at(&mut bytes, at)?;
        if let Some(end) = bytes[..count].iter().position(|byte| *byte == 0) {
            return Ok(String::from_utf8_lossy(&bytes[..end]).into_owned());
        }
        if count < bytes.len() || bytes.len() >= STRING_LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a name in it has no end"));
        }
        bytes.resize(bytes.len() * 4, 0);
    }
}

/// A folder of a search path, with the loader's own variables. Relative ones depend on where the program is started: left out.
fn expand(folder: &str, file: &Path) -> Option<PathBuf> {
    let real = file.canonicalize().ok()?;
    let origin = real.parent()?.to_str()?;
    let mut folder = folder.to_owned();
    for (name, value) in [
        ("ORIGIN", origin),
        ("LIB", "lib64"),
        ("PLATFORM", std::env::consts::ARCH),
    ] {
        folder = folder
            .replace(&format!("${{{name}}}"), value)
            .replace(&format!("${name}"), value);
    }
    folder.starts_with('/').then(|| PathBuf::from(folder))
}
