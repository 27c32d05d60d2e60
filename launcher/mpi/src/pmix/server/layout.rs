//! That our declarations have the layout of libpmix's headers: a C program prints what the compiler makes of them. Skipped, with a
//! line that says so, where the headers (Debian: libpmix-dev) or a compiler are missing.

use super::sys::{DataArray, Info, Module, Proc, Value};
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = r#"
#include <pmix_server.h>
#include <stddef.h>
#include <stdio.h>
#define SAY(x) printf("%s %zu\n", #x, (size_t)(x))
int main(void) {
    SAY(sizeof(pmix_proc_t)); SAY(offsetof(pmix_proc_t, rank));
    SAY(sizeof(pmix_value_t)); SAY(offsetof(pmix_value_t, data));
    SAY(sizeof(pmix_info_t)); SAY(offsetof(pmix_info_t, flags)); SAY(offsetof(pmix_info_t, value));
    SAY(sizeof(pmix_data_array_t)); SAY(offsetof(pmix_data_array_t, size)); SAY(offsetof(pmix_data_array_t, array));
    SAY(offsetof(pmix_server_module_t, fence_nb)); SAY(offsetof(pmix_server_module_t, direct_modex));
    SAY(offsetof(pmix_server_module_t, client_connected2));
    SAY(PMIX_BOOL); SAY(PMIX_STRING); SAY(PMIX_UINT16); SAY(PMIX_UINT32); SAY(PMIX_INFO); SAY(PMIX_DATA_ARRAY);
    SAY(PMIX_PROC_RANK); SAY(PMIX_RANK_WILDCARD);
    SAY(-PMIX_OPERATION_SUCCEEDED); SAY(-PMIX_ERR_NOT_FOUND); SAY(-PMIX_ERR_NOT_SUPPORTED);
    return 0;
}
"#;

fn headers() -> Option<PathBuf> {
    let mut places = vec![PathBuf::from("/usr/include"), PathBuf::from("/usr/local/include")];
    for folder in std::fs::read_dir("/usr/lib").into_iter().flatten().flatten() {
        places.extend(["pmix2/include", "pmix/include"].map(|place| folder.path().join(place)));
    }
    places.into_iter().find(|place| place.join("pmix_server.h").is_file())
}

fn printed(include: &Path) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("layout.c"), folder.path().join("layout"));
    std::fs::write(&source, SOURCE).unwrap();
    let made = Command::new("cc")
        .arg("-I")
        .arg(include)
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .output()
        .ok()?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let out = Command::new(&program).output().unwrap();
    Some(String::from_utf8(out.stdout).unwrap())
}

#[test]
fn layouts_are_those_of_the_headers() {
    let Some(include) = headers() else {
        println!("skipped: layouts against the headers: there is no pmix_server.h, install libpmix-dev");
        return;
    };
    let Some(printed) = printed(&include) else {
        println!("skipped: layouts against the headers: there is no C compiler");
        return;
    };
    let ours = [
        size_of::<Proc>(),
        offset_of!(Proc, rank),
        size_of::<Value>(),
        offset_of!(Value, data),
        size_of::<Info>(),
        offset_of!(Info, flags),
        offset_of!(Info, value),
        size_of::<DataArray>(),
        offset_of!(DataArray, size),
        offset_of!(DataArray, array),
        offset_of!(Module, fence_nb),
        offset_of!(Module, direct_modex),
        offset_of!(Module, client_connected2),
        usize::from(super::sys::BOOL),
        usize::from(super::sys::STRING),
        usize::from(super::sys::UINT16),
        usize::from(super::sys::UINT32),
        usize::from(super::sys::INFO),
        usize::from(super::sys::DATA_ARRAY),
        usize::from(super::sys::PROC_RANK),
        super::sys::RANK_WILDCARD as usize,
        super::sys::OPERATION_SUCCEEDED.unsigned_abs() as usize,
        super::sys::ERR_NOT_FOUND.unsigned_abs() as usize,
        super::sys::ERR_NOT_SUPPORTED.unsigned_abs() as usize,
    ];
    let theirs: Vec<&str> = printed.lines().collect();
    assert_eq!(theirs.len(), ours.len());
    for (line, ours) in theirs.iter().zip(ours) {
        let (what, theirs) = line.rsplit_once(' ').unwrap();
        assert_eq!(theirs, ours.to_string(), "{what}");
    }
}
