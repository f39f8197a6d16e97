//! Brokers that an application starts because none runs.
//!
//! The application is this test in a process of its own, as what a broker inherits is a process's.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::path::{Component, Path, PathBuf};
use std::process::Command;

use broker_client::{Connector, Hello, PayloadProtocol, Session, SessionError, blocking};
use broker_tests::{Finished, PATIENCE, World};

const LANE: PayloadProtocol = PayloadProtocol::new(0xF001);

/// Set in the process that a test starts of itself: whom to start.
const PROGRAM_VARIABLE: &str = "BROKER_TESTS_PROGRAM";

/// Set with it: the endpoint of [`World::socket`].
const SOCKET_VARIABLE: &str = "BROKER_TESTS_SOCKET";

/// The program to start, in the process that is to start it.
fn program() -> Option<PathBuf> {
    std::env::var_os(PROGRAM_VARIABLE).map(PathBuf::from)
}

fn connector(program: &Path) -> Connector {
    let hello = Hello::new("cache".parse().unwrap(), "1.2.3".parse().unwrap());
    Connector::new(hello).start_broker(program).timeout(PATIENCE)
}

/// Who answers, by process id.
fn pid_behind(connector: &Connector) -> String {
    let answer = blocking::Session::connect(connector).unwrap().request(LANE, "?pid").unwrap();
    std::str::from_utf8(&answer).unwrap().to_owned()
}

/// For the broker of [`World::socket`], in the child of a test.
fn connector_there(program: &Path) -> Connector {
    connector(program).broker(PathBuf::from(std::env::var_os(SOCKET_VARIABLE).unwrap()))
}

/// Starts the broker of [`World::socket`] and talks to a backend, in the child of a test.
fn start_and_talk(program: &Path) {
    pid_behind(&connector_there(program));
}

/// A world whose service is defined.
fn world() -> World {
    let world = World::new();
    world.define("cache", &[]);
    world
}

/// The test of this name in a process of its own.
fn client(world: &World, test: &str, program: &Path) -> Command {
    let mut command = world.command(&std::env::current_exe().unwrap());
    command.args(["--exact", test]).env(PROGRAM_VARIABLE, program).env(SOCKET_VARIABLE, world.socket());
    command
}

/// The same, started by env(1) with this option. Those for signals are GNU's.
#[cfg(target_os = "linux")]
fn client_with(option: &str, world: &World, test: &str, program: &Path) -> Command {
    let client = client(world, test, program);
    let mut command = world.command("/usr/bin/env".as_ref());
    command.arg(option).arg(client.get_program()).args(client.get_args());
    command.envs(client.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// The process of the broker at [`World::socket`].
#[cfg(target_os = "linux")]
fn broker_pid(world: &World) -> u32 {
    world.ask("status")["broker_pid"].as_u64().unwrap().try_into().unwrap()
}

/// Ends the broker at [`World::socket`].
fn shutdown(world: &World) -> Finished {
    world.run(&["shutdown", "--socket", world.socket().to_str().unwrap()])
}

#[test]
fn a_broker_that_does_not_run_is_started_once_however_many_ask() {
    if let Some(program) = program() {
        return start_it_together(&program);
    }
    let world = world();
    let test = "a_broker_that_does_not_run_is_started_once_however_many_ask";
    let outcome = Finished::of(&mut client(&world, test, &World::program("brokerd")));
    // It outlives its client.
    let ended = world.run(&["shutdown", "--instance", "svc:cache"]);
    assert!(outcome.is_success() && outcome.stdout.contains("1 passed"), "{outcome:?}");
    assert!(ended.is_success(), "{ended:?}");
}

fn start_it_together(program: &Path) {
    // A connector each: they do not know of each other.
    let pids = std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(|| pid_behind(&connector(program))));
        threads.map(|thread| thread.join().unwrap())
    });
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut session = Session::connect(&connector(program)).await.unwrap();
        assert_eq!(session.request(LANE, "?pid").await.unwrap(), pids[0]);
    });
}

