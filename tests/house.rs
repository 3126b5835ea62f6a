//! The house keeps its order: rooms import only from floors below, in no circle; `unsafe` stands in
//! the cellar alone; no room grows past its walls.
//!
//! What is read is the text of `src/`, less comments and literals. The checker is tried on wrong
//! houses too: one that cannot fail proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// From the roof down. A room may import from every floor below its own.
const FLOORS: &[&str] = &[
    "main",
    "unsupported",
    "doctor",
    "run",
    "closure",
    "cli",
    "config",
    "door",
    "forward",
    "service",
    "credential",
    "child",
    "audit",
    "http",
    "error",
    "sys",
];

/// Lines in a file of `src/`.
const WALLS: usize = 450;

/// A house as it should not be has these faults.
fn faults(files: &[(&str, &str)]) -> BTreeSet<String> {
    let mut faults = BTreeSet::new();
    let mut rooms = BTreeMap::new();
    let mut corners = BTreeMap::new();
    for &(path, text) in files {
        let lines = text.lines().count();
        if lines > WALLS {
            faults.insert(format!("{path}: {lines} lines, more than {WALLS}"));
        }
        let tokens = tokens(text);
        if tokens.contains(&"unsafe") && !path.starts_with("sys/") {
            faults.insert(format!("{path}: unsafe outside sys/"));
        }
        // The crate's root declares the rooms and re-exports from them.
        if path == "lib.rs" {
            continue;
        }
        let place = Place::of(path);
        let Some(floor) = FLOORS.iter().position(|&room| room == place.room) else {
            faults.insert(format!("{path}: {} is on no floor", place.room));
            continue;
        };
        for target in imports(&tokens, &place) {
            let (room, corner) = (target[0], target.get(1));
            if room == place.room {
                if let (Some(from), Some(to)) = (place.corner, corner) {
                    edge(
                        &mut corners,
                        &format!("{room}/{from}"),
                        &format!("{room}/{to}"),
                    );
                }
                continue;
            }
            edge(&mut rooms, place.room, room);
            match FLOORS.iter().position(|&other| other == room) {
                Some(other) if other > floor => {}
                Some(_) => {
                    faults.insert(format!("{path}: imports from {room}, which is above"));
                }
                None => {
                    faults.insert(format!("{path}: imports from {room}, which is on no floor"));
                }
            }
        }
    }
    faults.extend(circles(&rooms));
    faults.extend(circles(&corners));
    faults
}

type Graph = BTreeMap<String, BTreeSet<String>>;

fn edge(graph: &mut Graph, from: &str, to: &str) {
    if from != to {
        graph.entry(from.into()).or_default().insert(to.into());
    }
}

/// Every node that can reach itself.
fn circles(graph: &Graph) -> Vec<String> {
    let reaches_itself = |start: &String| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<_> = graph[start].iter().collect();
        while let Some(node) = next.pop() {
            if node == start {
                return true;
            }
            if seen.insert(node) {
                next.extend(graph.get(node).into_iter().flatten());
            }
        }
        false
    };
    let in_circle = graph.keys().filter(|node| reaches_itself(node));
    in_circle
        .map(|node| format!("{node}: in a circle"))
        .collect()
}

/// Where in the house a file stands.
struct Place<'a> {
    room: &'a str,
    /// The file within a room that is a folder, unless it is the room's door, `mod.rs`.
    corner: Option<&'a str>,
}

