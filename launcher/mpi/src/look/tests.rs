//! Laws of looking: what is said of a program is what the loader would do with it, and a file that is damaged is an error at
//! most. Programs of real MPIs are looked at by `tests/`.

use super::*;

#[test]
fn our_own_program_needs_no_mpi() {
    let own = std::env::current_exe().unwrap();
    assert_eq!(look_at(&own, |_| None).unwrap(), None);
    assert_eq!(loaded_by(std::process::id()), None);
}

#[test]
fn a_script_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    assert_eq!(look_at(&script, |_| None).unwrap(), None);
    assert!(matches!(
        look_at(&folder.path().join("none"), |_| None),
        Err(LookError::Read { .. })
    ));
}

#[test]
fn a_library_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (own, spoilt) = (std::env::current_exe().unwrap(), folder.path().join("spoilt"));
    let mut bytes = std::fs::read(own).unwrap();
    let at = bytes.windows(10).position(|window| window == b"libc.so.6\0").unwrap();
    bytes[at..at + 9].copy_from_slice(b"libz.so.?");
    std::fs::write(&spoilt, bytes).unwrap();
    let error = look_at(&spoilt, |_| None).unwrap_err().to_string();
    assert!(error.contains("libz.so.?") && error.contains("spoilt"), "{error}");
}

#[test]
fn names_of_mpi_are_known() {
    for (name, is) in [
        ("libmpi.so.40", true),
        ("libmpi.so.12.5.0", true),
        ("libmpich.so.12", true),
        ("libmpi.so", true),
        ("libmpi_cxx.so.40", false),
        ("libmpifort.so.12", false),
        ("libmpic.so", false),
        ("libc.so.6", false),
    ] {
        assert_eq!(is_mpi(Path::new("/x").join(name).as_path()), is, "{name}");
    }
}

/// Random changes of a right file, of a generator with a seed.
#[test]
fn damaged_files_do_no_harm() {
    let mut seed = 0x1234_5678_9abc_def1_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let right = std::fs::read("/proc/self/exe").unwrap();
    let right = &right[..right.len().min(256 << 10)];
    for _ in 0..300 {
        let mut bytes = right.to_vec();
        for _ in 0..1 + random() % 8 {
            let at = random() as usize % 1024;
            bytes[at] = random() as u8;
        }
        std::fs::write(&file, bytes).unwrap();
        // An answer or an error; it came back, and that is the law.
        let _ = look_at(&file, |_| None);
    }
}
