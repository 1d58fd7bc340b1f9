//! Rust source as the rules see it: without comments and literals, and as a list of the paths it names.
//!
//! This is no parser. It knows tokens and `use` trees, which is all that "who names whom" takes.

/// A source file.
pub(crate) struct Source {
    /// Relative to the repository, `/`-separated.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments and literals blanked out; lines are where they were.
    pub(crate) code: String,
}

/// A path named somewhere, `use` trees spelt out: `use a::{b, c::d}` names `a::b` and `a::c::d`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) line: usize,
    pub(crate) parts: Vec<String>,
}

impl Named {
    /// Whether the path begins with these parts. `a::*` may be anything below `a`, so it begins with `a::b` too.
    pub(crate) fn begins(&self, parts: &[&str]) -> bool {
        let mut ours = self.parts.iter();
        parts.iter().all(|part| ours.next().is_some_and(|our| our == part || our == "*"))
    }

    /// Whether the path ends with these parts.
    pub(crate) fn ends(&self, parts: &[&str]) -> bool {
        let skipped = self.parts.len().checked_sub(parts.len());
        skipped.is_some_and(|skipped| self.parts.iter().skip(skipped).eq(parts))
    }

    pub(crate) fn text(&self) -> String {
        self.parts.join("::")
    }
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: without_comments_and_literals(text) }
    }

    /// The first part of the path below `src/`, without its ending: `src/clock.rs` and `src/storage/map.rs` lie in the
    /// rooms `clock` and `storage`.
    pub(crate) fn room(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        below.split('/').next().map(|part| part.strip_suffix(".rs").unwrap_or(part))
    }

    /// How many `super::` lead from this file's module to the root of the crate.
    pub(crate) fn depth(&self) -> usize {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let below = below.strip_suffix("/mod.rs").unwrap_or(below);
        if matches!(below, "lib.rs" | "main.rs") { 0 } else { below.split('/').count() }
    }

    /// Whether the path is one of these files, or lies below one of these directories (ending in `/`).
    pub(crate) fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            if place.ends_with('/') { self.path.starts_with(place) } else { self.path == *place }
        })
    }

    pub(crate) fn names(&self) -> Vec<Named> {
        names_in(&self.code)
    }

    /// The code without `#[cfg(test)] mod name { ... }`, and the files that `#[cfg(test)] mod name;` means.
    pub(crate) fn split_tests(&self) -> (String, Vec<String>) {
        const MARK: &str = "#[cfg(test)]";
        let (mut code, mut files) = (self.code.clone(), Vec::new());
        let mut from = 0;
        while let Some(at) = code[from..].find(MARK).map(|at| from + at) {
            let after = at + MARK.len();
            from = after;
            let item = tokens(&code[after..]);
            let Some([name, then]) = module_after(&item) else { continue };
            if then.text == ";" {
                files.extend(self.files_of(name.text));
            } else if let Some(end) = closing_brace(&item) {
                let end = after + end;
                let blank: String =
                    code[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
                code.replace_range(at..end, &blank);
            }
        }
        (code, files)
    }

    /// Where the module `name`, declared in this file, may lie.
    fn files_of(&self, name: &str) -> [String; 2] {
        let (dir, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let stem = file.strip_suffix(".rs").unwrap_or(file);
        let home =
            if matches!(stem, "mod" | "lib" | "main") { dir.to_owned() } else { format!("{dir}/{stem}") };
        [format!("{home}/{name}.rs"), format!("{home}/{name}/mod.rs")]
    }
}

/// The name and what follows it, if the tokens begin with a module, whatever its visibility and attributes.
fn module_after<'t, 'c>(item: &'t [Token<'c>]) -> Option<[&'t Token<'c>; 2]> {
    let at = item.iter().position(|token| matches!(token.text, "mod" | ";" | "{" | "fn" | "use" | "impl"))?;
    let [word, name, then, ..] = item.get(at..)? else { return None };
    (word.text == "mod" && matches!(then.text, ";" | "{")).then_some([name, then])
}

