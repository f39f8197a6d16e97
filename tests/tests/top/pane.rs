//! `brokerd top` in a pane of a tmux server that belongs to one test.
//!
//! A shell runs it there, and tells afterwards how it ended and whether the terminal's modes are what they were.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use broker_tests::{Finished, PATIENCE, Signal, World, signal};

const TMUX: &str = "tmux";

/// What the shell does. Its first argument is the file for the process id; the others are the command.
const SHELL: &str = r#"
    before=$(stty -g)
    sh -c 'echo $$ >"$0"; exec "$@"' "$@"
    code=$?
    [ "$before" = "$(stty -g)" ] && modes=kept || modes=lost
    echo "ended with $code, modes $modes"
    read -r _
"#;

/// Whether there is a terminal; says what is not tested where there is none.
pub(super) fn has_tmux() -> bool {
    let has = Command::new(TMUX).arg("-V").output().is_ok_and(|output| output.status.success());
    if !has {
        println!("not tested, as {TMUX} is not installed: brokerd top in a terminal");
    }
    has
}

/// The pane; its server ends with it.
pub(super) struct Pane<'a> {
    world: &'a World,
    pid: PathBuf,
}

impl<'a> Pane<'a> {
    /// One of 120 by 40, with these options.
    pub(super) fn top(world: &'a World, options: &[&str]) -> Self {
        Self::with(world, ["TOP", "1"], options)
    }

    /// The same, with a variable in its environment.
    pub(super) fn with(world: &'a World, [name, value]: [&str; 2], options: &[&str]) -> Self {
        let pane = Self { world, pid: world.path("top.pid") };
        let mut start = pane.command(&["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "40"]);
        start.args(["--", "sh", "-c", SHELL, "sh"]).arg(&pane.pid);
        start.arg("env").arg(format!("{name}={value}"));
        start.arg(World::program("brokerd")).args(["top", "--socket"]).arg(world.socket()).args(options);
        let started = Finished::of(&mut start);
        assert!(started.is_success(), "{started:?}");
        pane
    }

    /// What is to be seen.
    pub(super) fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The same, with the sequences that colour it.
    pub(super) fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    pub(super) fn title(&self) -> String {
        self.tmux(&["display-message", "-p", "#{pane_title}"])
    }

    /// Waits for a frame with this text.
    pub(super) fn wait_for(&self, text: &str) -> String {
        self.wait_while(|| (), |frame| frame.contains(text))
    }

    /// Waits for a frame of which this is true.
    pub(super) fn wait_until(&self, is_there: impl Fn(&str) -> bool) -> String {
        self.wait_while(|| (), is_there)
    }

    /// The same, and does something before each look.
    #[track_caller]
    pub(super) fn wait_while(&self, act: impl Fn(), is_there: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            act();
            let frame = self.text();
            if is_there(&frame) {
                return frame;
            }
            assert!(Instant::now() < deadline, "it is not there:\n{frame}");
        }
    }

    pub(super) fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    pub(super) fn resize(&self, width: usize, height: usize) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, number: Signal) {
        let pid = std::fs::read_to_string(&self.pid).unwrap();
        signal(pid.trim().parse().unwrap(), number);
    }

    /// Waits for its end; the screen, the cursor and the modes of the terminal are what they were.
    #[track_caller]
    pub(super) fn is_given_back(&self, code: i32) {
        let frame = self.wait_for("ended with ");
        assert!(frame.contains(&format!("ended with {code}, modes kept")), "{frame}");
        assert!(!frame.contains("q quit"), "{frame}");
        assert_eq!(self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]).trim(), "0 1");
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let finished = Finished::of(&mut self.command(arguments));
        assert!(finished.is_success(), "{arguments:?}: {finished:?}");
        finished.stdout
    }

    /// Everything is UTF-8, whatever the environment says.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.command(TMUX.as_ref());
        command.arg("-u").arg("-S").arg(self.world.path("tmux.sock")).args(arguments);
        command
    }
}

impl Drop for Pane<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]).output();
    }
}
