//! Laws of bundles: equal files, equal bytes; what travels and what does not; what is refused when one is taken apart.

use super::*;
use crate::unpack;
use flate2::Compression;
use std::fs;
use tempfile::TempDir;

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A run folder and a project.
struct Places {
    run: TempDir,
    project: TempDir,
}

impl Places {
    fn new(project_files: &[&str]) -> Self {
        let places = Self {
            run: TempDir::new().unwrap(),
            project: TempDir::new().unwrap(),
        };
        for name in [
            "run.json",
            "spec.json",
            "blobs/abc",
            "launches/1.json",
            "journal/000001.bhj",
            "results/1.bhv",
        ] {
            write(&places.run.path().join(name), name);
        }
        for name in project_files {
            write(&places.project.path().join(name), name);
        }
        places
    }

    fn pack(&self) -> Vec<u8> {
        pack(&RunFolder::new(self.run.path()), Some(self.project.path())).unwrap()
    }
}

/// The files below a folder, by name.
fn files(root: &Path) -> Vec<String> {
    let walk = WalkBuilder::new(root)
        .standard_filters(false)
        .sort_by_file_path(Ord::cmp)
        .build();
    walk.map(Result::unwrap)
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.path().strip_prefix(root).unwrap().display().to_string())
        .collect()
}

