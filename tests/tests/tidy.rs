//! The house rules that a reader of text can check.
//!
//! METHOD: reads every Rust file of the workspace and `Cargo.lock`. Each rule is
//! a function from text to complaints; one test applies it to the tree, another
//! to a sample that breaks it.

#![allow(clippy::unwrap_used, reason = "a tree that cannot be read fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file above its tests.
const FILE_LINES_MAX: usize = 400;
/// Lines of tests inside a source file; longer ones go to `x/tests.rs`.
const TEST_LINES_MAX: usize = 200;

/// Modules of `node/src`, lowest first: a module imports from lower lines only.
/// `lib` and `main` stand above all.
const RANKS: [&[&str]; 15] = [
    &["asked", "clock", "error"],
    &["telemetry", "task", "tls", "watchdog"],
    &["config", "change", "retry"],
    &["sources", "sinks", "auth"],
    &["control", "spool"],
    &["exchange"],
    &["placement", "checkpoint", "schema", "dlq", "transform"],
    &["shard"],
    &["reconcile", "window"],
    &["admin", "feed", "simulation"],
    &["console"],
    &["server"],
    &["documents"],
    &["node"],
    &["dev"],
];

/// Packages that would bring a second TLS library, or C code that we do not want.
const BANNED: [&str; 3] = ["openssl", "openssl-sys", "aws-lc-sys"];

#[test]
fn files_are_short() {
    demand(&complaints(too_long));
}

#[test]
fn nothing_unwraps_outside_tests() {
    demand(&complaints(|file| found(file, Part::Code, ".unwrap()", "say what to do, or `expect`")));
}

#[test]
fn there_are_no_macros_of_our_own() {
    let needle = ["macro_rules", "!"].concat();
    demand(&complaints(|file| found(file, Part::Whole, &needle, "write a function")));
}

#[test]
fn no_test_is_left_out() {
    let needle = ["#[ign", "ore"].concat();
    demand(&complaints(|file| found(file, Part::Whole, &needle, "mend the test or remove it")));
}

#[test]
fn imports_point_down() {
    demand(&complaints(|file| match module(&file.path) {
        Some(module) => points_up(file, &module),
        None => Vec::new(),
    }));
}

#[test]
fn the_lock_file_names_no_banned_and_no_unpublished_package() {
    demand(&bad_packages(&fs::read_to_string(root().join("Cargo.lock")).unwrap()));
}

#[test]
fn every_rule_finds_what_breaks_it() {
    let long = file("node/src/x.rs", &"let a = 1;\n".repeat(FILE_LINES_MAX + 1));
    assert_eq!(too_long(&long).len(), 1);
    let tests = "    #[test]\n".repeat(TEST_LINES_MAX);
    let tested =
        file("node/src/x.rs", &format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{tests}}}\n"));
    assert_eq!((tested.code.lines().count(), too_long(&tested).len()), (1, 1));

    let text = "// x.unwrap()\nx.unwrap();\n#[cfg(test)]\nmod tests {\ny.unwrap();\n}\n";
    let unwraps = found(&file("cli/src/x.rs", text), Part::Code, ".unwrap()", "");
    assert!(unwraps.len() == 1 && unwraps[0].starts_with("cli/src/x.rs:2:"), "{unwraps:?}");

    let up = "use crate::error::Error;\nuse crate::shard::Reader;\nlet a = crate::feed::b();\n";
    assert_eq!(points_up(&file("node/src/spool/log.rs", up), "spool").len(), 2);
    assert_eq!(
        points_up(&file("node/src/control/a.rs", "use crate::spool::A;"), "control").len(),
        1
    );
    assert_eq!(points_up(&file("node/src/node.rs", "use crate::{a, b};"), "node").len(), 1);
    assert_eq!(points_up(&file("node/src/new.rs", ""), "new").len(), 1, "it has no rank");

    let lock = "name = \"openssl\"\nname = \"openssl-probe\"\nsource = \"git+https://x/y\"\n";
    assert_eq!(bad_packages(lock).len(), 2);
}

#[test]
fn tests_in_a_file_of_their_own_are_known_as_tests() {
    let parent = Path::new("node/src/sinks/mod.rs");
    let text = "#[cfg(test)]\npub(crate) mod contract;\nmod lake;\nfn f() {}\n";
    assert_eq!(test_modules(parent, text), [PathBuf::from("node/src/sinks/contract")]);
    assert!(split(text).0.contains("fn f()"), "what stands below `mod contract;` is code");
    let beside = Path::new("raft-store/src/db.rs");
    let text = "#[cfg(test)]\n#[path = \"db/tests.rs\"]\nmod tests;\n";
    assert_eq!(test_modules(beside, text), [PathBuf::from("raft-store/src/db/tests")]);
}

/// A source file, cut where its tests begin.
struct Source {
    /// From the root of the workspace.
    path: PathBuf,
    whole: String,
    /// Above the tests; empty for a file of tests.
    code: String,
    tests: String,
}

/// Which part of a file a rule is about.
#[derive(Clone, Copy)]
enum Part {
    Code,
    Whole,
}

fn file(path: &str, text: &str) -> Source {
    let (code, tests) = split(text);
    Source { path: path.into(), whole: text.to_owned(), code, tests }
}