impl<'a> Place<'a> {
    /// `a.rs`, `a/mod.rs`, `a/b.rs` or `a/b/c.rs`.
    fn of(path: &'a str) -> Place<'a> {
        let path = path.trim_end_matches(".rs");
        let (room, rest) = path.split_once('/').unwrap_or((path, "mod"));
        let corner = rest.split('/').next().filter(|&corner| corner != "mod");
        Place { room, corner }
    }
}

/// The paths that a file names from the crate's root: a room, and what is next in the path.
fn imports<'a>(tokens: &[&'a str], place: &Place<'a>) -> Vec<Vec<&'a str>> {
    let mut found = Vec::new();
    for (at, &token) in tokens.iter().enumerate() {
        let is_path = tokens.get(at + 1) == Some(&"::");
        let rest = tokens.get(at + 2..).unwrap_or_default();
        // A library of the crate's own name is the crate itself, seen from its programs.
        if is_path && (token == "crate" || token == "broker_exec") {
            let paths = leaves(rest);
            found.extend(paths.into_iter().filter(|path| starts_with_room(path)));
        }
        if is_path && token == "super" && !matches!(tokens[..at], [.., "super", "::"]) {
            for path in leaves(rest) {
                match place.corner {
                    // From a corner, `super` is its room; twice is the crate's root.
                    Some(_) if path[0] == "super" => found.push(path[1..].to_vec()),
                    Some(_) => found.push([&[place.room][..], &path].concat()),
                    // From a room it is the root, unless a test module within it speaks.
                    None if FLOORS.contains(&path[0]) => found.push(path),
                    None => {}
                }
            }
        }
    }
    found.retain(|path| !path.is_empty());
    found
}

/// `crate::Error` and the like name what the root re-exports, not a room.
fn starts_with_room(path: &[&str]) -> bool {
    path[0].starts_with(|first: char| first.is_lowercase())
}

/// The paths at the head of these tokens: one, or the members of a group.
fn leaves<'a>(tokens: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut leaves = Vec::new();
    if tokens.first() != Some(&"{") {
        let path = tokens.chunks(2).take_while(|pair| is_name(pair[0]));
        let mut names = Vec::new();
        for pair in path {
            names.push(pair[0]);
            if pair.get(1) != Some(&"::") {
                break;
            }
        }
        if !names.is_empty() {
            leaves.push(names);
        }
        return leaves;
    }
    let (mut depth, mut start) = (0, true);
    for (at, &token) in tokens.iter().enumerate() {
        match token {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ if start && depth == 1 && is_name(token) => {
                leaves.extend(self::leaves(&tokens[at..]))
            }
            _ => {}
        }
        start = depth == 1 && matches!(token, "{" | ",");
        if depth == 0 {
            break;
        }
    }
    leaves
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Names, `::` and single characters; comments, literals and white space are left out.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = literal(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let length = end.unwrap_or(rest.len());
            tokens.push(&rest[..length]);
            length
        } else if rest.starts_with("::") {
            tokens.push("::");
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(&rest[..first.len_utf8()]);
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let (step, change) = match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        at += step;
        depth += change;
        if depth == 0 {
            break;
        }
    }
    // Only ASCII bytes end a comment, so this is a boundary, or the end of the text.
    at
}

/// The length of a string or character literal, if one begins here.
fn literal(text: &str) -> Option<usize> {
    let body = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - body.len();
    if prefix > 1 {
        return None;
    }
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let inner = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = inner.find(&end).map_or(inner.len(), |at| at + end.len());
        return Some(prefix + 1 + hashes + 1 + length);
    }
    let quote = body.chars().next().filter(|&c| c == '"' || c == '\'')?;
    if quote == '\'' {
        // A lifetime is no literal: a name and no closing quote.
        let mut next = body[1..].chars();
        let first = next.next()?;
        if first != '\\' && next.next() != Some('\'') {
            return None;
        }
    }
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        if c == quote && !escaped {
            return Some(prefix + at + 1);
        }
        escaped = c == '\\' && !escaped;
    }
    Some(text.len())
}

fn read(dir: &Path, below: &str, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).expect("a folder of the source") {
        let entry = entry.expect("an entry of that folder");
        let name = below.to_owned() + entry.file_name().to_str().expect("a plain name");
        if entry.path().is_dir() {
            read(&entry.path(), &(name + "/"), files);
        } else if name.ends_with(".rs") {
            files.push((name, fs::read_to_string(entry.path()).expect("UTF-8")));
        }
    }
}