/// Byte position behind the brace that closes the first one opened.
fn closing_brace(item: &[Token<'_>]) -> Option<usize> {
    let mut open = 0_usize;
    for token in item {
        match token.text {
            "{" => open += 1,
            "}" if open == 1 => return Some(token.at + 1),
            "}" => open = open.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

/// All paths that code (without comments and literals) names.
pub(crate) fn names_in(code: &str) -> Vec<Named> {
    let tokens = tokens(code);
    let mut names = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        // `use<'a>` in a bound is not an import.
        let import = token.text == "use" && tokens.get(at + 1).is_some_and(|next| next.text != "<");
        if import {
            at = tree(&tokens, at + 1, &[], &mut names);
        } else if token.is_word() {
            let mut parts = vec![token.text.to_owned()];
            while let Some([colons, word]) = tokens.get(at + 1..at + 3) {
                if colons.text != "::" || !word.is_word() {
                    break;
                }
                parts.push(word.text.to_owned());
                at += 2;
            }
            names.push(Named { line: token.line, parts });
            at += 1;
        } else {
            at += 1;
        }
    }
    names
}

/// Reads one tree of a `use` from `at`; returns where it ends.
fn tree(tokens: &[Token<'_>], mut at: usize, prefix: &[String], names: &mut Vec<Named>) -> usize {
    let mut parts = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.text {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| !matches!(token.text, "}" | ";")) {
                    at = tree(tokens, at, &parts, names);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.text == ","));
                }
                return at + 1;
            }
            word if token.is_word() || word == "*" => {
                let renamed = tokens.get(at + 1).is_some_and(|next| next.text == "as");
                let more = tokens.get(at + 1).is_some_and(|next| next.text == "::");
                if word != "self" || parts.is_empty() {
                    parts.push(word.to_owned());
                }
                at += if renamed { 3 } else { 1 };
                if !more {
                    names.push(Named { line: token.line, parts });
                    return at;
                }
            }
            _ => return at + 1,
        }
    }
    at
}

struct Token<'c> {
    text: &'c str,
    line: usize,
    /// Byte position.
    at: usize,
}

