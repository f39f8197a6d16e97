//! Another process with the pid of a backend that has died: neither signalled nor trusted.
//!
//! A pid that somebody wants is to be had in a pid namespace of one's own, where nobody else takes numbers
//! (pid_namespaces(7)). So each test starts itself there.

use std::fs;
use std::process::{Child, Command, Stdio};

use broker_protocol::wire::hello_reply;
use broker_tests::{Finished, Wire, World, agreed, hello, kill};

use super::is_root;

/// Set where the test runs in a namespace of its own.
const INSIDE: &str = "BROKER_TESTS_PID_NAMESPACE";

/// Runs this test once more in a pid namespace; `true` there.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if is_root("giving a process a chosen pid") {
        const OPTIONS: [&str; 4] = ["--pid", "--fork", "--kill-child", "--mount-proc"];
        let tried = Finished::of(Command::new("unshare").args(OPTIONS).arg("true"));
        if !tried.is_success() {
            eprintln!("not shown, as this system lets nobody have a pid namespace: {}", tried.stderr);
            return false;
        }
        let mut inside = Command::new("unshare");
        inside.args(OPTIONS).arg(std::env::current_exe().unwrap());
        inside.args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
        let outcome = Finished::of(&mut inside);
        assert!(outcome.is_success() && outcome.stdout.contains("1 passed"), "{outcome:?}");
    }
    false
}

/// A process with this pid, which nobody has any more.
struct Impostor(Child);

impl Impostor {
    fn with(pid: u32) -> Self {
        // Threads take numbers, too: it may take more than one attempt.
        for _ in 0..1_000 {
            fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
            let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
            if child.id() == pid {
                return Self(child);
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        panic!("pid {pid} is not to be had");
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pid_behind(pipe: &str) -> u32 {
    Wire::connect(pipe.as_ref()).tell("?pid").parse().unwrap()
}

#[test]
fn a_process_with_the_pid_of_a_started_backend_that_died_is_neither_signalled_nor_trusted() {
    if !is_inside(
        "reused_pid::a_process_with_the_pid_of_a_started_backend_that_died_is_neither_signalled_nor_trusted",
    ) {
        return;
    }
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = world.serve(&[]);
    let pid = pid_behind(&agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe);
    kill(pid);
    broker.wait_for_line("DIED_CRASH");
    let mut impostor = Impostor::with(pid);
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    assert_ne!(pid_behind(&pipe), pid, "a new one was started");
    let backends = world.ask("status")["backends"].clone();
    assert!(backends.as_array().unwrap().iter().all(|backend| backend["pid"] != pid), "{backends}");
    broker.stop();
    assert!(impostor.lives(), "it was not taken for a backend when the broker ended its own");
}

#[test]
fn a_process_with_the_pid_of_a_registered_backend_that_died_is_neither_signalled_nor_trusted() {
    if !is_inside(
        "reused_pid::a_process_with_the_pid_of_a_registered_backend_that_died_is_neither_signalled_nor_trusted",
    ) {
        return;
    }
    let world = World::new();
    world.define("cache", &[]);
    let endpoint = world.endpoint("own/b.sock");
    let mut registered = world.run_backend(&endpoint);
    let option = format!("service=cache,version=1.0.0,endpoint={}", endpoint.display());
    let mut broker = world.serve(&["--backend", &option]);
    let pid = pid_behind(&agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe);
    assert_eq!(pid, registered.pid());
    // While the broker cannot look: it goes on to find the pid alive again.
    broker.signal(broker_tests::Signal::STOP);
    registered.kill();
    registered.wait();
    let mut impostor = Impostor::with(pid);
    broker.signal(broker_tests::Signal::CONT);
    let deadline = std::time::Instant::now() + broker_tests::PATIENCE;
    loop {
        // It may be told to dial what is gone for as long as the news of a death is on its way.
        if let hello_reply::Result::Negotiated(negotiated) = world.connect().say(&hello("cache", "1.0.0"))
            && negotiated.backend_pipe != endpoint.to_str().unwrap()
        {
            assert_ne!(pid_behind(&negotiated.backend_pipe), pid);
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the dead one is still offered");
    }
    let backends = world.ask("status")["backends"].clone();
    assert!(backends.as_array().unwrap().iter().all(|backend| backend["pid"] != pid), "{backends}");
    broker.stop();
    assert!(impostor.lives());
}
