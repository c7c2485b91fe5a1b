//! The house rules that the compiler and the linter cannot check: which crate may use which, how long a file may be, which words
//! stay out, and that the commands of the README are real.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tailwater_integration::binary;

/// Most lines of a file, its tests not counted.
const FILE_LINES_MAX: usize = 600;

/// Which crates of the workspace a crate may use, and where each stands: model ← logql ← wire ← store ← ingester; wire ← querier; wire ← cluster; all ←
/// server ← the binary. wire stands on logql because the trait between queriers and ingesters speaks of compiled queries
/// (docs/adr/0002-node-trait.md). The integration tests use none: they see what a client sees.
const EDGES: [(&str, &[&str]); 10] = [
    ("tailwater-model", &[]),
    ("tailwater-logql", &["tailwater-model"]),
    ("tailwater-wire", &["tailwater-logql", "tailwater-model"]),
    ("tailwater-cluster", &["tailwater-logql", "tailwater-model", "tailwater-wire"]),
    ("tailwater-store", &["tailwater-logql", "tailwater-model", "tailwater-wire"]),
    ("tailwater-ingester", &["tailwater-logql", "tailwater-model", "tailwater-store", "tailwater-wire"]),
    ("tailwater-querier", &["tailwater-logql", "tailwater-model", "tailwater-wire"]),
    (
        "tailwater-server",
        &[
            "tailwater-cluster",
            "tailwater-ingester",
            "tailwater-logql",
            "tailwater-model",
            "tailwater-querier",
            "tailwater-store",
            "tailwater-wire",
        ],
    ),
    ("tailwater", &["tailwater-model", "tailwater-server", "tailwater-store", "tailwater-wire"]),
    ("tailwater-integration", &[]),
];

/// Everybody but the crate for several nodes.
const ALL_BUT_CLUSTER: [&str; 8] = [
    "tailwater-model",
    "tailwater-logql",
    "tailwater-wire",
    "tailwater-store",
    "tailwater-ingester",
    "tailwater-querier",
    "tailwater-server",
    "tailwater",
];

/// Crates from outside that have one owner, or that pure crates must not use.
const KEPT_OUT: [(&str, &[&str]); 10] = [
    ("chitchat", &ALL_BUT_CLUSTER),
    ("tonic", &ALL_BUT_CLUSTER),
    ("tokio", &["tailwater-model", "tailwater-logql", "tailwater-wire"]),
    ("hyper", &["tailwater-model", "tailwater-logql", "tailwater-wire", "tailwater-ingester", "tailwater-querier"]),
    (
        "axum",
        &[
            "tailwater-cluster",
            "tailwater-model",
            "tailwater-logql",
            "tailwater-wire",
            "tailwater-ingester",
            "tailwater-querier",
            "tailwater",
        ],
    ),
    (
        "pest",
        &[
            "tailwater-cluster",
            "tailwater-model",
            "tailwater-wire",
            "tailwater-ingester",
            "tailwater-querier",
            "tailwater-server",
            "tailwater",
        ],
    ),
    ("snap", &["tailwater-model", "tailwater-logql", "tailwater-ingester", "tailwater-querier", "tailwater-server"]),
    (
        "tantivy",
        &[
            "tailwater-cluster",
            "tailwater-model",
            "tailwater-logql",
            "tailwater-wire",
            "tailwater-ingester",
            "tailwater-querier",
            "tailwater-server",
            "tailwater",
        ],
    ),
    (
        "object_store",
        &[
            "tailwater-cluster",
            "tailwater-model",
            "tailwater-logql",
            "tailwater-wire",
            "tailwater-ingester",
            "tailwater-querier",
            "tailwater-server",
            "tailwater",
        ],
    ),
    (
        // cluster speaks it with chitchat, in whose traits it is.
        "anyhow",
        &[
            "tailwater-model",
            "tailwater-logql",
            "tailwater-wire",
            "tailwater-ingester",
            "tailwater-querier",
            "tailwater-server",
        ],
    ),
];