impl Token<'_> {
    fn is_word(&self) -> bool {
        self.text.starts_with(is_word_char)
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Words, `::`, and every other visible character by itself.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let (mut found, mut line, mut at) = (Vec::new(), 1, 0);
    while let Some(c) = code[at..].chars().next() {
        let rest = &code[at..];
        let length = if is_word_char(c) {
            rest.find(|c| !is_word_char(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        if !c.is_whitespace() {
            found.push(Token { text: &rest[..length], line, at });
        }
        line += usize::from(c == '\n');
        at += length;
    }
    found
}

/// Blanks comments, strings and characters; what is left stands where it stood.
fn without_comments_and_literals(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let raw = if is_word_char(before) { None } else { raw_string(rest) };
        if let Some(length) = comment(rest).or(raw).or_else(|| plain_literal(rest)) {
            let (gone, left) = rest.split_at(length);
            out.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            (rest, before) = (left, ' ');
        } else {
            out.push(c);
            (rest, before) = (&rest[c.len_utf8()..], c);
        }
    }
    out
}

/// Length of a comment at the start; block comments nest.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut open, mut at) = (0_usize, 0);
    while let Some(rest) = text.as_bytes().get(at..).filter(|rest| !rest.is_empty()) {
        let step = if rest.starts_with(b"/*") {
            open += 1;
            2
        } else if rest.starts_with(b"*/") {
            open -= 1;
            2
        } else {
            1
        };
        at += step;
        if open == 0 {
            return Some(at);
        }
    }
    Some(text.len())
}

/// Length of a raw string at the start.
fn raw_string(text: &str) -> Option<usize> {
    let prefixed = text.trim_start_matches(['b', 'c']);
    let raw = prefixed.strip_prefix('r').filter(|_| text.len() - prefixed.len() <= 1)?;
    let quoted = raw.trim_start_matches('#');
    let fence = "\"".to_owned() + &raw[..raw.len() - quoted.len()];
    let inside = quoted.strip_prefix('"')?;
    let end = inside.find(&fence).map_or(inside.len(), |at| at + fence.len());
    Some(text.len() - inside.len() + end)
}

/// Length of a quoted string or character at the start.
fn plain_literal(text: &str) -> Option<usize> {
    let mut chars = text.char_indices();
    let (_, quote) = chars.next()?;
    let is_lifetime = || {
        let mut after = text.chars().skip(1);
        after.next() != Some('\\') && after.next() != Some('\'')
    };
    if !matches!(quote, '"' | '\'') || (quote == '\'' && is_lifetime()) {
        return None;
    }
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            return Some(at + 1);
        }
    }
    Some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(code: &str) -> Vec<String> {
        let source = Source::new("src/x.rs", code);
        source.names().iter().filter(|named| named.parts.len() > 1).map(Named::text).collect()
    }

    #[test]
    fn paths_are_found_in_code_and_in_imports() {
        assert_eq!(paths("fn f() { let x = a::b::<T>(c::d); }"), ["a::b", "c::d"]);
        assert_eq!(paths("use a::b;"), ["a::b"]);
        assert_eq!(
            paths("pub(crate) use ::a::{self as z, b::{c, d::*}, e as f,}; g::h();"),
            ["a::b::c", "a::b::d::*", "a::e", "g::h"]
        );
        assert_eq!(paths("use {a::b, c::d};"), ["a::b", "c::d"]);
        assert_eq!(paths("fn f() -> impl Sized + use<'_> { a::b }"), ["a::b"]);
        assert_eq!(paths("$crate::a::b!()"), ["crate::a::b"]);
        assert_eq!(paths("use a::{self, b::{self}};"), ["a::b"], "`a` itself has one part");
    }

    #[test]
    fn comments_and_literals_name_nothing() {
        let silent = [
            "// a::b",
            "/* a::b /* a::b */ a::b */",
            "\"a::b\"",
            "\"\\\"a::b\"",
            "r\"\\\" ; r#\"a\"::b\"#",
            "br##\"a::\"#b\"##",
            "b\"a::b\"",
            "'\\'' ; \"a::b\" ; '\"' ; \"a::b\"",
            "b'\"' ; \"a::b\"",
        ];
        for code in silent {
            assert!(paths(code).is_empty(), "{code}: {:?}", paths(code));
        }
        assert_eq!(paths("fn f<'a>(x: &'a a::b) {} // c::d"), ["a::b"], "a lifetime opens no literal");
        assert_eq!(paths("\"x\" a::b '\\u{1F600}' c::d 'x' e::f"), ["a::b", "c::d", "e::f"]);
        assert_eq!(paths("let r#type = r#mod::x;"), ["mod::x"], "a raw word opens no string");
    }

    #[test]
    fn lines_stay_where_they_were() {
        let source = Source::new("src/x.rs", "/* 1\n2 */\n\"3\n4\" a::b\n");
        assert_eq!(source.names(), [Named { line: 4, parts: vec!["a".into(), "b".into()] }]);
    }

    #[test]
    fn beginnings_and_ends() {
        let named = |text: &str| Named { line: 1, parts: text.split("::").map(str::to_owned).collect() };
        assert!(named("std::fs::File").begins(&["std", "fs"]));
        assert!(named("std::*").begins(&["std", "fs"]), "a star may be anything");
        assert!(!named("std::fmt").begins(&["std", "fs"]));
        assert!(!named("std").begins(&["std", "fs"]));
        assert!(named("tokio::time::Instant::now").ends(&["Instant", "now"]));
        assert!(!named("now").ends(&["Instant", "now"]));
    }

    #[test]
    fn rooms_and_depths() {
        let place = |path: &str| {
            let source = Source::new(path, "");
            (source.room().map(str::to_owned), source.depth())
        };
        assert_eq!(place("src/clock.rs"), (Some("clock".into()), 1));
        assert_eq!(place("src/storage/mod.rs"), (Some("storage".into()), 1));
        assert_eq!(place("src/storage/disk/real.rs"), (Some("storage".into()), 3));
        assert_eq!(place("src/lib.rs"), (Some("lib".into()), 0));
        assert_eq!(place("tests/x.rs").0, None);
    }

    #[test]
    fn tests_are_told_from_code() {
        let code = "a::b();\n#[cfg(test)]\nmod tests {\n fn f() { c::d(); }\n}\ne::f();\n#[cfg(test)]\npub(super) mod conformance;\n#[cfg(test)]\nfn g() { h::i() }";
        let (left, files) = Source::new("src/storage/map.rs", code).split_tests();
        let names: Vec<_> = names_in(&left).into_iter().filter(|named| named.parts.len() > 1).collect();
        assert_eq!(names.iter().map(Named::text).collect::<Vec<_>>(), ["a::b", "e::f", "h::i"]);
        assert_eq!(names.iter().map(|named| named.line).collect::<Vec<_>>(), [1, 6, 10]);
        assert_eq!(files, ["src/storage/map/conformance.rs", "src/storage/map/conformance/mod.rs"]);
        let (_, files) = Source::new("src/storage/mod.rs", "#[cfg(test)] mod tests;").split_tests();
        assert_eq!(files[0], "src/storage/tests.rs");
    }
}
