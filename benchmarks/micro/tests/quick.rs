//! The benchmark runs, whole, in its quick form, and says the same as a table and as JSON. Nothing is said about time.

use std::process::Command;

fn micro(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_micro"))
        .args(arguments)
        .output()
        .expect("the benchmark was built with this test")
}

#[test]
fn a_quick_run_measures_everything_and_judges_nothing() {
    let folder = tempfile::tempdir().expect("the temporary folder is there");
    let path = folder.path().join("rows.json");
    let out = micro(&["--quick", "--json", path.to_str().expect("the path is text")]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let table = String::from_utf8(out.stdout).expect("a table is text");
    let text = std::fs::read_to_string(&path).expect("the rows were written");
    let document: serde_json::Value = serde_json::from_str(&text).expect("the rows are JSON");
    assert_eq!(document["quick"], true);
    let rows = document["rows"].as_array().expect("there is a list of rows");
    for group in [
        "engine: assignments",
        "engine: cost",
        "engine: memory",
        "journal: append",
        "frame: decode",
        "manifest: 10000 ranks",
    ] {
        let named = |row: &&serde_json::Value| row["name"].as_str().is_some_and(|name| name.starts_with(group));
        assert!(rows.iter().any(|row| named(&row)), "{group} is measured");
    }
    for row in rows {
        let name = row["name"].as_str().expect("a row has a name");
        assert!(
            row["value"].as_f64().is_some_and(|value| value > 0.0),
            "{name} has a figure"
        );
        assert!(row.get("met").is_none(), "{name} is not judged");
        assert!(table.contains(name), "{name} stands in the table");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_that_names_it() {
    let out = micro(&["--quick", "--only", "frame", "--json", "/nowhere/rows.json"]);
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("/nowhere/rows.json"));
}