fn packages() -> Vec<Value> {
    let output = binary::cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// The names of what a package uses, its tests aside.
fn uses(package: &Value) -> BTreeSet<String> {
    let dependencies = package["dependencies"].as_array().unwrap().iter();
    dependencies.filter(|d| d["kind"] != "dev").map(|d| d["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn crates_use_only_what_stands_below_them() {
    let allowed: BTreeMap<_, _> = EDGES.into_iter().collect();
    let packages = packages();
    let names: BTreeSet<_> = packages.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, allowed.keys().copied().collect(), "the crates of the workspace and the table of edges differ");
    let mut wrong = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        let uses = uses(package);
        for used in uses.iter().filter(|used| names.contains(used.as_str())) {
            if !allowed[name].contains(&used.as_str()) {
                wrong.push(format!("{name} must not use {used}"));
            }
        }
        for (kept_out, of) in KEPT_OUT {
            if of.contains(&name) && uses.contains(kept_out) {
                wrong.push(format!("{name} must not use {kept_out}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_crate_obeys_the_lints_of_the_workspace() {
    for package in packages() {
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        let name = &package["name"];
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} does not take the lints of the workspace");
        let dependencies = manifest.split("\n[").filter(|part| {
            part.starts_with("dependencies]")
                || part.starts_with("dev-dependencies]")
                || part.starts_with("build-dependencies]")
        });
        for line in dependencies.flat_map(str::lines).filter(|line| line.contains('=')) {
            assert!(line.contains("workspace = true"), "{name} names a version of its own: {line}");
        }
    }
}

/// Licences that may be linked into the binary.
const LICENCES: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn what_we_build_on_is_permissively_licensed() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = std::process::Command::new(rustc).arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = binary::cargo()
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let licence = package["license"].as_str().unwrap_or_default().replace('/', " OR ");
        // `(A OR B) AND C`: one of each group.
        let fine = licence.split(" AND ").all(|group| {
            let group = group.trim_matches(['(', ')']);
            group.split(" OR ").any(|one| LICENCES.contains(&one.trim()))
        });
        if !fine {
            wrong.push(format!("{}: {licence:?}", package["name"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every text file of the tree that is ours: what git knows, or, outside a repository, everything but build output.
fn files() -> Vec<PathBuf> {
    fn walk(folder: &Path, all: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", "data", ".git", "node_modules", "corpus", "artifacts"].contains(&name.as_str()) {
                    walk(&path, all);
                }
            } else {
                all.push(path);
            }
        }
    }
    let mut all = Vec::new();
    walk(binary::workspace(), &mut all);
    all.sort();
    all
}

fn sources() -> impl Iterator<Item = (PathBuf, String)> {
    files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).map(|path| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    })
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| ["tests", "fuzz", "benches"].contains(&part.as_os_str().to_string_lossy().as_ref()))
        || path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.ends_with("tests.rs") || name == "testing.rs"
        })
}

/// The part of a file before its tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text)
}