fn too_long(file: &Source) -> Vec<String> {
    let path = file.path.display();
    let mut complaints = Vec::new();
    let code = file.code.lines().count();
    if code > FILE_LINES_MAX {
        let why = "a second type is hiding in it: give it a file";
        complaints
            .push(format!("{path}: {code} lines above its tests, {FILE_LINES_MAX} allowed; {why}"));
    }
    let tests = file.tests.lines().count();
    if !file.code.is_empty() && tests > TEST_LINES_MAX {
        let name = file.path.with_extension("").join("tests.rs");
        let why = format!("move them to {}", name.display());
        complaints.push(format!("{path}: {tests} lines of tests, {TEST_LINES_MAX} allowed; {why}"));
    }
    complaints
}

/// Complains about each line of code that holds `needle`.
fn found(file: &Source, part: Part, needle: &str, remedy: &str) -> Vec<String> {
    let text = match part {
        Part::Code => &file.code,
        Part::Whole => &file.whole,
    };
    lines_of_code(text)
        .filter(|(_, line)| line.contains(needle))
        .map(|(number, _)| format!("{}:{number}: `{needle}`; {remedy}", file.path.display()))
        .collect()
}

fn points_up(file: &Source, module: &str) -> Vec<String> {
    let path = file.path.display();
    let Some(own) = rank(module) else {
        return vec![format!(
            "{path}: module `{module}` has no rank; put it into RANKS in tidy.rs"
        )];
    };
    let mut complaints = Vec::new();
    for (number, line) in lines_of_code(&file.code) {
        for rest in line.split("crate::").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let used = &rest[..end.unwrap_or(rest.len())];
            let why = match rank(used) {
                _ if used == module => continue,
                Some(below) if below < own => continue,
                Some(_) => format!("`{module}` must not import `{used}`: imports point down"),
                None if used.is_empty() => {
                    "one `use crate::module::...` line per module".to_owned()
                }
                None => format!("`{used}` has no rank; put it into RANKS in tidy.rs"),
            };
            complaints.push(format!("{path}:{number}: {why}"));
        }
    }
    complaints
}

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|line| line.contains(&module))
}

/// The module of `node/src` that a file belongs to; `None` for others.
fn module(path: &Path) -> Option<String> {
    let inside = path.strip_prefix("node/src").ok()?;
    let name = inside.iter().next()?.to_str()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

fn bad_packages(lock: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in (1..).zip(lock.lines()) {
        let value = |key: &str| Some(line.strip_prefix(key)?.trim_matches(['"', ' ', '=']));
        if let Some(name) = value("name").filter(|name| BANNED.contains(name)) {
            let why = "choose the features that bring rustls with ring";
            complaints.push(format!("Cargo.lock:{number}: package {name} is banned; {why}"));
        }
        if value("source").is_some_and(|source| source.starts_with("git+")) {
            complaints.push(format!("Cargo.lock:{number}: a git source; use a published version"));
        }
    }
    complaints
}

/// Lines with their numbers, without those that are comments.
fn lines_of_code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The code above `#[cfg(test)] mod x {`, and the rest.
fn split(text: &str) -> (String, String) {
    let inline = |lines: &[&str]| mod_for_tests(lines).is_some_and(|rest| rest.ends_with('{'));
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let cut = (0..lines.len()).find(|at| inline(&lines[*at..])).unwrap_or(lines.len());
    (lines[..cut].concat(), lines[cut..].concat())
}

/// What follows `mod ` where `lines` begin with `#[cfg(test)] mod`; other
/// attributes may stand between.
fn mod_for_tests<'a>(lines: &[&'a str]) -> Option<&'a str> {
    let (first, rest) = lines.split_first()?;
    let declaration = rest.iter().find(|line| !line.trim_start().starts_with("#["))?;
    (first.trim() == "#[cfg(test)]").then(|| mod_line(declaration))?
}

/// What follows `mod ` in a line that declares a module.
fn mod_line(line: &str) -> Option<&str> {
    let line = line.trim();
    let line = match line.strip_prefix("pub") {
        Some(rest) => rest.split_once(' ').filter(|_| rest.starts_with(['(', ' ']))?.1,
        None => line,
    };
    line.strip_prefix("mod ")
}

/// Paths, without `.rs`, of modules that the file at `path` declares for tests.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let is_root = ["mod.rs", "lib.rs", "main.rs"].iter().any(|name| path.ends_with(name));
    let folder = if is_root { path.parent().unwrap().to_owned() } else { path.with_extension("") };
    let lines: Vec<_> = text.lines().collect();
    let declared = (0..lines.len()).filter_map(|at| mod_for_tests(&lines[at..]));
    let names = declared.filter_map(|rest| rest.strip_suffix(';'));
    names.map(|name| folder.join(name)).collect()
}

/// Applies `rule` to every Rust file of the workspace.
fn complaints(rule: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    let root = root();
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    assert!(paths.len() > 10, "only {} Rust files found below {}", paths.len(), root.display());
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        (path.strip_prefix(&root).unwrap().to_owned(), text)
    };
    let files: Vec<_> = paths.iter().map(read).collect();
    let of_tests: BTreeSet<_> =
        files.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let mut complaints = Vec::new();
    for (path, text) in files {
        let mut file = file(&path.to_string_lossy(), &text);
        if path.starts_with("tests")
            || of_tests.iter().any(|it| path.with_extension("").starts_with(it))
        {
            (file.code, file.tests) = (String::new(), text);
        }
        complaints.extend(rule(&file));
    }
    complaints
}

fn demand(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} found:\n{}\n", complaints.len(), complaints.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            walk(&path, files);
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
}
