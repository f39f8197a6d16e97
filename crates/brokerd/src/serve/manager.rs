//! What the service manager hears of the broker: that it is ready, how it stands, that it ends, and that it lives.
//!
//! Invariants: it is told from the event loop alone, so that a loop which hangs is silent and noticed; nothing is
//! told per Hello; a message that finds no room is told later, and nobody waits for it.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use broker_transport::service_manager::{self, ServiceManager};
use tokio::time::Instant;

use super::shell::Shell;

/// How long a status stays at least.
const STATUS_EVERY: Duration = Duration::from_secs(3);

/// The manager that has started this broker, where there is one that wants to hear of it.
pub(super) struct Manager {
    to: Option<ServiceManager>,
    watchdog: Option<Duration>,
    is_ready_told: Cell<bool>,
    is_end_told: Cell<bool>,
}

impl Manager {
    /// Connects; to be called before the broker gives up making connections.
    pub(super) fn connect() -> Self {
        let to = ServiceManager::connect().unwrap_or_else(|error| {
            tracing::warn!(%error, "the service manager that NOTIFY_SOCKET names hears nothing");
            None
        });
        Self {
            to,
            watchdog: service_manager::watchdog(),
            is_ready_told: Cell::new(false),
            is_end_told: Cell::new(false),
        }
    }

    /// Tells what there is to tell, for ever.
    pub(super) async fn keep_told(self: Rc<Self>, shell: Rc<Shell>) {
        if self.to.is_none() {
            return;
        }
        // Twice in that time, so that one may come late.
        let alive_every = self.watchdog.map(|within| within / 2);
        let (mut status_due, mut alive_due) = (Instant::now(), Instant::now());
        let mut told = String::new();
        loop {
            let now = Instant::now();
            if shell.look(|broker, _| broker.is_serving()) {
                self.ready();
            } else {
                self.stopping();
            }
            if now >= status_due {
                status_due = now + STATUS_EVERY;
                let status = status(&shell);
                if status != told && self.tell(&format!("STATUS={status}")) {
                    told = status;
                }
            }
            let mut next = status_due;
            if let Some(every) = alive_every {
                if now >= alive_due {
                    alive_due = now + every;
                    self.tell("WATCHDOG=1");
                }
                next = next.min(alive_due);
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = shell.drain_begun() => status_due = Instant::now(),
            }
        }
    }

    fn ready(&self) {
        if !self.is_ready_told.get() {
            self.is_ready_told.set(self.tell("READY=1"));
        }
    }

    /// The broker ends, now or soon.
    pub(super) fn stopping(&self) {
        if !self.is_end_told.get() {
            self.is_end_told.set(self.tell("STOPPING=1"));
        }
    }

    /// Whether it was told.
    fn tell(&self, message: &str) -> bool {
        let Some(to) = &self.to else { return false };
        match to.tell(message) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                tracing::debug!(%error, message, "the service manager was not told");
                false
            }
        }
    }
}

/// As `systemctl status` shows it.
fn status(shell: &Shell) -> String {
    shell.look(|broker, _| {
        let backends = broker.backends().iter().filter(|backend| backend.state().live().is_some()).count();
        let connections = broker.connections_open();
        let how = if broker.is_serving() { "serving" } else { "draining" };
        format!("{how}: {}, {}", counted(backends, "backend"), counted(connections, "open connection"))
    })
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
