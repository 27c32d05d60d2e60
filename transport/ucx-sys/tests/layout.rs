//! The layouts are C's: sizes and offsets, as UCX 1.13's headers give them, and by a C program where a compiler and headers are there.

use bridgehead_ucx_sys::*;
use std::mem::{offset_of, size_of};
use std::path::PathBuf;
use std::process::Command;

macro_rules! layout {
    ($($c:ident = $rust:ident { $($field:ident),* })*) => {
        /// Name in C, name of the field or empty for the whole, and the number here.
        fn ours() -> Vec<(&'static str, &'static str, usize)> {
            vec![$((stringify!($c), "", size_of::<$rust>()), $((stringify!($c), stringify!($field), offset_of!($rust, $field)),)*)*]
        }
    };
}

layout! {
    ucp_params_t = Params { features, request_size, tag_sender_mask, mt_workers_shared, estimated_num_eps, estimated_num_ppn, name }
    ucp_worker_params_t = WorkerParams { thread_mode, cpu_mask, events, user_data, event_fd, flags, name, am_alignment, client_id }
    ucp_worker_attr_t = WorkerAttr { thread_mode, address_flags, address, address_length, max_am_header, name, max_debug_string }
    ucp_ep_params_t = EndpointParams { address, err_mode, err_handler, user_data, flags, sockaddr, conn_request, name, local_sockaddr }
    ucp_mem_map_params_t = MemMapParams { address, length, flags, prot, memory_type }
    ucp_request_param_t = RequestParam { flags, request, cb, datatype, user_data, reply_buffer, memory_type, recv_info, memh }
    ucp_am_recv_param_t = AmRecvParam { recv_attr, reply_ep }
    ucp_am_handler_param_t = AmHandlerParam { id, flags, cb, arg }
}

#[test]
#[cfg(target_pointer_width = "64")]
fn sizes_are_those_of_1_13() {
    let whole: Vec<usize> = ours().iter().filter(|row| row.1.is_empty()).map(|row| row.2).collect();
    assert_eq!(whole, [80, 200, 80, 104, 40, 72, 16, 32]);
    let memh = ours().iter().find(|row| row.1 == "memh").expect("a field").2;
    let cb = ours()
        .iter()
        .find(|row| (row.0, row.1) == ("ucp_am_handler_param_t", "cb"))
        .expect("a field")
        .2;
    assert_eq!((memh, cb, size_of::<Status>()), (64, 16, 1));
}

/// Folders that may hold `ucp/api/ucp.h`.
fn headers() -> Vec<PathBuf> {
    let named = std::env::var_os("BRIDGEHEAD_UCX_HEADERS").map(PathBuf::from);
    named
        .into_iter()
        .chain(["/usr/include".into(), "/usr/local/include".into()])
        .filter(|f| f.join("ucp/api/ucp.h").exists())
        .collect()
}

/// Every offset is that of the headers; a structure there may be longer.
#[test]
fn offsets_are_those_of_the_headers() {
    let Some(include) = headers().into_iter().next() else {
        return println!("skipped 1: no UCX headers (Debian: libucx-dev; or BRIDGEHEAD_UCX_HEADERS)");
    };
    let folder = tempfile::tempdir().expect("a folder");
    let lines = ours().into_iter().map(|(name, field, _)| {
        let number = if field.is_empty() {
            format!("sizeof({name})")
        } else {
            format!("offsetof({name}, {field})")
        };
        format!("  printf(\"%zu\\n\", (size_t){number});\n")
    });
    let source = format!(
        "#include <stddef.h>\n#include <stdio.h>\n#include <ucp/api/ucp.h>\nint main(void) {{\n{}  return 0;\n}}\n",
        lines.collect::<String>()
    );
    let (c, program) = (folder.path().join("layout.c"), folder.path().join("layout"));
    std::fs::write(&c, source).expect("written");
    let built = Command::new("cc")
        .arg("-I")
        .arg(&include)
        .arg(&c)
        .arg("-o")
        .arg(&program)
        .output();
    let Ok(built) = built else {
        return println!("skipped 1: no C compiler");
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let out = Command::new(&program).output().expect("it runs").stdout;
    let theirs: Vec<usize> = String::from_utf8_lossy(&out)
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    for ((name, field, here), there) in ours().into_iter().zip(theirs) {
        let fits = if field.is_empty() { here <= there } else { here == there };
        assert!(fits, "{name}.{field}: {here} here, {there} in {}", include.display());
    }
}

#[test]
fn a_file_that_is_not_there_is_named_with_the_way_out() {
    let error = Ucp::open(&candidates(Some("/nowhere/libucp.so.0".as_ref()), None)).expect_err("it is not there");
    let text = error.to_string();
    assert!(
        text.contains("/nowhere/libucp.so.0") && text.contains("BRIDGEHEAD_UCX") && text.contains("libucx0"),
        "{text}"
    );
}

#[test]
fn the_named_file_is_the_only_one_looked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let wheel = folder.path().join("libucx/lib");
    std::fs::create_dir_all(&wheel).expect("made");
    std::fs::write(wheel.join("libucp.so.0"), "").expect("written");
    let names = |named: Option<&str>| candidates(named.map(AsRef::as_ref), Some(folder.path()));
    assert_eq!(names(Some("/x/libucp.so.0")), [PathBuf::from("/x/libucp.so.0")]);
    assert_eq!(
        names(wheel.to_str()),
        [wheel.join("libucp.so.0")],
        "a folder stands for the file in it"
    );
    assert_eq!(names(None), [wheel.join("libucp.so.0"), "libucp.so.0".into()]);
}
