//! The manual page, the README, `--help` and the completions say what the flag table says: nothing
//! less, nothing more.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use broker_exec::Error;
use broker_exec::cli::{self, FLAGS, Flag, Invocation};

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect(name)
}

fn printed(args: &[&str]) -> String {
    match cli::parse(args.iter().map(OsString::from)) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{args:?}: {other:?}"),
    }
}

/// The part of the manual page under this heading, up to the next.
fn section(heading: &str) -> String {
    let page = file("man/broker-exec.1");
    let from = page
        .split_once(&format!("\n.Sh {heading}\n"))
        .expect(heading)
        .1;
    from.split("\n.Sh ")
        .next()
        .expect("split gives at least one")
        .to_owned()
}

/// Every `--word` in a text.
fn long_options(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("--") {
        let before = text[..at].chars().next_back();
        let name: String = text[at + 2..]
            .chars()
            .take_while(|&c| c.is_ascii_alphanumeric() || c == '-')
            .collect();
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic());
        if starts && !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '-') {
            found.insert(name);
        }
    }
    found
}

fn table() -> BTreeSet<String> {
    FLAGS.iter().map(|flag| flag.long.to_owned()).collect()
}

/// The item of an option as the manual page should begin it.
fn heading(flag: &Flag) -> String {
    let short = flag
        .short
        .map(|short| format!("Fl {short} , "))
        .unwrap_or_default();
    let value = flag
        .value
        .map(|value| format!(" Ar {}", value.replace('=', " Ns = Ns Ar ")));
    format!("{short}Fl Fl {}{}", flag.long, value.unwrap_or_default())
}

#[test]
fn the_manual_page_has_the_options_of_the_table() {
    let options = section("OPTIONS");
    let items: Vec<_> = options.split("\n.It Fl ").skip(1).collect();
    let found: Vec<_> = items
        .iter()
        .map(|item| item.lines().next().unwrap_or(""))
        .collect();
    let want: Vec<_> = FLAGS.iter().map(heading).collect();
    let want: Vec<_> = want
        .iter()
        .map(|line| line.trim_start_matches("Fl "))
        .collect();
    // A long option alone begins with `Fl Fl`, of which the split and the trim took both.
    let found: Vec<_> = found
        .iter()
        .map(|line| line.trim_start_matches("Fl "))
        .collect();
    assert_eq!(found, want);
    for (flag, item) in FLAGS.iter().zip(items) {
        let default = item.split_once("The default is ").map(|(_, rest)| {
            rest.split(['.', ','])
                .next()
                .expect("split gives at least one")
        });
        assert_eq!(default, flag.default, "the default of --{}", flag.long);
        assert_eq!(
            item.lines().any(|line| line == "Repeatable."),
            flag.repeatable,
            "--{}",
            flag.long
        );
    }
}

#[test]
fn the_manual_page_names_no_other_option() {
    let page = file("man/broker-exec.1");
    let lines: Vec<_> = page
        .lines()
        .map(|line| line.replace("Fl Fl ", "--"))
        .collect();
    let named = long_options(&lines.join("\n"));
    assert_eq!(named, table());
    for line in page.lines().filter(|line| line.starts_with(".Fl ")) {
        let name = line.split(' ').nth(1).expect("a macro with an argument");
        let known = |flag: &Flag| flag.short.is_some_and(|short| name == short.to_string());
        assert!(
            name == "Fl" || name == "-" || FLAGS.iter().any(known),
            "{line}"
        );
    }
}

#[test]
fn help_has_the_options_of_the_table() {
    let help = printed(&["--help"]);
    assert_eq!(long_options(&help), table());
    for flag in FLAGS {
        let short = flag.short.map(|short| format!("-{short}, "));
        let start = format!("  {}--{} ", short.as_deref().unwrap_or("    "), flag.long);
        let line = help
            .lines()
            .find(|line| line.starts_with(&start))
            .expect(&start);
        assert!(
            flag.value
                .is_none_or(|value| line.contains(&format!(" {value} "))),
            "{line}"
        );
        let default = flag.default.map(|default| format!(" ({default})"));
        assert!(
            default.is_none_or(|default| line.ends_with(&default)),
            "{line}"
        );
    }
}