#[test]
fn an_async_application_starts_one_too() {
    if let Some(program) = program() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(async {
            // Also where it runs on whatever thread is free.
            let connecting = tokio::spawn(async move { Session::connect(&connector(&program)).await });
            assert_eq!(connecting.await.unwrap().unwrap().request(LANE, "?").await.unwrap(), "?");
        });
    }
    let world = world();
    let test = "an_async_application_starts_one_too";
    let outcome = Finished::of(&mut client(&world, test, &World::program("brokerd")));
    let ended = world.run(&["shutdown", "--instance", "svc:cache"]);
    assert!(outcome.is_success() && ended.is_success(), "{outcome:?} {ended:?}");
}

// By what /proc tells.
#[cfg(target_os = "linux")]
#[test]
fn a_broker_that_is_started_keeps_no_directory_in_use_and_takes_a_relative_socket() {
    if let Some(program) = program() {
        pid_behind(&connector(&program).broker("run/s.sock"));
        return;
    }
    let world = world();
    let test = "a_broker_that_is_started_keeps_no_directory_in_use_and_takes_a_relative_socket";
    let mut client = client(&world, test, &World::program("brokerd"));
    let outcome = Finished::of(client.current_dir(world.path("")));
    let directory = std::fs::read_link(format!("/proc/{}/cwd", broker_pid(&world)));
    let ended = shutdown(&world);
    assert!(outcome.is_success() && ended.is_success(), "{outcome:?} {ended:?}");
    assert_eq!(directory.unwrap(), Path::new("/"));
}

// A directory that is in use can be removed elsewhere.
#[cfg(windows)]
#[test]
fn a_broker_that_is_started_keeps_no_directory_in_use() {
    if let Some(program) = program() {
        return start_and_talk(&program);
    }
    let world = world();
    let directory = world.path("in-use");
    std::fs::create_dir(&directory).unwrap();
    let test = "a_broker_that_is_started_keeps_no_directory_in_use";
    let mut client = client(&world, test, &World::program("brokerd"));
    let outcome = Finished::of(client.current_dir(&directory));
    let removed = std::fs::remove_dir(&directory);
    let ended = shutdown(&world);
    assert!(outcome.is_success() && ended.is_success(), "{outcome:?} {ended:?}");
    removed.unwrap();
}

// By signals that a process is started with.
#[cfg(target_os = "linux")]
#[test]
fn a_broker_that_is_started_ends_by_a_signal_that_its_client_blocks_or_ignores() {
    if let Some(program) = program() {
        return start_and_talk(&program);
    }
    use rustix::process::{Pid, Signal, kill_process};
    let test = "a_broker_that_is_started_ends_by_a_signal_that_its_client_blocks_or_ignores";
    for (option, signal) in [("--block-signal=TERM", Signal::TERM), ("--ignore-signal=USR2", Signal::USR2)] {
        let world = world();
        let outcome = Finished::of(&mut client_with(option, &world, test, &World::program("brokerd")));
        let broker = broker_pid(&world);
        kill_process(Pid::from_raw(broker.try_into().unwrap()).unwrap(), signal).unwrap();
        let has_died = broker_tests::has_died(broker);
        if !has_died {
            shutdown(&world);
        }
        assert!(outcome.is_success() && has_died, "{option}: {outcome:?}");
    }
}

#[test]
fn a_bare_name_is_looked_for_in_the_absolute_directories_of_path_alone() {
    if let Some(program) = program() {
        return start_and_talk(&program);
    }
    let world = world();
    // What a relative directory means depends on who looks: where the client is, and where the broker is to be.
    // Whatever is there instead of the broker does not know its arguments.
    let decoys = world.path("decoys");
    std::fs::create_dir(&decoys).unwrap();
    let brokerd = World::program("brokerd");
    std::fs::copy(World::program("echo-backend"), decoys.join(brokerd.file_name().unwrap())).unwrap();
    let is_name = |component: &Component<'_>| matches!(component, Component::Normal(_));
    let from_root = decoys.components().filter(is_name).collect();
    let search = [PathBuf::from("decoys"), from_root, brokerd.parent().unwrap().to_owned()];
    let search = std::env::join_paths(search).unwrap();
    let test = "a_bare_name_is_looked_for_in_the_absolute_directories_of_path_alone";
    let mut client = client(&world, test, "brokerd".as_ref());
    let outcome = Finished::of(client.current_dir(world.path("")).env("PATH", search));
    let ended = shutdown(&world);
    assert!(outcome.is_success() && ended.is_success(), "{outcome:?} {ended:?}");
}

