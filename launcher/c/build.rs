//! Gives the shared library the name by which programs find it at run time. Owns nothing else.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libbridgehead.so.0");
}
