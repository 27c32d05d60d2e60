//! What a source file must be: opened by a sentence of what it owns, not endless, and free of `unsafe` unless its crate is on
//! the list.

/// Crates that may hold `unsafe` code, by folder, each with what it needs it for.
const UNSAFE: &[(&str, &str)] = &[
    ("benchmarks/micro/", "counts allocations"),
    ("launcher/agent/", "clone3, pidfd and pipes of new processes"),
    ("launcher/c/", "pointers that C and Fortran give"),
    ("launcher/mpi/examples/", "descriptors that ranks inherit"),
    ("launcher/mpi/src/leftovers.rs", "asks the kernel who uses a file"),
    (
        "launcher/mpi/src/pmix/server/",
        "libpmix, in a process of its own, opened at run time",
    ),
    ("launcher/python/", "buffers that the interpreter lends"),
    (
        "store/gpu/",
        "the driver's library, and shared memory that stands in for a GPU's",
    ),
    ("store/node/", "shared memory"),
    ("transport/fabric/", "regions of memory that the network writes into"),
    ("transport/tcp/", "receives straight into regions"),
    ("transport/ucx/", "the C library behind it"),
    ("transport/ucx-sys/", "declarations of a C library"),
];

/// A file longer than this has more than one thing to say.
const LONGEST: usize = 600;

/// What a file breaks: `path` relative to the repository, with its text.
#[must_use]
pub fn violations(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let rust = path.ends_with(".rs");
    if rust && !text.starts_with("//!") || !rust && !opens_with_docstring(text) {
        wrong.push(format!("{path} does not open by saying what it owns"));
    }
    let lines = text.lines().count();
    if lines > LONGEST {
        wrong.push(format!("{path} has {lines} lines, {LONGEST} are the limit"));
    }
    let may = UNSAFE.iter().any(|(folder, _)| path.starts_with(folder));
    if rust && !may && has_word(&code_of(text), "unsafe") {
        wrong.push(format!("{path} has unsafe code, its crate is not on the list"));
    }
    wrong
}

fn opens_with_docstring(text: &str) -> bool {
    let first = text
        .lines()
        .find(|line| !line.starts_with('#') && !line.trim().is_empty());
    first.is_none_or(|line| line.starts_with("\"\"\"") || line.starts_with("r\"\"\""))
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|w| w == word)
}

/// Rust text without its comments and strings, so that words in them are not taken for code.
fn code_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = skip(rest);
        if skipped > 0 {
            out.push(' ');
            rest = &rest[skipped..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// Bytes of the comment, string or character that `rest` begins with; 0 if it begins with code.
fn skip(rest: &str) -> usize {
    let until = |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    if rest.starts_with("//") {
        return until(2, "\n");
    }
    if rest.starts_with("/*") {
        return until(2, "*/");
    }
    if let Some(raw) = rest.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            return until(hashes + 2, &format!("\"{}", "#".repeat(hashes)));
        }
    }
    if let Some(inside) = rest.strip_prefix('"') {
        let mut escaped = false;
        let end = inside.find(|c| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        return end.map_or(rest.len(), |at| at + 2);
    }
    // A quote that is a character, not a string's beginning.
    ["'\"'", "'\\\"'"]
        .iter()
        .find(|quote| rest.starts_with(**quote))
        .map_or(0, |quote| quote.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this path and text gives complaints that contain these words.
    fn check(path: &str, text: &str, complaints: &[&str]) {
        let found = violations(path, text);
        assert_eq!(found.len(), complaints.len(), "{found:?}");
        for (found, expected) in found.iter().zip(complaints) {
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn a_file_opens_by_saying_what_it_owns() {
        check("a.rs", "//! Owns.\nfn f() {}\n", &[]);
        check("a.rs", "fn f() {}\n", &["does not open"]);
        check("a.py", "#!/usr/bin/env python3\n\"\"\"Owns.\"\"\"\n", &[]);
        check("a.py", "import os\n", &["does not open"]);
        check("a.py", "", &[]);
    }

    #[test]
    fn a_file_has_an_end() {
        let long = format!("//! Owns.\n{}", "\n".repeat(LONGEST));
        check("a.rs", &long, &["601 lines"]);
        check("a.rs", &long[..long.len() - 1], &[]);
        check(
            "a.py",
            &format!("\"\"\"Owns.\"\"\"\n{}", "\n".repeat(LONGEST)),
            &["601 lines"],
        );
    }

    #[test]
    fn unsafe_code_needs_a_place_on_the_list() {
        let code = "//! Owns.\nfn f() { unsafe { g() } }\n";
        check("launcher/plan/src/lib.rs", code, &["unsafe code"]);
        check("launcher/agent/src/spawn.rs", code, &[]);
    }

    #[test]
    fn the_word_in_comments_and_strings_is_no_code() {
        for code in [
            "// unsafe",
            "/* unsafe */",
            "let a = \"unsafe \\\" unsafe\";",
            "let a = r#\"unsafe \" unsafe\"#;",
            "let a = '\"'; // unsafe \"",
            "#![deny(unsafe_code)]",
        ] {
            check("a.rs", &format!("//! Owns.\n{code}\n"), &[]);
        }
        check("a.rs", "//! Owns.\nlet a = \"x\"; unsafe {}\n", &["unsafe code"]);
    }
}
