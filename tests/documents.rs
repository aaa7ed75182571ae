//! The documents are true: the commands of the guide print the output below them, the tests that
//! pages name exist, links have targets, and the contract stands on one page.
#![cfg(target_os = "linux")] // One system is enough, and the pages use its shell.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::process::{Running, example, is_here};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The paths of all pages in the repository. The package has the pages of the guide only.
fn pages() -> Vec<String> {
    let guide = fs::read_dir(root().join("docs")).expect("pages");
    let guide = guide.map(|page| page.expect("a page").file_name());
    let guide = guide.map(|page| format!("docs/{}", page.to_string_lossy()));
    let beside = ["README.md", "SECURITY.md", "PLATFORM.md", "CONTRIBUTING.md"];
    let beside = beside.into_iter().filter(|page| root().join(page).exists());
    guide.chain(beside.map(str::to_owned)).filter(|page| page.ends_with(".md")).collect()
}

/// The lines of the blocks that begin with `fence`.
fn blocks<'a>(page: &'a str, fence: &str) -> Vec<Vec<&'a str>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line == fence {
            blocks.push(lines.by_ref().take_while(|line| *line != "```").collect());
        }
    }
    blocks
}

/// The commands after `$ `, each with the output lines that it must print. `…` stands for any text.
fn commands<'a>(block: &[&'a str]) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in block {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command, Vec::new())),
            (None, Some((_, output))) => output.push(line),
            (None, None) => panic!("no command before {line:?}"),
        }
    }
    commands
}

fn fits(line: &str, pattern: &str) -> bool {
    let mut rest = line;
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    let mut last = first;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = part;
    }
    rest.is_empty() || (pattern.contains('…') && last.is_empty())
}

/// The shell that runs the commands of one page in their order.
fn shell(dir: &Path) -> Running {
    let mut shell = Command::new("bash");
    shell
        .args(["--noprofile", "--norc"])
        .current_dir(dir)
        .env("XDG_RUNTIME_DIR", dir)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let echo = example("echo").get_program().to_owned();
    let programs = Path::new(&echo).parent().expect("a directory").display();
    let mut shell = Running::start(shell);
    // A reader's `cargo run` builds the example first; here it is built already. The subshell of a
    // background command becomes the program itself, so that `$!` is the program's process.
    let cargo = format!(
        r#"exec 2>&1; cargo() {{ local run="{programs}/$4"; shift 4; [ "$1" != -- ] || shift
        if [ $BASH_SUBSHELL = 0 ]; then "$run" "$@"; else exec "$run" "$@"; fi; }}"#
    );
    say(&mut shell, &cargo);
    shell
}

fn say(shell: &mut Running, line: &str) {
    let input = shell.child.stdin.as_mut().expect("a pipe");
    writeln!(input, "{line}").expect("a shell that reads");
}

/// Whether a reader of the guide types `command`. Commands for work in the checkout have CI lanes
/// of their own.
fn is_a_readers(command: &str) -> bool {
    let of_the_checkout = ["cargo ", "scripts/"].iter().any(|start| command.starts_with(start));
    command.starts_with("cargo run --quiet --example ") || !of_the_checkout
}

#[test]
fn commands_of_the_guide_print_the_output_below_them() {
    const DONE: &str = "the command is done";
    if !is_here("nc") {
        return;
    }
    let mut followed = 0;
    for page in pages().iter().filter(|page| page.starts_with("docs/")) {
        let text = read(page);
        let blocks = blocks(&text, "```console");
        let commands = blocks.iter().flat_map(|block| commands(block));
        let dir = tempfile::tempdir().expect("a directory");
        let mut shell = shell(dir.path());
        for (command, mut expected) in commands.filter(|(command, _)| is_a_readers(command)) {
            followed += 1;
            say(&mut shell, &format!("{command}\necho {DONE}"));
            // Commands in the background may print later.
            let mut done = false;
            while !(done && expected.is_empty()) {
                let line = shell.next_line();
                if line == DONE {
                    done = true;
                    continue;
                }
                let found = expected.iter().position(|pattern| fits(&line, pattern));
                let found = found.unwrap_or_else(|| panic!("{page}: {command}: {line:?} came"));
                expected.remove(found);
            }
        }
        say(&mut shell, "kill $(jobs -p) 2>/dev/null; exit 0");
        assert!(shell.wait().0.success());
    }
    println!("{followed} commands of the guide were followed");
    assert!(followed > 5, "{followed}");
}

/// The tests that `page` names in backquotes.
fn named_tests(page: &str) -> BTreeSet<(String, String)> {
    let quoted = page.split('`').skip(1).step_by(2);
    let tests = quoted.filter_map(|text| text.split_once("::"));
    let tests = tests.filter(|(file, _)| file.ends_with(".rs"));
    tests.map(|(file, name)| (file.to_owned(), name.to_owned())).collect()
}