#[test]
fn files_are_short_enough_to_be_read() {
    let long: Vec<_> = sources()
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| (path, without_tests(&text).lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .collect();
    assert!(long.is_empty(), "longer than {FILE_LINES_MAX} lines without tests: {long:#?}");
}

#[test]
fn files_say_what_they_are_about() {
    let silent: Vec<_> = sources()
        .filter(|(path, _)| !is_test(path))
        .filter(|(_, text)| !text.trim_start().starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "no //! at the top: {silent:#?}");
}

#[test]
fn nothing_unwraps_outside_tests() {
    let mut found = Vec::new();
    for (path, text) in sources().filter(|(path, _)| !is_test(path)) {
        for (number, line) in without_tests(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            if code.contains(".unwrap()") || code.contains(".unwrap_err()") {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn nothing_is_left_for_later() {
    // Written in halves, so that this file does not find itself.
    let banned = [
        ("TO", "DO", "finish it or write an issue"),
        ("FIX", "ME", "finish it or write an issue"),
        ("HA", "CK", "do it right or say why it is so"),
        ("todo", "!(", "a stub"),
        ("unimplemented", "!(", "a stub"),
        ("dbg", "!(", "a trace of debugging"),
        ("#[ign", "ore]", "a test that does not run"),
        ("#[all", "ow(", "expect the lint, with a reason"),
        ("#![all", "ow(", "expect the lint, with a reason"),
        ("white", "list", "allow list"),
        ("black", "list", "deny list"),
        ("simp", "ly ", "drop the word"),
        ("blazing", "ly", "give the number"),
        // One thing has one name.
        ("subscri", "ption", "a tail, a feed or a reader"),
    ];
    let mut found = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            for (head, tail, instead) in banned {
                if line.contains(&format!("{head}{tail}")) {
                    found.push(format!("{}:{}: {head}{tail}: {instead}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn text_has_no_trailing_blanks_and_ends_with_a_line_feed() {
    let ours = ["rs", "toml", "md", "yaml", "yml", "proto", "pest", "py", "mjs", "sh"];
    let mut wrong = Vec::new();
    for path in files() {
        let script = path.ends_with(".ci/run") || path.ends_with("Dockerfile");
        if !script && !path.extension().is_some_and(|e| ours.contains(&e.to_string_lossy().as_ref())) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.is_empty() && !text.ends_with('\n') {
            wrong.push(format!("{}: no line feed at the end", path.display()));
        }
        for (number, line) in text.lines().enumerate() {
            // In a specification a line stands for a line of a log, blanks and all.
            let is_log = line.starts_with("<< ") || line.starts_with(">> ");
            if line.ends_with([' ', '\t']) && !is_log {
                wrong.push(format!("{}:{}: blanks at the end", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Relative links of the documents lead somewhere.
#[test]
fn links_lead_somewhere() {
    let mut dead = Vec::new();
    for path in files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "md")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or(link);
            if file.is_empty() || file.contains("://") || file.contains(' ') {
                continue;
            }
            if !path.parent().unwrap().join(file).exists() {
                dead.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

/// The lines of the fenced `sh` blocks of a document.
fn commands(document: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        if line.starts_with("```") {
            inside = !inside && line == "```sh";
        } else if inside && !line.trim().is_empty() && !line.starts_with('#') {
            commands.push(line.split(" # ").next().unwrap_or(line).trim().to_owned());
        }
    }
    commands
}

#[tokio::test]
async fn the_commands_of_the_documents_are_real() {
    let mut documents = vec![binary::workspace().join("README.md"), binary::workspace().join("CONTRIBUTING.md")];
    documents.extend(files().into_iter().filter(|p| p.parent().is_some_and(|d| d.ends_with("docs"))));
    let readme = commands(&std::fs::read_to_string(&documents[0]).unwrap());
    for needed in ["cargo run --release -- demo", "cargo test"] {
        assert!(readme.iter().any(|command| command == needed), "the README does not say `{needed}`: {readme:#?}");
    }
    let mut asked = BTreeSet::new();
    for document in documents.into_iter().filter(|path| path.extension().is_some_and(|e| e == "md")) {
        for command in commands(&std::fs::read_to_string(&document).unwrap()) {
            for part in command.split('|') {
                let words: Vec<_> = part.split_whitespace().collect();
                let ours = match words.as_slice() {
                    ["cargo", "run", rest @ ..] => rest.split(|word| *word == "--").nth(1).unwrap_or_default(),
                    ["tailwater" | "./target/release/tailwater", rest @ ..] => rest,
                    _ => continue,
                };
                let flags =
                    ours.iter().filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap());
                let flags = flags.map(str::to_owned).collect::<Vec<_>>();
                asked.insert((ours.first().copied().unwrap_or_default().to_owned(), flags, document.clone()));
            }
        }
    }
    assert!(!asked.is_empty());
    let mut help = BTreeMap::new();
    for (subcommand, flags, document) in asked {
        if !help.contains_key(&subcommand) {
            let args = if subcommand.starts_with('-') { vec!["--help"] } else { vec![subcommand.as_str(), "--help"] };
            let output = tailwater_integration::server::command(args).output().await.unwrap();
            assert!(output.status.success(), "{}: no such subcommand: {subcommand}", document.display());
            help.insert(subcommand.clone(), String::from_utf8(output.stdout).unwrap());
        }
        for flag in flags {
            assert!(help[&subcommand].contains(&flag), "{}: {subcommand} has no {flag}", document.display());
        }
    }
}

#[test]
fn every_decision_is_numbered_and_has_its_parts() {
    let folder = binary::workspace().join("docs/adr");
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        numbers.push(name[..4].parse::<usize>().unwrap_or_else(|_| panic!("{name} has no number")));
        for part in ["# ", "\n## Context\n", "\n## Decision\n", "\n## Consequences\n"] {
            assert!(text.contains(part), "{name} has no {part:?}");
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
}
