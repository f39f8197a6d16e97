//! The log, where the journal reads it.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use broker_tests::{Daemon, World, agreed, has_died, hello, is_listening};

/// A file that stands in for the journal's stream: what counts is which file it is.
struct Stream {
    path: std::path::PathBuf,
    file: File,
}

impl Stream {
    fn new(world: &World) -> Self {
        let path = world.path("journal");
        Self { file: File::create(&path).unwrap(), path }
    }

    /// Runs a command whose standard error this is, as `JOURNAL_STREAM` says, or says not.
    fn run(&self, command: &mut Command, is_told: bool) -> Child {
        let facts = self.file.metadata().unwrap();
        let inode = if is_told { facts.ino() } else { facts.ino() + 1 };
        command.env("JOURNAL_STREAM", format!("{}:{inode}", facts.dev()));
        command.stderr(self.file.try_clone().unwrap()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.path).unwrap()
    }
}

fn lines_of_a_broker(options: &[&str], is_told: bool) -> Vec<String> {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--fail 3"]);
    let (stream, socket) = (Stream::new(&world), world.socket());
    let mut command = world.brokerd(&["serve", "--socket", socket.to_str().unwrap()]);
    let mut broker = stream.run(command.args(options).env("RUST_LOG", "debug"), is_told);
    broker_tests::linux::wait_until("it listens", || (!is_listening(&socket)).then(|| stream.text()));
    // A backend that fails is worth a warning.
    world.connect().say(&hello("cache", "1.0.0"));
    let done = world.run(&["shutdown", "--socket", socket.to_str().unwrap()]);
    assert!(done.is_success() && has_died(broker.id()), "{done:?}");
    broker.wait().unwrap();
    stream.text().lines().map(str::to_owned).collect()
}

#[test]
fn the_journal_gets_a_priority_for_each_line_and_no_time_and_no_colour() {
    let lines = lines_of_a_broker(&[], true);
    let priority = |text: &str| {
        let line = lines.iter().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("no {text} in {lines:?}")).get(..3)
    };
    assert!(lines.iter().any(|line| line.starts_with("<6>serving instance=shared ")), "{lines:?}");
    assert_eq!(priority("HELLO_REFUSED"), Some("<7>"));
    assert!(lines.iter().any(|line| line.starts_with("<4>") || line.starts_with("<3>")), "{lines:?}");
    for line in &lines {
        let rest = ["<3>", "<4>", "<6>", "<7>"].iter().find_map(|priority| line.strip_prefix(priority));
        let rest = rest.unwrap_or_else(|| panic!("no priority: {line}"));
        assert!(!rest.contains('\x1b') && !rest.starts_with("20"), "{line}");
    }
}

#[test]
fn json_for_the_journal_is_json_behind_the_priority() {
    let lines = lines_of_a_broker(&["--log", "json"], true);
    for line in &lines {
        let json = line.get(3..).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{line}");
    }
}

#[test]
fn who_inherits_the_variable_and_not_the_stream_writes_for_people() {
    let lines = lines_of_a_broker(&[], false);
    assert!(lines.iter().all(|line| !line.starts_with('<')), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains(" INFO serving ")), "{lines:?}");
}

#[test]
fn what_keeps_a_broker_from_starting_is_an_error_in_the_journal() {
    let world = World::new();
    let stream = Stream::new(&world);
    let broker = Daemon::start(&mut world.brokerd(&["serve", "--socket", world.socket().to_str().unwrap()]));
    let socket = world.socket();
    let mut second = stream.run(&mut world.brokerd(&["serve", "--socket", socket.to_str().unwrap()]), true);
    assert_eq!(second.wait().unwrap().code(), Some(3));
    let text = stream.text();
    assert!(text.starts_with("<3>error: ") && text.lines().all(|line| line.starts_with("<3>")), "{text}");
    world.define("cache", &[]);
    agreed(world.connect().say(&hello("cache", "1.0.0")));
    broker.stop();
}
