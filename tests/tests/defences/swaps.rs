//! Definitions and executables that are swapped under a broker that reads them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use broker_protocol::wire::{ErrorCode, hello_reply};
use broker_tests::{PATIENCE, Wire, World, agreed, hello};

use super::refusal;

/// How often the definition has changed, at least, before the test has seen enough.
const SWAPS: u32 = 2_000;
/// Backends that are started meanwhile. Each is a process.
const STARTS: u32 = 8;

/// Ends the swapping, also where the test has failed: nobody would wait for it otherwise.
struct EndsWith<'a>(&'a AtomicBool);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Puts each of these in the place of `target`, one after the other, until told to stop.
fn swap(target: &Path, candidates: &[PathBuf], is_over: &AtomicBool, count: &AtomicU32) {
    let temporary = target.with_extension("new");
    for candidate in candidates.iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        if candidate.is_symlink() {
            symlink(fs::read_link(candidate).unwrap(), &temporary).unwrap();
        } else {
            fs::copy(candidate, &temporary).unwrap();
        }
        fs::rename(&temporary, target).unwrap();
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_definition_that_is_swapped_all_the_time_is_one_of_those_there_were_or_a_refusal_and_never_a_mixture() {
    let world = World::new();
    let definition = world.definitions().join("cache.servicedef");
    // Each is of one piece: the floor, and two variables at both ends of a text that takes several pages.
    let candidates: Vec<PathBuf> = ["1.0.0", "2.0.0"]
        .iter()
        .map(|floor| {
            let mut options = vec!["--min-version".to_owned(), (*floor).to_owned()];
            let filling = "x".repeat(20_000);
            for variable in [format!("A={floor}"), format!("M={filling}"), format!("Z={floor}")] {
                options.extend(["--label".to_owned(), format!("env.{variable}")]);
            }
            world.define("cache", &options.iter().map(String::as_str).collect::<Vec<_>>());
            let candidate = world.path(&format!("definition-{floor}"));
            fs::copy(&definition, &candidate).unwrap();
            candidate
        })
        .chain([{
            let link = world.path("definition-link");
            symlink(world.path("definition-1.0.0"), &link).unwrap();
            link
        }])
        .collect();
    let _broker = world.serve(&["--hello-burst", "1000000", "--hello-refill", "1000000"]);
    let (is_over, swaps) = (AtomicBool::new(false), AtomicU32::new(0));
    let mut seen = [0; 3];
    std::thread::scope(|scope| {
        let swapping = scope.spawn(|| swap(&definition, &candidates, &is_over, &swaps));
        let _end = EndsWith(&is_over);
        let mut started = 0;
        while swaps.load(Ordering::Relaxed) < SWAPS || seen.contains(&0) || started < STARTS {
            assert!(!swapping.is_finished(), "nothing is swapped any more");
            // Below both floors, so that the answer says which one it is, and nothing is started for it.
            let (floor, refused) = floor(&world);
            match floor.as_deref() {
                Some("1.0.0") => seen[0] += 1,
                Some("2.0.0") => seen[1] += 1,
                _ => {
                    assert_eq!(refused.code(), ErrorCode::ErrorInternal, "{refused:?}");
                    assert_eq!(&refused.details["rule"], "unreadable", "{refused:?}");
                    assert!(refused.reason.contains("symbolic link"), "{refused:?}");
                    seen[2] += 1;
                }
            }
            if started < STARTS
                && let hello_reply::Result::Negotiated(negotiated) =
                    world.connect().say(&hello("cache", &format!("2.0.{started}")))
            {
                let mut backend = Wire::connect(negotiated.backend_pipe.as_ref());
                let ends = ["A", "Z"].map(|name| backend.tell(&format!("?env {name}")));
                assert!(ends[0] == ends[1] && ["1.0.0", "2.0.0"].contains(&&ends[0][..]), "{ends:?}");
                started += 1;
            }
        }
    });
}

/// The floor that a Hello below all of them is told of.
fn floor(world: &World) -> (Option<String>, broker_protocol::wire::Refused) {
    let refused = refusal(world, "0.1.0");
    let floor =
        (refused.code() == ErrorCode::ErrorVersionBlocked).then(|| refused.details["min_version"].clone());
    (floor, refused)
}

#[test]
fn a_program_that_a_link_leads_out_of_its_version_directory_is_not_started() {
    let world = World::new();
    let versions = world.path("versions");
    let outside = world.path("outside");
    fs::copy(World::program("echo-backend"), &outside).unwrap();
    for version in ["1.0.0", "2.0.0", "3.0.0", "4.0.0"] {
        fs::create_dir_all(versions.join(version)).unwrap();
        fs::copy(&outside, versions.join(version).join("echo")).unwrap();
    }
    let binary = versions.join("1.0.0/echo");
    let options = ["--binary", binary.to_str().unwrap(), "--version-dir", versions.to_str().unwrap()];
    let added = world.run(&[&["service", "add", "cache"][..], &options].concat());
    assert!(added.is_success(), "{added:?}");
    let _broker = world.serve(&[]);
    agreed(world.connect().say(&hello("cache", "1.0.0")));

    // After the definition was loaded: by the program itself, and by a directory on the way to it.
    let replace = |path: &Path, target: &Path| {
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        symlink(target, path).unwrap();
    };
    replace(&versions.join("2.0.0/echo"), &outside);
    fs::create_dir(world.path("elsewhere")).unwrap();
    fs::copy(&outside, world.path("elsewhere/echo")).unwrap();
    replace(&versions.join("3.0.0"), &world.path("elsewhere"));
    for version in ["2.0.0", "3.0.0"] {
        let refused = refusal(&world, version);
        assert_eq!(refused.code(), ErrorCode::ErrorBackendSpawnFailed, "{refused:?}");
        assert_eq!(&refused.details["stage"], "resolve", "{refused:?}");
        assert!(
            refused.details["cause"].contains("does not lie inside per_version_binary_dir"),
            "{refused:?}"
        );
    }
    // A link that stays inside is the user's own order.
    replace(&versions.join("4.0.0/echo"), &binary);
    agreed(world.connect().say(&hello("cache", "4.0.0")));
}

/// The process that executes this file, once there is one.
fn process_of(program: &Path) -> u32 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let found = processes.filter(|path| fs::read_link(path.join("exe")).is_ok_and(|exe| exe == program));
        if let Some(process) = found.last() {
            return process.file_name().unwrap().to_str().unwrap().parse().unwrap();
        }
        assert!(Instant::now() < deadline, "nobody executes {}", program.display());
        std::thread::yield_now();
    }
}

#[test]
fn a_program_that_is_replaced_after_its_start_is_known_by_the_file_that_runs() {
    let world = World::new();
    let binary = world.path("echo");
    fs::copy(World::program("echo-backend"), &binary).unwrap();
    let options = ["--binary", binary.to_str().unwrap(), "--label", "spawn.args=--delay-ms 200"];
    let added = world.run(&[&["service", "add", "cache"][..], &options].concat());
    assert!(added.is_success(), "{added:?}");
    let _broker = world.serve(&[]);
    let pipe = std::thread::scope(|scope| {
        let answer = scope.spawn(|| agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe);
        process_of(&binary);
        fs::rename(world.script("replacement", "exit 3"), &binary).unwrap();
        answer.join().unwrap()
    });
    let pid = Wire::connect(pipe.as_ref()).tell("?pid");
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(exe.to_string_lossy().ends_with("echo (deleted)"), "{}", exe.display());
    // And the next one is what lies there now.
    assert_eq!(&refusal(&world, "2.0.0").details["exit_status"], "3");
}