fn find_no_program(program: &Path) {
    let error = blocking::Session::connect(&connector_there(program)).unwrap_err();
    assert!(matches!(error, SessionError::NotStarted(_)), "{error}");
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    if let Some(program) = program() {
        return find_no_program(&program);
    }
    let world = World::new();
    let test = "a_program_that_is_not_there_is_an_error";
    let outcome = Finished::of(&mut client(&world, test, &world.path("absent/brokerd")));
    assert!(outcome.is_success() && outcome.stdout.contains("1 passed"), "{outcome:?}");
}

// By a signal that a process is started with.
#[cfg(target_os = "linux")]
#[test]
fn a_program_that_is_not_there_is_an_error_also_where_nobody_is_told_how_a_child_has_ended() {
    if let Some(program) = program() {
        return find_no_program(&program);
    }
    let world = World::new();
    let test = "a_program_that_is_not_there_is_an_error_also_where_nobody_is_told_how_a_child_has_ended";
    let program = world.path("absent/brokerd");
    let outcome = Finished::of(&mut client_with("--ignore-signal=CHLD", &world, test, &program));
    assert!(outcome.is_success() && outcome.stdout.contains("1 passed"), "{outcome:?}");
}

/// A client of a broker on its way out, which has no socket any more but still has its lock, until starts have
/// come to nothing a few times.
#[cfg(unix)]
fn meet_a_broker_on_its_way_out(client: impl FnOnce(&World, &Path) -> Command) {
    use std::fs::{DirBuilder, File};
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::DirBuilderExt;
    use std::sync::mpsc::channel;

    use rustix::fs::{FlockOperation, Mode, OFlags, flock};

    let world = world();
    DirBuilder::new().mode(0o700).create(world.path("run")).unwrap();
    let lock = File::create(world.path("run/s.sock.lock")).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();

    let failures = world.path("failures");
    assert!(Finished::of(Command::new("mkfifo").arg(&failures)).is_success());
    // For writing too: whoever writes does not wait then, and there is no end of file between two of them.
    let reader = rustix::fs::open(&failures, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let (sender, codes) = channel();
    std::thread::spawn(move || {
        BufReader::new(File::from(reader)).lines().map_while(|line| sender.send(line.ok()?).ok()).count()
    });
    let program = world.script(
        "program",
        &format!(
            r#"'{}' "$@"; code=$?; [ "$code" = 0 ] || echo "$code" >>'{}'; exit "$code""#,
            World::program("brokerd").display(),
            failures.display()
        ),
    );
    let mut client = broker_tests::Daemon::spawn(&mut client(&world, &program));
    let codes: Vec<_> = std::iter::from_fn(|| codes.recv_timeout(PATIENCE).ok()).take(3).collect();
    drop(lock);
    let outcome = client.wait();
    let ended = shutdown(&world);
    assert_eq!(codes, ["3"; 3]);
    assert!(outcome == Some(0) && ended.is_success(), "{outcome:?} {ended:?}");
}

// Windows executes no scripts, and has no file that tells what one has met.
#[cfg(unix)]
#[test]
fn a_start_that_meets_a_broker_on_its_way_out_is_repeated() {
    if let Some(program) = program() {
        return start_and_talk(&program);
    }
    let test = "a_start_that_meets_a_broker_on_its_way_out_is_repeated";
    meet_a_broker_on_its_way_out(|world, program| client(world, test, program));
}

// By a signal that a process is started with.
#[cfg(target_os = "linux")]
#[test]
fn a_start_is_repeated_also_where_nobody_is_told_how_a_child_has_ended() {
    if let Some(program) = program() {
        return start_and_talk(&program);
    }
    let test = "a_start_is_repeated_also_where_nobody_is_told_how_a_child_has_ended";
    meet_a_broker_on_its_way_out(|world, program| client_with("--ignore-signal=CHLD", world, test, program));
}
