//! The rules that no compiler checks: who may know what, where things stand, and that documents say what the program does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use docker_cache::args::OPTIONS;
use docker_cache::config::ENTRY;

/// A file of `src`, without its tests and its comments.
struct Source {
    /// `core/jobs.rs`
    path: String,
    /// Its lines of code, by number, up to its tests.
    code: Vec<(usize, String)>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("failed to read `{}`: {error}", path.display()))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("failed to read `{}`: {error}", folder.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// All of `src`. A file that stands behind a `#[cfg(test)] mod` line of its parent is a test from its first line on.
fn sources() -> Vec<Source> {
    let src = root().join("src");
    let files = files_below(&src);
    assert!(files.len() > 30, "only {} files in src", files.len());
    let mut tests = BTreeSet::new();
    for file in &files {
        let text = read(file);
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines
            .windows(2)
            .filter(|pair| pair[0].contains("#[cfg(test)]"))
        {
            let name = pair[1].trim_start_matches("pub ").strip_prefix("mod ");
            if let Some(name) = name.and_then(|rest| rest.strip_suffix(';')) {
                let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
                    Some("mod" | "lib" | "main") | None => file.parent().unwrap().to_owned(),
                    Some(_) => file.with_extension(""),
                };
                tests.insert(folder.join(name).with_extension("rs"));
            }
        }
    }
    files
        .iter()
        .map(|file| {
            let whole = read(file);
            let is_test = file
                .ancestors()
                .any(|part| tests.contains(&part.with_extension("rs")));
            let code = whole
                .lines()
                .enumerate()
                .take_while(|(_, line)| !is_test && line.trim() != "#[cfg(test)]")
                .map(|(number, line)| (number + 1, uncommented(line).to_owned()))
                .collect();
            let path = file
                .strip_prefix(&src)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            Source { path, code }
        })
        .collect()
}

/// A line without its comment. One in a string (`"unix://…"`) has no blank before it.
fn uncommented(line: &str) -> &str {
    let line = if line.trim_start().starts_with("//") {
        ""
    } else {
        line
    };
    line.split(" // ").next().unwrap_or("")
}

/// Where one of these words stands in code, outside the places that may have it.
fn places(words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources() {
        if allowed.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        for (number, line) in &source.code {
            for word in words.iter().filter(|word| has_word(line, word)) {
                found.push(format!(
                    "src/{}:{number}: {word}: {}",
                    source.path,
                    line.trim()
                ));
            }
        }
    }
    found
}

/// `redis::` is in `use redis::Cmd`, and not in `store::redis::Options`.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[track_caller]
fn none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn the_core_does_nothing_but_think() {
    let io = [
        "std::fs",
        "std::net",
        "std::thread",
        "std::process",
        "std::env",
        "std::io",
        "std::os",
        "Instant",
        "SystemTime",
        "log::",
        "crossbeam_channel",
        "rustix",
        "httparse",
        "redis::",
        "println!",
        "eprintln!",
    ];
    let mut found = Vec::new();
    let mut looked_at = 0;
    for source in sources() {
        if !source.path.starts_with("core/") && source.path != "model.rs" {
            continue;
        }
        looked_at += 1;
        for (number, line) in &source.code {
            for word in io.iter().filter(|word| has_word(line, word)) {
                found.push(format!("src/{}:{number}: {word}", source.path));
            }
        }
    }
    assert!(
        looked_at >= 10,
        "only {looked_at} files of the core were found"
    );
    none(
        &found,
        "the core and its data have no socket, clock, thread, file or log",
    );
}

#[test]
fn each_outside_world_has_one_place_that_knows_it() {
    let rules: [(&[&str], &[&str], &str); 7] = [
        (&["httparse::"], &["docker/"], "only docker/ speaks HTTP"),
        // The others write JSON of our own: lines of the log, what a command is told, which commands run.
        (
            &["serde_json::"],
            &["docker/", "logging.rs", "core/input.rs", "core/cutoff.rs"],
            "only docker/ knows Docker's JSON",
        ),
        (
            &["redis::", "extern crate redis"],
            &["store/"],
            "only store/ knows Redis",
        ),
        (
            &[
                "std::process::Command",
                "std::process::{Child",
                "process::Command",
                "Command::new",
                "rustix::process",
            ],
            &["command.rs", "command/"],
            "only command.rs knows processes",
        ),
        (
            &[
                "std::thread::{",
                "std::thread::Builder",
                "std::thread::spawn",
                "std::thread::scope",
                "thread::spawn",
                "thread::Builder",
                "thread::scope",
            ],
            &["threads.rs"],
            "only threads.rs starts threads",
        ),
        (
            &["serde_yaml::"],
            &["config/yaml.rs"],
            "only config/yaml.rs knows serde_yaml",
        ),
        (&["argh::"], &["args.rs"], "only args.rs knows argh"),
    ];
    for (words, allowed, rule) in rules {
        none(&places(words, allowed), rule);
        assert!(
            !places(words, &[]).is_empty(),
            "nothing at all has {words:?}: does the rule `{rule}` still look for the right words?"
        );
    }
}

