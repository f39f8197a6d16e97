//! What a broker gives up, and that its backends do not (decision 14).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use broker_tests::{Daemon, Finished, Unpacked, Wire, World, agreed, hello};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// The names of a process's threads, and what `/proc` says about one right of each.
fn threads(pid: u32, field: &str) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread that has ended meanwhile has nothing to give up.
    let told = tasks.filter_map(|task| {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).ok()?.trim().to_owned();
        let status = fs::read_to_string(task.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        Some((name, line.trim().to_owned()))
    });
    told.collect()
}

/// What is set for all threads but the one that starts backends, which is the first, and not for that one.
fn is_set_but_for_the_spawner(pid: u32, field: &str, value: &str) {
    let threads = threads(pid, field);
    let names: Vec<_> = threads.iter().map(|(name, _)| name.as_str()).collect();
    // What has read a definition may have gone again.
    for name in ["brokerd", "broker-loop", "broker-events"] {
        assert!(names.contains(&name), "{threads:?}");
    }
    for (name, told) in &threads {
        assert_eq!(told, if name == "brokerd" { "0" } else { value }, "{field}: {threads:?}");
    }
}

fn start_backend(world: &World) -> u32 {
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    Wire::connect(Path::new(&pipe)).tell("?pid").parse().unwrap()
}

#[test]
fn no_thread_of_a_broker_can_gain_privileges_but_its_backends_can() {
    let world = World::new();
    world.define("cache", &[]);
    let broker = world.serve(&[]);
    let backend = start_backend(&world);
    is_set_but_for_the_spawner(broker.pid(), "NoNewPrivs", "1");
    for (field, threads) in ["NoNewPrivs", "Seccomp"].map(|field| (field, threads(backend, field))) {
        assert!(threads.iter().all(|(_, told)| told == "0"), "{field}: {threads:?}");
    }
    assert!(
        threads(broker.pid(), "Seccomp").iter().all(|(_, told)| told == "0"),
        "nobody asked for a sandbox"
    );
}

#[test]
fn a_broker_in_its_sandbox_serves_and_its_backends_are_in_none() {
    let world = World::new();
    world.define("cache", &[]);
    world.define("given", &["--label", "spawn.activation=listen-fds"]);
    let Some(broker) = sandboxed(&world) else { return };
    let backend = start_backend(&world);
    is_set_but_for_the_spawner(broker.pid(), "NoNewPrivs", "1");
    // 2 is a filter.
    is_set_but_for_the_spawner(broker.pid(), "Seccomp", "2");
    for (field, threads) in ["NoNewPrivs", "Seccomp"].map(|field| (field, threads(backend, field))) {
        assert!(threads.iter().all(|(_, told)| told == "0"), "{field}: {threads:?}");
    }
    let given = agreed(world.connect().say(&hello("given", "1.0.0"))).backend_pipe;
    assert_eq!(Wire::connect(given.as_ref()).tell("hi"), "hi");
    assert_eq!(world.ask("config")["values"]["broker"]["sandbox"]["value"], true);
    broker.stop();
    for left in [world.socket(), world.lock(), given.into()] {
        assert!(!left.exists(), "{}", left.display());
    }
    assert!(super::events(&world).len() > 2, "the event log was written");
}

#[test]
fn a_broker_in_its_sandbox_cannot_write_where_it_has_nothing_to_write() {
    let world = World::new();
    world.define("cache", &[]);
    world.serve(&[]).stop();
    let Some(mut broker) = sandboxed(&world) else { return };
    // The log's directory is moved away under it, so that what it opens anew lies elsewhere.
    let (log, elsewhere) = (world.state_dir(), world.path("elsewhere"));
    fs::rename(&log, &elsewhere).unwrap();
    fs::create_dir(&log).unwrap();
    fs::create_dir(log.join("events")).unwrap();
    start_backend(&world);
    let told = broker.wait_for_line("lifecycle events are dropped");
    assert!(told.contains("Permission denied"), "{told}");
    broker.stop();
    assert_eq!(fs::read_dir(log.join("events")).unwrap().count(), 0);
}

