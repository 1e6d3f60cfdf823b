//! What a lake holds, by a reader that shares no code with its writer.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Outcome;

/// Where the install script puts Python, below the home folder.
const PYTHON: &str = ".cache/tidegate/py/bin/python";

/// The latest document of each key of an export, by the key as JSON. Chains and
/// files are checked on the way.
///
/// # Panics
///
/// If the lake is not what its manifests claim; or Python is missing.
#[must_use]
pub fn latest(root: &Path, export: &str) -> BTreeMap<String, Value> {
    let out = tempfile::NamedTempFile::new().expect("a temporary file");
    let output = Command::new(python())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/readers/lake.py"))
        .args([root, Path::new(export)])
        .arg("--latest")
        .arg(out.path())
        .output()
        .expect("Python is there; run deploy/install-deps.sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(out.path()).expect("what the reader wrote");
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON lines"));
    rows.map(|row| (row["key"].to_string(), row["document"].clone())).collect()
}

/// What `sql` gives over the view `lake` of an export: each row as an array.
///
/// # Errors
///
/// If the lake is not what its manifests claim, or the query fails.
pub fn select(root: &Path, export: &str, sql: &str) -> Outcome<Vec<Value>> {
    let mut command = Command::new(python());
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/readers/lake.py"));
    let output = command.arg(root).args([export, "--select", sql]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    // The first line is the reader's report.
    let lines = output.stdout.lines().skip(1);
    lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

/// The Python of the install script.
#[must_use]
pub fn python() -> PathBuf {
    std::env::home_dir().unwrap_or_default().join(PYTHON)
}
