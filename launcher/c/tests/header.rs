//! The header that people get is what the code says. `BRIDGEHEAD_WRITE=1 cargo test -p bridgehead-c --test header` writes it.

use std::path::Path;

#[test]
fn the_header_is_what_the_code_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).expect("the options are read");
    let sources = ["status", "types", "store", "names", "array"];
    let builder = cbindgen::Builder::new().with_config(config);
    let builder = sources.iter().fold(builder, |builder, name| {
        builder.with_src(folder.join(format!("src/{name}.rs")))
    });
    let mut header = Vec::new();
    builder.generate().expect("a header").write(&mut header);
    let header = String::from_utf8(header).expect("text");
    let path = folder.join("include/bridgehead.h");
    if std::env::var_os("BRIDGEHEAD_WRITE").is_some() {
        std::fs::write(&path, &header).expect("the header can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == header,
        "{} is not what the code says: write it anew",
        path.display()
    );
}