#[test]
fn a_broker_in_its_sandbox_says_where_it_can_write_an_archive_and_does() {
    let world = World::new();
    let Some(broker) = sandboxed(&world) else { return };
    let output = world.path("diagnose.tar.gz");
    let diagnose = |output: &Path| {
        let socket = world.socket();
        let command =
            ["diagnose", "--socket", socket.to_str().unwrap(), "--output", output.to_str().unwrap()];
        world.run(&command)
    };
    let refused = diagnose(&output);
    assert_eq!((refused.code(), refused.stdout.as_str()), (1, ""), "{refused:?}");
    assert!(refused.stderr.contains("--sandbox"), "{refused:?}");
    assert!(!output.exists());
    let instead = world.state_dir().join("diagnose.tar.gz");
    let next = format!("next: pass --output {}", instead.display());
    assert!(refused.stderr.contains(&next), "{refused:?}");
    let written = diagnose(&instead);
    assert!(written.is_success(), "{written:?}");
    assert_eq!(Unpacked::of(&instead).json("system/summary.json")["broker"]["sandbox"], true);
    broker.stop();
}

#[test]
fn a_broker_in_its_sandbox_goes_on_as_another_program_and_is_in_one_again() {
    let world = World::new();
    world.define("cache", &[]);
    let Some(broker) = sandboxed(&world) else { return };
    let backend = start_backend(&world);
    for _ in 0..2 {
        let upgraded = world.run(&["upgrade", "--socket", world.socket().to_str().unwrap()]);
        assert!(upgraded.is_success(), "{upgraded:?}");
        is_set_but_for_the_spawner(broker.pid(), "Seccomp", "2");
        assert_eq!(start_backend(&world), backend);
    }
    broker.stop();
}

#[test]
fn a_sandbox_that_the_kernel_does_not_offer_is_an_error_that_says_so() {
    for (means, call) in
        [("Landlock", libc::SYS_landlock_create_ruleset), ("seccomp filters", libc::SYS_seccomp)]
    {
        let world = World::new();
        let socket = world.socket();
        let arguments = ["serve", "--sandbox", "--socket", socket.to_str().unwrap()];
        let failed = std::thread::scope(|scope| {
            // A filter is this one thread's and of what it starts.
            let without = scope.spawn(|| {
                deny(call);
                Finished::of(&mut world.brokerd(&arguments))
            });
            without.join().unwrap()
        });
        assert_eq!(failed.code(), 1, "{failed:?}");
        assert!(failed.stderr.contains(&format!("does not offer {means}")), "{failed:?}");
        assert!(failed.stderr.contains("without --sandbox"), "{failed:?}");
        assert!(!world.socket().exists() && !world.lock().exists(), "nothing is left behind");
    }
}

#[test]
fn a_program_that_would_have_no_sandbox_is_not_upgraded_to_and_the_broker_goes_on() {
    let world = World::new();
    let file = world.path("my.toml");
    let write = |text: &str| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("");
    let socket = world.socket();
    let arguments = ["serve", "--socket", socket.to_str().unwrap(), "--config", file.to_str().unwrap()];
    std::thread::scope(|scope| {
        let without = scope.spawn(|| {
            deny(libc::SYS_landlock_create_ruleset);
            let broker = Daemon::start(&mut world.brokerd(&arguments));
            write("sandbox = true\n");
            let refused = world.run(&["upgrade", "--socket", socket.to_str().unwrap()]);
            assert_eq!(refused.code(), 1, "{refused:?}");
            assert!(refused.stdout.contains("does not offer Landlock"), "{refused:?}");
            assert!(world.run(&["readyz", "--socket", socket.to_str().unwrap()]).is_success());
            broker.stop();
        });
        without.join().unwrap();
    });
}

/// A broker with a sandbox; `None`, and a word on it, where this kernel has none.
fn sandboxed(world: &World) -> Option<Daemon> {
    let socket = world.socket();
    let mut command = world.brokerd(&["serve", "--sandbox", "--socket", socket.to_str().unwrap()]);
    if is_offered() {
        return Some(Daemon::start(&mut command));
    }
    let failed = Finished::of(&mut command);
    assert!(failed.stderr.contains("does not offer"), "{failed:?}");
    println!("not tested, as this kernel has no sandbox: {}", failed.stderr);
    None
}

/// Whether this kernel has Landlock, by its own answer: without it there is no such call, or it is turned off.
fn is_offered() -> bool {
    use landlock::{AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset.handle_access(AccessFs::WriteFile).and_then(Ruleset::create).is_ok()
}

/// Makes a system call one that this thread, and all that it starts, does not have.
fn deny(call: i64) {
    let no_such_call = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let rules = [(call, Vec::new())].into();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, no_such_call, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}
