//! Every input that is kept, once more: what was found stays found, without a fuzzer. The seeds name places as
//! Unix does.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use broker_fuzz::{CORPUS, REGRESSIONS, TARGETS, Target};

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths
}

fn names(folder: &str) -> BTreeSet<String> {
    let folders = entries(Path::new(folder));
    folders.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Runs a target on every input in a folder, and names all that it fails on.
fn replay(target: &Target, folder: &str) {
    let failed: Vec<_> = entries(&Path::new(folder).join(target.name))
        .into_iter()
        .filter(|path| {
            let bytes = fs::read(path).unwrap();
            catch_unwind(|| (target.run)(&bytes)).is_err()
        })
        .collect();
    assert_eq!(failed, Vec::<PathBuf>::new(), "{} fails on these", target.name);
}

macro_rules! replays {
    ($($target:ident),+ $(,)?) => {
        $(
            mod $target {
                #[test]
                fn keeps_its_word_on_every_input_that_is_kept() {
                    let target = super::target(stringify!($target));
                    super::replay(target, super::CORPUS);
                    super::replay(target, super::REGRESSIONS);
                }
            }
        )+

        const REPLAYED: &[&str] = &[$(stringify!($target)),+];
    };
}

replays! {
    admin, configuration, connection, control, decision, definition, disk_entry, frame, framing, handoff, hello,
    hello_reply, manifest, mux, names,
}

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap()
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names(CORPUS), targets);
    assert!(names(REGRESSIONS).is_subset(&targets), "{:?}", names(REGRESSIONS));
    assert_eq!(REPLAYED.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), targets);
    for target in TARGETS {
        assert!(!entries(&Path::new(CORPUS).join(target.name)).is_empty(), "{} has no input", target.name);
    }
}

#[test]
fn every_target_is_a_program_that_cargo_fuzz_builds() {
    let manifest = fs::read_to_string(Path::new(CORPUS).join("../Cargo.toml")).unwrap();
    for target in TARGETS {
        let program = Path::new(CORPUS).join("../fuzz_targets").join(target.name).with_extension("rs");
        let call = format!("broker_fuzz::{}::target(bytes)", target.name);
        assert!(fs::read_to_string(&program).unwrap().contains(&call), "{}", program.display());
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
    }
}

#[test]
fn every_seed_is_kept_as_it_is_made() {
    for target in TARGETS {
        for seed in (target.seeds)() {
            let path = Path::new(CORPUS).join(target.name).join(&seed.name);
            let kept = fs::read(&path);
            assert!(
                kept.is_ok_and(|kept| kept == seed.bytes),
                "{}: run `cargo run -p broker-fuzz`",
                path.display()
            );
        }
    }
}
