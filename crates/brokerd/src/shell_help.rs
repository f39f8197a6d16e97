//! `brokerd completions` and `brokerd man`: the command line's own definition, for shells and as manual pages.
//!
//! Invariant: what `--help` does not show is in neither.

use std::path::Path;

use clap::{Arg, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use serde_json::json;

use crate::cli::{Cli, ManArgs};
use crate::failure::Failure;
use crate::output;

/// Prints a shell's completions.
pub(crate) fn completions(shell: Shell, is_json: bool) {
    let script = script(shell);
    if is_json {
        let content = json!({ "shell": shell.to_string(), "script": script });
        output::json_answer("completions", &content);
    } else {
        output::text_out(&script);
    }
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(&Cli::command()), "brokerd", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Prints the page of the whole program, or writes those of all its commands.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    let command = visible(&Cli::command());
    match &args.out {
        Some(dir) => {
            let mut files = Vec::new();
            list_pages(&command, &dir.join("brokerd"), &mut files);
            let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
            written.map_err(|error| {
                Failure::refused(format!("cannot write manual pages into {}: {error}", dir.display()))
                    .next("make that possible, or choose another directory with --out DIR")
            })?;
            if args.json {
                output::json_answer("man", &json!({ "files": files }));
            }
        }
        None => {
            let mut page = Vec::new();
            Man::new(command).render(&mut page).map_err(Failure::refused)?;
            let page = String::from_utf8_lossy(&page);
            if args.json {
                output::json_answer("man", &json!({ "page": page }));
            } else {
                output::text_out(&page);
            }
        }
    }
    Ok(())
}

/// The files of a command's page and of those below it, as they are written.
fn list_pages(command: &clap::Command, page: &Path, files: &mut Vec<String>) {
    files.push(format!("{}.1", page.display()));
    for below in command.get_subcommands() {
        list_pages(below, Path::new(&format!("{}-{}", page.display(), below.get_name())), files);
    }
}

/// The command without what is hidden: those who write completions show that, too.
fn visible(command: &clap::Command) -> clap::Command {
    let mut shown = clap::Command::new(command.get_name().to_owned())
        .args(command.get_arguments().filter(|arg| !Arg::is_hide_set(arg)).cloned())
        .subcommands(command.get_subcommands().filter(|command| !command.is_hide_set()).map(visible))
        .subcommand_required(command.is_subcommand_required_set());
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        shown = shown.version(version.to_owned());
    }
    if let Some(after) = command.get_after_help() {
        shown = shown.after_help(after.clone());
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;

    use clap::ValueEnum;

    use super::*;

    /// A command's page, and its options: those that are shown, and those that are not.
    struct Listed {
        page: String,
        word: String,
        is_hidden: bool,
        shown: Vec<String>,
        hidden: Vec<String>,
    }

    fn list(command: &clap::Command, page: String, all: &mut Vec<Listed>) {
        let options = |hidden: bool| {
            let of = command.get_arguments().filter(move |arg| arg.is_hide_set() == hidden);
            of.filter_map(Arg::get_long).map(str::to_owned).collect()
        };
        let (word, is_hidden) = (command.get_name().to_owned(), command.is_hide_set());
        all.push(Listed {
            page: page.clone(),
            word,
            is_hidden,
            shown: options(false),
            hidden: options(true),
        });
        for sub in command.get_subcommands() {
            list(sub, format!("{page}-{}", sub.get_name()), all);
        }
    }

    fn all() -> Vec<Listed> {
        let mut all = Vec::new();
        list(&Cli::command(), "brokerd".to_owned(), &mut all);
        assert!(all.len() > 20 && all.iter().any(|of| of.is_hidden));
        assert!(all.iter().any(|of| !of.hidden.is_empty()));
        all
    }

    /// Runs a program that has something to say about what was written; says so where there is none.
    fn accepts(program: &str, arguments: &[&str], file: &Path) {
        match Command::new(program).args(arguments).arg(file).env("LC_ALL", "C.UTF-8").output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && said.is_empty(), "{program} {}: {said}", file.display());
            }
            Err(error) => println!("not tested, as there is no {program} here: {error}"),
        }
    }

    #[test]
    fn completions_know_every_command_and_option_that_is_shown_and_no_other() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for of in all() {
                assert_eq!(script.contains(&of.word), !of.is_hidden, "{shell}: {}", of.page);
                // Fish writes an option without its dashes.
                for option in of.shown.iter().filter(|_| !of.is_hidden) {
                    assert!(script.contains(option), "{shell}: {} --{option}", of.page);
                }
                for option in &of.hidden {
                    assert!(!script.contains(option), "{shell}: {} --{option}", of.page);
                }
            }
        }
    }

    #[test]
    fn shells_read_their_completions() {
        let dir = tempfile::tempdir().unwrap();
        for (shell, program) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
            let file = dir.path().join(program);
            std::fs::write(&file, script(shell)).unwrap();
            accepts(program, &["-n"], &file);
        }
    }

    #[test]
    fn every_command_that_is_shown_has_a_page_with_its_options() {
        let dir = tempfile::tempdir().unwrap();
        man(&ManArgs { out: Some(dir.path().join("man1")), json: false }).unwrap();
        let mut told = Vec::new();
        list_pages(&visible(&Cli::command()), &dir.path().join("man1").join("brokerd"), &mut told);
        let written = std::fs::read_dir(dir.path().join("man1")).unwrap();
        let written: BTreeSet<_> = written.map(|entry| entry.unwrap().path().display().to_string()).collect();
        assert_eq!(BTreeSet::from_iter(told), written);
        for of in all() {
            let file = dir.path().join(format!("man1/{}.1", of.page));
            assert_eq!(file.exists(), !of.is_hidden, "{}", of.page);
            if of.is_hidden {
                continue;
            }
            let page = std::fs::read_to_string(&file).unwrap().replace("\\-", "-");
            for option in &of.shown {
                assert!(page.contains(&format!("--{option}")), "{} --{option}", of.page);
            }
            for option in &of.hidden {
                assert!(!page.contains(option), "{} --{option}", of.page);
            }
            // All come from one generator, and each takes its time to be set.
            if ["brokerd", "brokerd-serve", "brokerd-service-add"].contains(&&*of.page) {
                accepts("man", &["--warnings", "--local-file"], &file);
            }
        }
    }
}