#[test]
fn nothing_panics_for_convenience() {
    // Each with what makes it impossible.
    let exceptions = [
        // A transaction is built with its MULTI and EXEC.
        "src/store/fence.rs: let (exec, queued) = commands.split_last().expect(\"it begins with MULTI\");",
    ];
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in &source.code {
            let place = format!("src/{}: {}", source.path, line.trim());
            if (line.contains(".unwrap()") || line.contains(".expect("))
                && !exceptions.contains(&&*place)
            {
                found.push(format!("{place} (line {number})"));
            }
        }
    }
    none(
        &found,
        "an error is handled, or its impossibility stands in this test",
    );
}

#[test]
fn nothing_is_left_open() {
    let files = ["src", "tests"].map(|folder| files_below(&root().join(folder)));
    let mut found = Vec::new();
    for file in files.iter().flatten() {
        // This file has the words it looks for.
        if file.ends_with("it/tidy.rs") {
            continue;
        }
        for (number, line) in read(file).lines().enumerate() {
            let open = [
                "todo!",
                "unimplemented!",
                "#[ignore",
                "dbg!",
                "FIXME",
                "TODO",
                "XXX",
            ];
            for word in open.iter().filter(|word| line.contains(*word)) {
                found.push(format!("{}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    none(&found, "what is there is done");
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let files = ["src", "tests"].map(|folder| files_below(&root().join(folder)));
    let silent: Vec<String> = files
        .iter()
        .flatten()
        .filter(|file| !read(file).starts_with("//! "))
        .map(|file| file.display().to_string())
        .collect();
    none(&silent, "a file begins with `//!` and its purpose");
}

#[test]
fn the_map_names_every_module() {
    let lib = read(&root().join("src/lib.rs"));
    let named: BTreeSet<String> = lib
        .lines()
        .filter_map(|line| {
            line.trim_start_matches("pub ")
                .strip_prefix("mod ")?
                .strip_suffix(';')
        })
        .map(str::to_owned)
        .collect();
    let there: BTreeSet<String> = sources()
        .iter()
        .filter_map(|source| {
            let name = source
                .path
                .strip_suffix("/mod.rs")
                .or_else(|| source.path.strip_suffix(".rs"))?;
            (!name.contains('/') && name != "lib" && name != "main").then(|| name.to_owned())
        })
        .collect();
    assert_eq!(named, there, "`mod` lines of src/lib.rs, and files");
    // The table of threads names each body by its module.
    for module in ["agent", "driver", "writer", "reader", "syncer", "handlers"] {
        assert!(
            lib.contains(&format!("| [`{module}`] |")),
            "no thread has its body in `{module}`"
        );
    }
}

#[test]
fn functions_fit_on_a_page() {
    let mut long = Vec::new();
    for source in sources() {
        let mut begin: Option<(usize, &str, usize)> = None;
        for (number, line) in &source.code {
            let indent = line.len() - line.trim_start().len();
            let text = line.trim_start();
            let is_function = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn "]
                .iter()
                .any(|word| text.starts_with(word));
            if is_function && begin.is_none() {
                begin = Some((*number, text, indent));
            }
            if let Some((first, head, depth)) = begin
                && indent == depth
                && (text == "}" || (text.ends_with('}') && number == &first) || text.ends_with(';'))
            {
                if number - first > 90 {
                    long.push(format!(
                        "src/{}:{first}: {} lines: {head}",
                        source.path,
                        number - first
                    ));
                }
                begin = None;
            }
        }
    }
    none(&long, "a function has 70 lines or a few more, never 90");
}

#[test]
fn the_version_has_its_entry_in_the_changelog() {
    let text = read(&root().join("CHANGELOG.md"));
    let version = env!("CARGO_PKG_VERSION");
    let first = text.lines().find_map(|line| line.strip_prefix("## "));
    assert_eq!(
        first.and_then(|line| line.split(' ').next()),
        Some(version),
        "the newest entry of CHANGELOG.md"
    );
}

#[test]
fn the_readme_lists_the_options_that_there_are() {
    let text = read(&root().join("README.md"));
    // | `--update-interval DURATION` | … |
    let rows: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("| `--")?.split('`').next())
        .collect();
    let options: Vec<String> = OPTIONS
        .iter()
        .map(|spec| {
            format!("{} {}", spec.name, spec.value)
                .trim_end()
                .to_owned()
        })
        .collect();
    assert_eq!(
        rows, options,
        "rows of README.md's table of options, and options"
    );
    for spec in OPTIONS
        .iter()
        .filter(|spec| !spec.default.is_empty() && !spec.value.is_empty())
    {
        let row = text.lines().find(|line| {
            line.trim_start()
                .starts_with(&format!("| `--{} ", spec.name))
        });
        // A pattern's `*` and `_` are escaped or in code; its first word is enough to know it by.
        let default = spec.default.split(',').next().unwrap_or("");
        assert!(
            row.is_some_and(|row| row.contains(default)),
            "README.md does not give `{default}` as the default of --{}",
            spec.name
        );
    }
}

#[test]
fn the_readme_lists_the_fields_that_an_entry_has() {
    let text = read(&root().join("README.md"));
    let text = text.split_once("\nHandlers\n").unwrap().1;
    let text = text.split_once("\nEvery entry").unwrap().0;
    // | `timeout`, `grace` | … |
    let listed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" |").next())
        .flat_map(|names| names.split(", "))
        .map(|name| name.trim_matches('`'))
        .collect();
    let fields: BTreeSet<&str> = ENTRY.concat().into_iter().collect();
    assert_eq!(listed, fields, "README.md's tables of fields, and fields");
}

#[test]
fn no_async_runtime_comes_in_by_a_side_door() {
    let lock = read(&root().join("Cargo.lock"));
    let packages: BTreeSet<&str> = lock
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .collect();
    assert!(
        packages.contains("redis") && packages.contains("httparse"),
        "Cargo.lock could be read"
    );
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        tree.lines().any(|line| line.starts_with("httparse v")),
        "{tree}"
    );
    let runtimes = [
        "tokio",
        "async-std",
        "smol",
        "async-executor",
        "futures-executor",
        "mio",
        "hyper",
    ];
    let found: Vec<String> = tree
        .lines()
        .filter(|line| runtimes.contains(&line.split(' ').next().unwrap_or("")))
        .map(str::to_owned)
        .collect();
    none(&found, "threads and channels are all there is");
}

/// The table of faults names a test for each line of it, by the beginning of its name, and every test of a fault stands there.
#[test]
fn the_table_of_faults_names_its_tests() {
    let folder = root().join("tests/it");
    let table = read(&folder.join("faults.rs"));
    let mut named = BTreeSet::new();
    for (number, row) in (1..).zip(
        table
            .lines()
            .filter(|line| line.starts_with("//! | "))
            .skip(1),
    ) {
        assert!(row.starts_with(&format!("//! | {number} |")), "{row}");
        let tests = row.rsplit(" | ").next().unwrap_or_default();
        for test in tests.split('`').filter_map(|test| test.strip_suffix("_…")) {
            let (module, beginning) = test.split_once("::").expect(test);
            let text = read(&folder.join(module).with_extension("rs"));
            assert!(
                text.contains(&format!("\nfn {beginning}_")),
                "no test `{test}_…`"
            );
            named.insert(format!("{module}::{beginning}_"));
        }
    }
    for file in files_below(&folder) {
        let module = file.file_stem().and_then(|stem| stem.to_str());
        let module = module.unwrap_or_default();
        for line in read(&file).lines() {
            let name = line.strip_prefix("fn ").unwrap_or_default();
            if name.starts_with("fault_") || name.starts_with("timed_fault_") {
                let name = format!("{module}::{name}");
                let found = named.iter().any(|beginning| name.starts_with(beginning));
                assert!(found, "`{name}` does not stand in the table of faults");
            }
        }
    }
}