#[test]
fn the_house_keeps_its_order() {
    let mut files = Vec::new();
    read(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        "",
        &mut files,
    );
    assert!(files.len() > 15, "the source was not found");
    let files: Vec<_> = files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    let faults: Vec<_> = faults(&files).into_iter().collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// The one fault of a house with these rooms.
fn fault(files: &[(&str, &str)]) -> String {
    let faults: Vec<_> = faults(files).into_iter().collect();
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults[0].clone()
}

#[test]
fn importing_from_above_is_a_fault() {
    let above = "http/body.rs: imports from forward, which is above";
    for text in [
        "use crate::forward::Exchange;",
        "use crate::{error::Error, forward};",
        "use crate::{\n    error::{Error, Result},\n    forward::{self, Exchange},\n};",
        "fn f() { crate::forward::go() }",
        "pub(crate) use crate :: forward;",
        "use super::super::forward::Exchange;",
        "fn f<'a>(x: &'a str) -> char { crate::forward::go(x); '\"' }",
    ] {
        assert_eq!(fault(&[("http/body.rs", text)]), above, "{text}");
    }
    for text in ["use super::run;", "use crate::run::main;"] {
        let fault = fault(&[("cli/mod.rs", text)]);
        assert_eq!(
            fault, "cli/mod.rs: imports from run, which is above",
            "{text}"
        );
    }
}

#[test]
fn importing_from_below_is_none() {
    let house = [
        (
            "lib.rs",
            "pub mod run; pub use run::Broker; use crate::run::x;",
        ),
        ("main.rs", "fn main() { broker_exec::run::main() }"),
        (
            "run.rs",
            "use crate::{cli, error::Error, sys::fd}; use crate::Error as E;",
        ),
        (
            "http/mod.rs",
            "mod body; #[cfg(test)] mod tests { use super::*; }",
        ),
        (
            "http/body.rs",
            "use super::headers; use crate::error::Error;",
        ),
        ("http/headers.rs", "use super::Limits; pub(crate) fn f() {}"),
        ("sys/fd.rs", "unsafe fn f() {}"),
    ];
    assert_eq!(faults(&house), BTreeSet::new());
}

#[test]
fn comments_and_literals_are_not_imports() {
    let text = r##"
        //! use crate::run;  unsafe
        /* use crate::run; /* nested */ unsafe */
        const A: &str = "unsafe crate::run \" crate::run";
        const B: &str = r#"unsafe " crate::run"#;
        const C: &[u8] = b"unsafe";
        const D: [char; 3] = ['"', '\'', '\\'];
        #![deny(unsafe_code)]
    "##;
    assert_eq!(
        faults(&[("sys/fd.rs", ""), ("error.rs", text)]),
        BTreeSet::new()
    );
}

#[test]
fn a_circle_is_a_fault() {
    let corners = [
        ("http/body.rs", "use super::headers;"),
        ("http/headers.rs", "use crate::http::chunk::Chunk;"),
        ("http/chunk.rs", "use super::{Limits, body::Body};"),
    ];
    let found = faults(&corners);
    let want = ["http/body", "http/chunk", "http/headers"];
    assert_eq!(
        found,
        want.map(|corner| format!("{corner}: in a circle")).into()
    );
    let rooms = [
        ("error.rs", "use crate::sys;"),
        ("sys/mod.rs", "use crate::error;"),
    ];
    assert!(faults(&rooms).contains("error: in a circle"));
}

#[test]
fn unsafe_outside_the_cellar_is_a_fault() {
    for text in [
        "fn f() { unsafe { g() } }",
        "#[unsafe(no_mangle)]",
        "unsafe impl Send for X {}",
    ] {
        assert_eq!(
            fault(&[("door/control.rs", text)]),
            "door/control.rs: unsafe outside sys/"
        );
    }
}

#[test]
fn a_room_past_its_walls_is_a_fault() {
    assert!(faults(&[("error.rs", &"\n".repeat(WALLS))]).is_empty());
    let fault = fault(&[("error.rs", &"\n".repeat(WALLS + 1))]);
    assert_eq!(fault, "error.rs: 451 lines, more than 450");
}

#[test]
fn a_room_on_no_floor_is_a_fault() {
    assert_eq!(fault(&[("attic.rs", "")]), "attic.rs: attic is on no floor");
    let unknown = fault(&[("cli/mod.rs", "use crate::attic;")]);
    assert_eq!(
        unknown,
        "cli/mod.rs: imports from attic, which is on no floor"
    );
}