/// A bundle of one entry, made as an attacker would.
fn crafted(name: &str, kind: EntryType, size: u64, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    let raw = &mut header.as_old_mut().name;
    raw[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    if kind.is_symlink() || kind.is_hard_link() {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_cksum();
    let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    tar.append(&header, data).unwrap();
    tar.into_inner().unwrap().finish().unwrap()
}

#[test]
fn equal_files_give_equal_bytes_whenever_and_in_whatever_order_they_were_written() {
    let one = Places::new(&["a.py", "b/c.py", "z.txt"]);
    let other = Places::new(&["z.txt", "b/c.py", "a.py"]);
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    fs::File::open(other.project.path().join("a.py"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    assert_eq!(one.pack(), other.pack());
    write(&other.project.path().join("a.py"), "other");
    assert_ne!(one.pack(), other.pack());
}

#[test]
fn a_bundle_brings_run_and_project_to_another_place() {
    let from = Places::new(&["a.py", "pkg/b.py"]);
    let program = from.project.path().join("solver.sh");
    write(&program, "#!/bin/sh");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let to = TempDir::new().unwrap();
    let (run, project) = (to.path().join("run"), to.path().join("project"));
    unpack(&from.pack(), &run, &project).unwrap();
    assert_eq!(files(&run), files(from.run.path()));
    assert_eq!(files(&project), ["a.py", "pkg/b.py", "solver.sh"]);
    assert_eq!(
        fs::metadata(project.join("solver.sh")).unwrap().permissions().mode() & 0o111,
        0o111
    );
    assert_eq!(fs::read_to_string(run.join("results/1.bhv")).unwrap(), "results/1.bhv");
}

#[test]
fn what_is_no_code_stays_behind() {
    let places = Places::new(&[
        "kept.py",
        ".hidden",
        ".git/config",
        "pkg/__pycache__/x.py",
        "x.pyc",
        "env/pyvenv.cfg",
        "env/lib/y.py",
        "data/big.npy",
        "data/kept.txt",
        "secret.key",
        "deep/also.log",
    ]);
    write(&places.project.path().join(".gitignore"), "*.log\n");
    write(&places.project.path().join(IGNORE_FILE), "secret.key\ndata/*.npy\n");
    let huge = fs::File::create(places.project.path().join("huge.bin")).unwrap();
    huge.set_len(FILE_MOST + 1).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", places.project.path().join("link.py")).unwrap();
    let to = TempDir::new().unwrap();
    unpack(&places.pack(), &to.path().join("run"), &to.path().join("project")).unwrap();
    assert_eq!(files(&to.path().join("project")), ["data/kept.txt", "kept.py"]);
}

#[test]
fn a_run_folder_inside_the_project_does_not_travel_twice_and_tickets_never() {
    let project = TempDir::new().unwrap();
    let run = project.path().join("runs/r1");
    write(&project.path().join("a.py"), "a");
    write(&run.join("run.json"), "{}");
    write(&run.join("tls/agent-1.json"), "secret");
    let bundle = pack(&RunFolder::new(&run), Some(project.path())).unwrap();
    let to = TempDir::new().unwrap();
    unpack(&bundle, &to.path().join("run"), &to.path().join("project")).unwrap();
    assert_eq!(files(to.path()), ["project/a.py", "run/run.json"]);
}

#[test]
fn a_project_that_is_too_large_is_refused_with_its_largest_files_and_the_way_out() {
    let places = Places::new(&["small.py"]);
    for number in 0..20 {
        let file = fs::File::create(places.project.path().join(format!("data-{number}.bin"))).unwrap();
        file.set_len(FILE_MOST - number).unwrap();
    }
    let error = pack(&RunFolder::new(places.run.path()), Some(places.project.path()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("data-0.bin") && error.contains(IGNORE_FILE), "{error}");
    assert!(!error.contains("small.py"), "{error}");
}

#[test]
fn what_is_there_may_be_newer_and_stays_except_what_belongs_to_the_launch() {
    let from = Places::new(&["a.py"]);
    let to = TempDir::new().unwrap();
    for name in ["run.json", "spec.json", "launches/1.json", "journal/000001.bhj"] {
        write(&to.path().join("run").join(name), "newer");
    }
    write(&to.path().join("project/a.py"), "older");
    unpack(&from.pack(), &to.path().join("run"), &to.path().join("project")).unwrap();
    let now = |name: &str| fs::read_to_string(to.path().join(name)).unwrap();
    assert_eq!(
        (&*now("run/spec.json"), &*now("run/journal/000001.bhj")),
        ("newer", "newer")
    );
    assert_eq!(
        (&*now("run/run.json"), &*now("run/launches/1.json")),
        ("run.json", "launches/1.json")
    );
    assert_eq!(now("project/a.py"), "a.py");
}

#[test]
fn nothing_is_written_elsewhere_and_no_entry_is_anything_but_a_file() {
    let plain = EntryType::Regular;
    for (name, kind) in [
        ("../escaped", plain),
        ("/escaped", plain),
        ("project/../../escaped", plain),
        ("run/../escaped", plain),
        ("run/tls/agent-1.json", plain),
        ("run/escaped", plain),
        ("run/blobs/a/b", plain),
        ("run/blobs/.a", plain),
        ("project", plain),
        ("other/x", plain),
        ("project/link", EntryType::Symlink),
        ("project/link", EntryType::Link),
        ("run/blobs/device", EntryType::Char),
        ("project/pipe", EntryType::Fifo),
        ("project/folder", EntryType::Directory),
    ] {
        let to = TempDir::new().unwrap();
        let inside = to.path().join("inside");
        let bundle = crafted(name, kind, 0, b"");
        let error = unpack(&bundle, &inside.join("run"), &inside.join("project")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name}: {error}");
        assert!(files(to.path()).is_empty(), "{name}: {:?}", files(to.path()));
    }
}

#[test]
fn a_link_that_lies_in_the_project_leads_nowhere() {
    let (to, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::create_dir(to.path().join("project")).unwrap();
    std::os::unix::fs::symlink(outside.path(), to.path().join("project/pkg")).unwrap();
    let bundle = crafted("project/pkg/x", EntryType::Regular, 1, b"x");
    assert!(unpack(&bundle, &to.path().join("run"), &to.path().join("project")).is_err());
    assert!(files(outside.path()).is_empty());
}

#[test]
fn bombs_and_damage_are_refused() {
    let to = TempDir::new().unwrap();
    let refused = |bytes: &[u8]| {
        unpack(bytes, &to.path().join("run"), &to.path().join("project"))
            .unwrap_err()
            .to_string()
    };
    let bomb = crafted("project/bomb", EntryType::Regular, ALL_MOST + 1, b"");
    assert!(refused(&bomb).contains("bytes"));
    let cut = crafted("project/cut", EntryType::Regular, 1 << 20, b"only this");
    refused(&cut);
    let whole = Places::new(&["a.py"]).pack();
    refused(&whole[..whole.len() / 2]);
    refused(b"no bundle at all");
    assert!(
        files(to.path())
            .iter()
            .all(|name| !name.contains("bomb") && !name.contains("cut"))
    );
}

#[test]
fn pieces_are_put_together_in_order_and_a_gap_is_named() {
    let dir = TempDir::new().unwrap();
    assert!(read_parts(dir.path()).unwrap_err().to_string().contains("no part"));
    let bytes: Vec<u8> = (0..=255).cycle().take(1050).collect();
    let parts = split(&bytes, 100);
    assert!(parts.iter().all(|part| part.len() <= 100));
    fs::create_dir(dir.path().join("..data")).unwrap(); // As a mounted Secret has it.
    for (number, part) in parts.iter().enumerate() {
        let file = dir.path().join(format!("..data/part-{number:03}"));
        fs::write(&file, part).unwrap();
        std::os::unix::fs::symlink(&file, dir.path().join(format!("part-{number:03}"))).unwrap();
    }
    assert_eq!(read_parts(dir.path()).unwrap(), bytes);
    fs::remove_file(dir.path().join("part-003")).unwrap();
    assert!(read_parts(dir.path()).unwrap_err().to_string().contains("part-003"));
}
