//! Completions for bash, zsh and fish, written from the flag table.
//!
//! Each completes the options up to the command, then hands over to the shell's own completion of
//! that command. No value is ever suggested that would put a secret on the command line.

use super::table::{FLAGS, Flag, Hint};
use crate::config::CATALOGUE;

/// The script for this shell, or nothing for a shell that is not known.
pub(super) fn script(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

/// The words that can be offered as a value.
fn words(flag: &Flag) -> Vec<&'static str> {
    match flag.hint {
        Hint::Words(words) => words.to_vec(),
        Hint::Service => CATALOGUE.iter().map(|preset| preset.name).collect(),
        Hint::Nothing | Hint::File => Vec::new(),
    }
}

/// `-x` and `--long`, as far as they exist.
fn names(flag: &Flag) -> Vec<String> {
    let short = flag.short.map(|short| format!("-{short}"));
    short
        .into_iter()
        .chain([format!("--{}", flag.long)])
        .collect()
}

fn with_value() -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(|flag| flag.value.is_some())
}

fn bash() -> String {
    let every: Vec<_> = FLAGS.iter().flat_map(names).collect();
    let valued: Vec<_> = with_value().flat_map(names).collect();
    let mut values = String::new();
    for flag in with_value() {
        let offer = match (flag.hint, words(flag)) {
            (Hint::File, _) => String::from("compopt -o filenames; compgen=(-f)"),
            (_, words) if words.is_empty() => continue,
            (_, words) if words.iter().any(|word| word.ends_with(':')) => {
                format!("compopt -o nospace; compgen=(-W '{}')", words.join(" "))
            }
            (_, words) => format!("compgen=(-W '{}')", words.join(" ")),
        };
        values += &format!("    {}) {offer} ;;\n", names(flag).join("|"));
    }
    // bash splits words at `:` and `=`, so a value may span several of them.
    format!(
        r#"# bash completion for broker-exec
_broker_exec() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} option= i=1 compgen
    COMPREPLY=()
    while ((i < COMP_CWORD)); do
        case ${{COMP_WORDS[i]}} in
        --) ((i++)); break ;;
        {valued})
            option=${{COMP_WORDS[i]}}
            ((i++))
            [[ ${{COMP_WORDS[i]}} == = ]] && ((i++))
            if ((i >= COMP_CWORD)); then
                [[ $cur == = ]] && cur=
                break
            fi
            option=
            ((i++))
            while ((i < COMP_CWORD)) && [[ ${{COMP_WORDS[i]}} == [:=]* ]]; do ((i += 2)); done
            # The cursor is within a value that has begun: leave it to its author.
            if ((i > COMP_CWORD)) || [[ $cur == [:=]* ]]; then return; fi
            ;;
        -*) ((i++)) ;;
        *) break ;;
        esac
    done
    case $option in
{values}    -*) return ;;
    *)
        if ((i == COMP_CWORD)) && [[ $cur == -* && ${{COMP_WORDS[i - 1]}} != -- ]]; then
            compgen=(-W '{every}')
        elif declare -F _command_offset >/dev/null; then
            _command_offset "$i"
            return
        elif ((i == COMP_CWORD)); then
            compgen=(-c)
        else
            compopt -o filenames
            compgen=(-f)
        fi
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen "${{compgen[@]}}" -- "$cur")
}}
complete -F _broker_exec broker-exec
"#,
        valued = valued.join("|"),
        every = every.join(" "),
    )
}

fn zsh() -> String {
    let mut specs = String::new();
    for flag in FLAGS {
        let names = names(flag);
        // In a spec, brackets and colons are the syntax and a quote ends the word.
        let help = flag.help.replace('[', "\\[").replace(']', "\\]");
        let help = help.replace(':', "\\:").replace('\'', "'\\''");
        let action = match flag.hint {
            Hint::File => String::from("_files"),
            // A lone blank: show what is expected, offer nothing.
            _ if words(flag).is_empty() => String::from(" "),
            _ => format!("({})", words(flag).join(" ").replace(':', "\\:")),
        };
        let value = match flag.value {
            Some(value) => format!(":{value}:{action}"),
            None => String::new(),
        };
        for name in &names {
            let excludes = match flag.repeatable {
                true => String::from("*"),
                false => format!("({})", names.join(" ")),
            };
            // `+` lets a value be attached, `=` lets it follow an equals sign.
            let attach = match (flag.value.is_some(), name.starts_with("--")) {
                (false, _) => "",
                (true, false) => "+",
                (true, true) => "=",
            };
            specs += &format!("  '{excludes}{name}{attach}[{help}]{value}' \\\n");
        }
    }
    format!(
        "#compdef broker-exec\n\
         # zsh completion for broker-exec\n\
         _arguments -s -S -A '-*' \\\n\
         {specs}  '(-)1:command:_command_names -e' \\\n  '*::argument:_normal'\n"
    )
}

fn fish() -> String {
    let valued: Vec<_> = with_value().flat_map(names).collect();
    let mut text = format!(
        "# fish completion for broker-exec\n\
         complete -c broker-exec -x -a '(__fish_complete_subcommand -- {})'\n",
        valued.join(" ")
    );
    for flag in FLAGS {
        text += "complete -c broker-exec";
        if let Some(short) = flag.short {
            text += &format!(" -s {short}");
        }
        text += &format!(" -l {}", flag.long);
        match (flag.value, flag.hint) {
            (None, _) => {}
            (Some(_), Hint::File) => text += " -r -F",
            (Some(_), _) if words(flag).is_empty() => text += " -x",
            (Some(_), _) => text += &format!(" -x -a '{}'", words(flag).join(" ")),
        }
        text += &format!(" -d '{}'\n", flag.help.replace('\'', "\\'"));
    }
    text
}
