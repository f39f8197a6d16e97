//! Reading the configuration file again while the broker runs.
//!
//! What can change does so between two events of the loop, so every Hello sees all of the old or all of the new;
//! what cannot stays until the next start, and is named. The file is read on another thread: a slow disk delays
//! nobody.
//!
//! Invariant: a file that is bad in any way changes nothing but what is told of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use broker_core::broker::Input;
use broker_transport::stop_requests::ReloadRequests;
use serde::Serialize;
use tokio::sync::Mutex;

use super::logging::Level;
use super::resolver::Resolver;
use super::settings::{Changes, DescriptorLimit, Settings};
use super::shell::Shell;

/// What a broker was started with, and what holds now.
#[derive(Debug)]
pub(super) struct Configuration {
    resolver: Arc<Resolver>,
    descriptors: DescriptorLimit,
    level: Level,
    in_force: RefCell<Rc<Settings>>,
    last: RefCell<Option<Rc<LastReload>>>,
    /// Whose turn it is to read the file.
    reading: Mutex<()>,
}

/// What is needed for a configuration, as it goes to the thread that serves.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) settings: Settings,
    pub(super) resolver: Resolver,
    pub(super) descriptors: DescriptorLimit,
    pub(super) level: Level,
}

/// What became of the last reload.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct LastReload {
    at_unix_ms: u64,
    /// Whether the file is in force; otherwise all is as it was.
    pub(crate) applied: bool,
    /// Keys whose values are different since.
    changed: Vec<String>,
    /// Keys whose values will be different when the broker is started the next time.
    at_next_start: Vec<String>,
    /// What is wrong with the file, and where.
    pub(crate) problems: Vec<String>,
}

impl Configuration {
    pub(super) fn new(setup: Setup) -> Self {
        let Setup { settings, resolver, descriptors, level } = setup;
        Self {
            resolver: Arc::new(resolver),
            descriptors,
            level,
            in_force: RefCell::new(Rc::new(settings)),
            last: RefCell::default(),
            reading: Mutex::default(),
        }
    }

    /// What holds now.
    pub(super) fn in_force(&self) -> Rc<Settings> {
        Rc::clone(&self.in_force.borrow())
    }

    pub(super) fn last_reload(&self) -> Option<Rc<LastReload>> {
        self.last.borrow().clone()
    }
}

/// Reads the file again whenever that is asked for.
pub(super) async fn whenever_asked(shell: Rc<Shell>, mut requests: ReloadRequests) {
    loop {
        requests.next().await;
        now(&shell).await;
    }
}

/// Reads the file again.
pub(super) async fn now(shell: &Rc<Shell>) {
    let configuration = shell.configuration();
    let _turn = configuration.reading.lock().await;
    let resolver = Arc::clone(&configuration.resolver);
    let resolved =
        tokio::task::spawn_blocking(move || resolver.resolve().map_err(|wrong| wrong.lines())).await;
    if !shell.look(|broker, _| broker.is_serving()) {
        tracing::info!("the broker ends with the configuration that it has");
        return;
    }
    let outcome = match resolved.unwrap_or_else(|error| Err(vec![error.to_string()])) {
        Ok(settings) => apply(shell, settings),
        Err(problems) => {
            for problem in &problems {
                tracing::warn!("{problem}");
            }
            tracing::warn!("the configuration stays as it was: its file is not good");
            LastReload { problems, ..LastReload::default() }
        }
    };
    let at_unix_ms = shell.clock().now().unix.get();
    *configuration.last.borrow_mut() = Some(Rc::new(LastReload { at_unix_ms, ..outcome }));
}

fn apply(shell: &Rc<Shell>, mut new: Settings) -> LastReload {
    let configuration = shell.configuration();
    new.fit_into(configuration.descriptors);
    let Changes { at_once, at_next_start } = new.succeed(&configuration.in_force());
    configuration.level.set(&new.log_level.value);
    shell.tell(Input::Reconfigured(new.reconfiguration()));
    *configuration.in_force.borrow_mut() = Rc::new(new);
    tracing::info!(changed = at_once.join(" "), "the configuration was read again");
    for key in &at_next_start {
        tracing::warn!(key, "its new value takes effect at the next start");
    }
    LastReload { applied: true, changed: at_once, at_next_start, ..LastReload::default() }
}
