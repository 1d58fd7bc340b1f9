//! What the documents say is held by a test, is held by one: each test that they name exists and runs, each hazard has one,
//! each planted mistake they count on is one that the model must notice.

use std::{collections::BTreeMap, fs};

use super::{clean, root};

/// Pages that name what holds their promises.
const PAGES: &[&str] = &[
    "docs/hazards.md",
    "docs/durability.md",
    "docs/exactly-once.md",
    "docs/groups.md",
    "docs/rates.md",
    "docs/replay.md",
];
const ROWS: &str = "src/model/mutants.rs";
/// Hazards that may be without an answer, with the reason.
const EXEMPT: usize = 1;

/// What stands in backquotes, with its line.
fn quoted(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .flat_map(|(line, text)| text.split('`').skip(1).step_by(2).map(move |quoted| (line + 1, quoted)))
}

/// `file: function`, as the pages name a test.
fn test_named(quoted: &str) -> Option<(&str, &str)> {
    let (file, function) = quoted.split_once(".rs: ")?;
    Some((quoted.get(..file.len() + 3)?, function))
}

/// Whether `function` is a test of this file that is not ignored. A test is what follows `#[test]` or `#[tokio::test`.
fn is_test(text: &str, function: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let opens = |line: &str| {
        let name = line.trim_start_matches("pub(crate) ").trim_start_matches("async ").strip_prefix("fn ");
        name.and_then(|name| name.strip_prefix(function)).is_some_and(|rest| rest.starts_with('('))
    };
    let Some(at) = lines.iter().position(|line| opens(line)) else { return false };
    let attributes =
        || lines.iter().take(at).rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    attributes().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
        && !attributes().any(|line| line.starts_with("#[ignore"))
}

/// `read` gives the text of a file of the repository.
fn promises(page: &str, text: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut files = BTreeMap::new();
    let mut complaints = Vec::new();
    for (line, said) in quoted(text) {
        let missing = if let Some((file, function)) = test_named(said) {
            let text = files.entry(file.to_owned()).or_insert_with(|| read(file).unwrap_or_default());
            !is_test(text, function)
        } else if let Some(mistake) = said.strip_prefix("Mutant::") {
            let rows = files.entry(ROWS.to_owned()).or_insert_with(|| read(ROWS).unwrap_or_default());
            !rows.contains(&format!("({mistake},"))
        } else {
            continue;
        };
        if missing {
            complaints.push(format!("{page}:{line}: there is no `{said}`"));
        }
    }
    complaints
}

/// The rows of the tables: every hazard has its number and something that holds its answer.
fn hazards(page: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let (mut next, mut exempt) = (1, 0);
    for (line, row) in text.lines().enumerate() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, number, _, answer, held, _] = cells.as_slice() else { continue };
        let Ok(number) = number.parse::<usize>() else { continue };
        if number != next {
            complaints.push(format!("{page}:{}: {number} where {next} should stand", line + 1));
        }
        next = number + 1;
        exempt += usize::from(answer.starts_with("exempt"));
        if !quoted(held).any(|(_, said)| test_named(said).is_some() || said.starts_with("Mutant::")) {
            complaints.push(format!("{page}:{}: nothing holds the answer to {number}", line + 1));
        }
    }
    if next == 1 {
        complaints.push(format!("{page}: names no hazard"));
    }
    if exempt > EXEMPT {
        complaints.push(format!("{page}: {exempt} hazards are exempt, {EXEMPT} may be"));
    }
    complaints
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}

#[test]
fn every_promise_has_the_test_it_names() {
    for page in PAGES {
        let text = read(page).expect("a page");
        assert!(quoted(&text).any(|(_, said)| test_named(said).is_some()), "{page} names no test");
        clean(&promises(page, &text, read));
    }
}

#[test]
fn every_hazard_has_an_answer() {
    let page = "docs/hazards.md";
    clean(&hazards(page, &read(page).expect("the page of hazards")));
}

#[test]
fn a_release_aborts_and_checks_its_sums() {
    let manifest = read("Cargo.toml").expect("the manifest");
    let release = manifest.split("[profile.release]").nth(1).expect("a release profile");
    let release = release.split("\n[").next().expect("a section");
    for line in ["panic = \"abort\"", "overflow-checks = true"] {
        assert!(release.lines().any(|said| said == line), "a release is built without {line}");
    }
}

#[test]
fn a_promise_without_its_test() {
    let there = |path: &str| {
        let text = match path {
            "a.rs" => "#[test]\nfn holds() {}\nfn helper() {}\n#[test]\n#[ignore = \"slow\"]\nfn sleeps() {}",
            ROWS => "row(NoWipe, &[], any),",
            _ => return None,
        };
        Some(text.to_owned())
    };
    let said = "`a.rs: holds` `Mutant::NoWipe` `code`\n`a.rs: helper`\n`a.rs: sleeps`\n`b.rs: holds`\n`Mutant::Other`";
    let found = promises("page", said, there);
    let lines: Vec<&str> = found.iter().filter_map(|complaint| complaint.split(": there").next()).collect();
    assert_eq!(lines, ["page:2", "page:3", "page:4", "page:5"]);
}

#[test]
fn a_hazard_without_an_answer() {
    let row = |number: usize, answer: &str, held: &str| format!("| {number} | bad | {answer} | {held} |\n");
    let good = row(1, "good", "`a.rs: holds`");
    assert_eq!(hazards("page", &good), Vec::<String>::new());
    assert_eq!(hazards("page", &row(1, "good", "words")).len(), 1);
    assert_eq!(hazards("page", &row(2, "good", "`Mutant::NoWipe`")).len(), 1);
    assert_eq!(hazards("page", "").len(), 1);
    let exempt: String = (1..=4).map(|number| row(number, "exempt: later", "`a.rs: holds`")).collect();
    assert_eq!(hazards("page", &exempt).len(), 1);
}