#[test]
fn tests_that_the_documents_name_exist() {
    let mut named = 0;
    for page in pages() {
        let text = read(&page);
        for (file, name) in named_tests(&text) {
            let source = read(&file);
            let found =
                ["(", "<"].iter().any(|after| source.contains(&format!("fn {name}{after}")));
            assert!(found, "{page}: there is no test {name} in {file}");
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
}

#[test]
fn each_claim_of_the_comparison_names_its_test() {
    let text = read("docs/comparison.md");
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what "));
    let rows: Vec<_> = rows.collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        assert!(!named_tests(row).is_empty(), "no test: {row}");
    }
}

/// The README links to the contract, since a copy would become outdated.
#[test]
fn the_contract_stands_on_one_page_only() {
    let rows = |page: &str| -> usize {
        let text = read(page);
        let table = text.lines().skip_while(|line| !line.starts_with("| # | situation"));
        table.take_while(|line| line.starts_with('|')).count()
    };
    for page in pages() {
        let expected = if page == "docs/contract.md" { 2 + 19 } else { 0 };
        assert_eq!(rows(&page), expected, "{page}");
    }
    assert!(read("README.md").contains("](docs/contract.md)"));
}

/// A reader should know within a minute whether the crate suits them.
#[test]
fn the_readme_stays_within_its_limits_of_lines_and_words() {
    let text = read("README.md");
    let (lines, words) = (text.lines().count(), text.split_whitespace().count());
    assert!(lines <= 150 && words <= 1000, "{lines} lines, {words} words");
    let is_prose = |line: &&str| !line.starts_with('|');
    let long = text.lines().filter(is_prose).find(|line| line.chars().count() > 100);
    assert_eq!(long, None);
}

/// The page describes every reason, and no reason that no longer exists.
#[test]
fn troubleshooting_has_a_row_for_each_reason() {
    let source = read("src/error.rs");
    let (_, body) = source.split_once("pub enum Reason {").expect("the reasons");
    let (body, _) = body.split_once("\n}").expect("an end");
    let variants = body.lines().filter_map(|line| line.strip_prefix("    "));
    let variants = variants.filter(|line| line.starts_with(char::is_uppercase));
    // The form in which a program matches a variant.
    let matched = |line: &str| match line.strip_suffix(" {") {
        Some(name) => format!("{name} {{ .. }}"),
        None => line.trim_end_matches(',').to_owned(),
    };
    let variants: BTreeSet<_> = variants.map(matched).collect();

    let page = read("docs/troubleshooting.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut described = BTreeSet::new();
    for row in rows {
        let cells: Vec<_> = row.split(" | ").collect();
        assert_eq!(cells.len(), 4, "reason, meaning, what to look at, command: {row}");
        assert!(!cells[1].is_empty() && !cells[2].is_empty(), "{row}");
        described.insert(cells[0].trim_end_matches('`').to_owned());
    }
    assert_eq!(described, variants);
}

#[test]
fn each_link_has_a_target() {
    /// Pages for contributors, which the package leaves out.
    const LEFT_OUT: [&str; 3] = ["CONTRIBUTING.md", "docs/coverage.md", "docs/kernels.md"];
    let is_package = !root().join("torture").exists();
    let mut followed = 0;
    for page in pages() {
        let text = read(&page);
        let dir = PathBuf::from(&page).parent().expect("a directory").to_owned();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets {
            if target.contains("::") || target.contains("://") || target.starts_with('#') {
                continue;
            }
            let path = dir.join(target.split('#').next().unwrap_or_default());
            if is_package && LEFT_OUT.iter().any(|left_out| path.ends_with(left_out)) {
                continue;
            }
            assert!(root().join(&path).exists(), "{page}: {target} leads nowhere");
            followed += 1;
        }
    }
    assert!(followed > 3, "{followed}");
}

/// `scripts/bench.sh full` writes these tables.
#[test]
fn the_performance_page_has_every_measured_table() {
    let page = read("docs/performance.md");
    let tables = |name: &str| {
        let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
        let (_, from) = page.split_once(&begin).expect("a beginning");
        from.split_once(&end).expect("an end").0
    };
    for (name, groups, bars) in [("measured", 31, 104), ("pipes", 7, 6)] {
        let tables = tables(name);
        let mut parts = tables.split("\n### ");
        let judged = parts.next().expect("the table of bars");
        let rows = |part: &str| part.lines().filter(|line| line.starts_with("| ")).count();
        assert!(judged.contains(" 11 repetitions of 300 ms"), "{judged}");
        // The header is a row too.
        assert_eq!(rows(judged), bars + 1, "{name}");
        let parts: Vec<_> = parts.collect();
        assert_eq!(parts.len(), groups, "{name}");
        for part in parts {
            assert!(rows(part) > 3, "too few rows: {part}");
            let empty =
                part.lines().find(|line| line.starts_with("| ") && line.contains("| – | – | – |"));
            assert_eq!(empty, None, "somebody was not measured");
        }
    }
}

/// Runs the programs that the page about other languages shows.
#[test]
fn clients_in_other_languages_get_an_answer() {
    let page = read("docs/other_languages.md");
    let dir = tempfile::tempdir().expect("a directory");
    let source = |fence: &str, file: &str| {
        let block = blocks(&page, fence).pop().unwrap_or_else(|| panic!("no {fence}"));
        let path = dir.path().join(file);
        fs::write(&path, block.join("\n")).expect("a file");
        path
    };
    let name = common::unique_name();
    let mut server = example("echo_server");
    server.arg(&name).env("XDG_RUNTIME_DIR", dir.path());
    let server = Running::start(server);
    assert!(server.next_line().starts_with("listening on "));

    let ask = |program: &Path, arguments: &[&Path]| {
        let mut client = Command::new(program);
        client.args(arguments).arg(&name).env("XDG_RUNTIME_DIR", dir.path());
        let output = client.stdin(Stdio::null()).output().expect("a process");
        let says = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{client:?}: {says}");
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(answer.trim_end(), "hello", "{client:?}: {says}");
    };
    if is_here("python3") {
        ask(Path::new("python3"), &[&source("```python", "client.py")]);
    }
    if is_here("node") {
        ask(Path::new("node"), &[&source("```javascript", "client.js")]);
    }
    if is_here("go") {
        let program = dir.path().join("client");
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(&program).arg(source("```go", "client.go"));
        let built = build.env("GO111MODULE", "off").env("GOFLAGS", "").output().expect("go");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        ask(&program, &[]);
    }
    server.crash();
}