#[test]
fn the_completions_have_the_options_of_the_table() {
    let [bash, zsh, fish] = ["bash", "zsh", "fish"].map(|shell| printed(&["--completions", shell]));
    assert_eq!(long_options(&bash), table());
    assert_eq!(long_options(&zsh), table());
    let fish_options: BTreeSet<_> = fish
        .lines()
        .filter_map(|line| line.split_once(" -l "))
        .map(|(_, rest)| {
            rest.split(' ')
                .next()
                .expect("split gives at least one")
                .to_owned()
        })
        .collect();
    assert_eq!(fish_options, table());
    for flag in FLAGS {
        let Some(short) = flag.short else { continue };
        let both = format!("-{short} --{}", flag.long);
        assert!(bash.contains(&both), "bash: {both}");
        assert!(zsh.contains(&format!("({both})-{short}")), "zsh: {both}");
        assert!(
            fish.contains(&format!(" -s {short} -l {}", flag.long)),
            "fish: {both}"
        );
    }
}

#[test]
fn the_readme_names_no_option_that_does_not_exist() {
    let readme = file("README.md");
    let named = long_options(&readme);
    let unknown: Vec<_> = named.difference(&table()).cloned().collect();
    assert_eq!(unknown, Vec::<String>::new());
    for flag in FLAGS
        .iter()
        .filter(|flag| flag.short.is_some() && flag.value.is_some())
    {
        assert!(named.contains(flag.long), "README.md lacks --{}", flag.long);
    }
    assert!(
        readme.contains("man/broker-exec.1"),
        "README.md refers to the manual page"
    );
}

#[test]
fn the_exit_statuses_are_told_as_they_are() {
    let io = || std::io::Error::from_raw_os_error(13);
    let ours = [
        Error::Usage(String::new()),
        Error::Credential(String::new()),
        Error::Protection(String::new()),
        Error::System(String::new(), io()),
        Error::NotExecutable(OsString::new(), io()),
        Error::NotFound(OsString::new()),
    ];
    let want: BTreeSet<_> = ours
        .iter()
        .map(|err| err.exit_status().to_string())
        .collect();
    let section = section("EXIT STATUS");
    let items = section.lines().filter_map(|line| line.strip_prefix(".It "));
    assert_eq!(items.map(String::from).collect::<BTreeSet<_>>(), want);
    let (help, readme) = (printed(&["--help"]), file("README.md"));
    for status in &want {
        assert!(help.contains(status), "--help lacks {status}");
        assert!(readme.contains(status), "README.md lacks {status}");
    }
}

#[test]
fn the_variables_that_the_command_gets_are_described() {
    let mut sources = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut set = BTreeSet::new();
    while let Some(path) = sources.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder of the source");
            sources.extend(entries.map(|entry| entry.expect("an entry").path()));
            continue;
        }
        let text = fs::read_to_string(&path).expect("UTF-8");
        for (at, _) in text.match_indices("\"BROKER_EXEC_") {
            let name = text[at + 1..]
                .split('"')
                .next()
                .expect("split gives at least one");
            set.insert(
                name.split('=')
                    .next()
                    .expect("split gives at least one")
                    .to_owned(),
            );
        }
    }
    let described = section("ENVIRONMENT");
    let described = described
        .lines()
        .filter_map(|line| line.strip_prefix(".It Ev "));
    let described: BTreeSet<_> = described
        .filter(|name| name.starts_with("BROKER_EXEC_"))
        .map(String::from)
        .collect();
    set.retain(|name| !name.contains("TEST"));
    assert_eq!(set, described);
}

#[test]
fn a_word_with_two_dashes_is_told_from_the_rest() {
    let text = "--a-b, `--c=1` -- x--y ---z (--d) 1--e\n--f";
    let found: Vec<_> = long_options(text).into_iter().collect();
    assert_eq!(found, ["a-b", "c", "d", "f"]);
}
