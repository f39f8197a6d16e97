//! Processes of a test: started, listened to, and never left behind.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use crate::PATIENCE;
use crate::sys::{self, Signal};

/// A command that ran to its end.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed for programs.
    pub stdout: String,
    /// What it printed for people.
    pub stderr: String,
}

impl Finished {
    /// Runs a command.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            status: output.status,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Its exit code.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by a signal: {self:?}"))
    }

    /// Whether it ended with 0.
    pub fn is_success(&self) -> bool {
        self.status.success()
    }
}

/// A broker that runs beside the test. Killed when dropped.
pub struct Daemon {
    child: Child,
    /// The command that asks it to end, for a broker.
    shutdown: Option<Command>,
    lines: Receiver<String>,
    heard: Vec<String>,
    /// Somebody else has waited for it.
    is_over: bool,
}

impl Daemon {
    /// Starts a broker and waits until it says that it serves.
    pub fn start(command: &mut Command) -> Self {
        let mut daemon = Self::spawn(command);
        daemon.wait_for_line("serving");
        daemon
    }

    /// Starts a process whose standard error is listened to.
    pub fn spawn(command: &mut Command) -> Self {
        let shutdown = shutdown_of(command);
        let command = sys::spawned(command).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, shutdown, lines, heard: Vec::new(), is_over: false }
    }

    /// Waits for a line with this text.
    pub fn wait_for_line(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.heard.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?} in\n{}", self.heard.join("\n")),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended before it said {text:?}:\n{}", self.heard.join("\n"))
                }
            }
        }
    }

    /// The next line that it says.
    pub fn next_line(&mut self) -> &str {
        self.wait_for_line("");
        self.last_line()
    }

    /// The last line that was waited for.
    pub fn last_line(&self) -> &str {
        self.heard.last().map_or("", String::as_str)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many connections it has open, as far as that can be counted.
    pub fn descriptors(&self) -> usize {
        sys::open_connections(self.pid())
    }

    /// How many handles it has open, which are not only those of its connections.
    #[cfg(windows)]
    pub fn handles(&self) -> u32 {
        sys::handles(self.pid())
    }

    /// How many descriptors it has open when nobody is being answered: its end of a connection goes a moment
    /// after the answer came.
    pub fn descriptors_at_rest(&self) -> usize {
        let counts = (0..200).map(|_| {
            std::thread::yield_now();
            self.descriptors()
        });
        counts.min().unwrap_or_default()
    }

    /// Waits until it has no more descriptors open than this.
    pub fn wait_for_descriptors(&self, most: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.descriptors() > most {
            assert!(Instant::now() < deadline, "{} descriptors are open", self.descriptors());
            std::thread::yield_now();
        }
    }

    /// Sends it a signal. Where there are none, asks a broker to end over its endpoint, and says so.
    pub fn signal(&mut self, signal: Signal) {
        match &mut self.shutdown {
            Some(shutdown) if goes_without("console events: nobody has a console without a screen") => {
                let asked = Finished::of(shutdown);
                assert!(asked.is_success(), "{asked:?}");
            }
            Some(_) | None => sys::signal(self.child.id(), signal).unwrap(),
        }
    }

    /// Ends it, and leaves it no time for anything.
    pub fn kill(&self) {
        sys::kill(self.child.id()).unwrap();
    }

    /// Waits for its end; its exit code, or `None` when a signal ended it.
    pub fn wait(&mut self) -> Option<i32> {
        assert!(has_died(self.child.id()), "it did not end:\n{}", self.heard.join("\n"));
        self.child.wait().unwrap().code()
    }

    /// Asks it to end, and returns every line that it has said.
    pub fn stop_and_hear(mut self) -> String {
        self.signal(Signal::TERM);
        let (code, heard) = self.hear_out();
        assert_eq!(code, Some(0), "{heard}");
        heard
    }

    /// Waits for its end; its exit code, and every line that it has said.
    pub fn hear_out(mut self) -> (Option<i32>, String) {
        let code = self.wait();
        self.heard.extend(self.lines.iter());
        (code, self.heard.join("\n"))
    }

    /// Lets go of one that has ended, and that somebody else has waited for.
    pub fn let_go(mut self) {
        self.is_over = true;
    }

    /// Asks it to end and waits for that.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.wait(), Some(0));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // Twice asked first, so that its backends go with it in good order.
        let is_asked = !sys::is_wine() && (0..2).all(|_| sys::signal(self.child.id(), Signal::TERM).is_ok());
        if !is_asked || !has_died(self.child.id()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// The command that ends the broker which this one starts.
fn shutdown_of(command: &Command) -> Option<Command> {
    let arguments: Vec<_> = command.get_args().collect();
    let (_, options) = arguments.split_first().filter(|(first, _)| **first == "serve")?;
    let mut shutdown = Command::new(command.get_program());
    shutdown.env_clear().arg("shutdown");
    // Where it listens is what these say; a socket outweighs an instance.
    for place in ["--socket", "--instance"] {
        if let Some(index) = options.iter().position(|option| *option == place) {
            shutdown.args(&options[index..=index + 1]);
            break;
        }
    }
    shutdown.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Some(shutdown)
}

/// Whether this is Wine; says what is not tested for that reason.
pub fn goes_without(what: &str) -> bool {
    let is_wine = sys::is_wine();
    if is_wine {
        println!("not tested, as this is Wine: {what}");
    }
    is_wine
}

/// Whether there is such a process, dead and unreaped ones included.
pub fn exists(number: u32) -> bool {
    sys::exists(number)
}

/// Sends a process a signal, whoever started it.
pub fn signal(number: u32, signal: Signal) {
    sys::signal(number, signal).unwrap();
}

/// Ends a process, whoever started it, and leaves it no time for anything.
pub fn kill(number: u32) {
    sys::kill(number).unwrap();
}

/// Waits for the death of a process, whoever started it; `false` when it outlives [`PATIENCE`].
pub fn has_died(number: u32) -> bool {
    sys::has_died(number)
}
