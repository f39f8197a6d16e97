//! Going on as another program: `brokerd upgrade` (behaviour.md 4, "Replacement of the broker itself").
//!
//! The process stays, and so do its id, its lock, its listener and its backends; what it executes changes. The
//! new program is tried first, in a process of its own. Then no more tokens are issued, and as soon as nothing is
//! under way that could not go along - an offer, a start, an answer that is being written - all is handed over at
//! once. A request that is not answered yet goes along as it came, and is dealt with anew there.
//!
//! Invariants: before the new program is executed nothing is given up, so a failure costs nothing but time;
//! whoever has asked hears of success from the new program alone.

mod document;
mod moves;
mod takeover;
mod trial;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use broker_core::hello::Tokens;
use broker_protocol::wire::{AdminReply, AdminRequest, AdminVerb};
use broker_transport::stop_requests;
use broker_transport::succession::NotSucceeded;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::document::Document;
pub(super) use self::moves::{HeldBack, Moves};
pub(super) use self::takeover::Takeover;
pub(super) use self::trial::answer as answer_trial;
use super::connection::{Asks, Moved};
use super::shell::Shell;
use crate::admin;

/// How long what is under way may take to come to an end: longer than the time for the answer to an offer, and
/// than a start takes that nobody has given more time.
const SETTLES_WITHIN: Duration = Duration::from_secs(15);
/// How long events may take to be written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);
/// How long it takes at most until a signal that has come is told of: one turn of the event loop.
const SIGNALS_TOLD_WITHIN: Duration = Duration::from_millis(1);

/// Why the broker does not go on as another program.
#[derive(Debug, Error)]
enum NotUpgraded {
    #[error(
        "this system has no way to go on as another program; end the broker with `brokerd shutdown`, and start \
         the new one"
    )]
    NotOffered,
    #[error("the broker is shutting down")]
    Draining,
    #[error("an upgrade is under way already")]
    UnderWay,
    #[error("{} is not used: {fault}", program.display())]
    Unfit { program: PathBuf, fault: trial::Unfit },
    #[error(
        "a backend is still being started, an answer not read, or a manifest not written, after {} s; try again",
        SETTLES_WITHIN.as_secs()
    )]
    Unsettled,
    #[error(
        "its socket file or its lock file was removed or replaced; end the broker, and start the new one"
    )]
    Replaced,
    #[error("cannot hand over what is open: {0}")]
    Descriptors(#[from] std::io::Error),
    #[error(transparent)]
    Exec(#[from] NotSucceeded),
}

/// The program that a request asks the broker to go on as.
pub(super) fn asked_for(request: &AdminRequest) -> Option<&str> {
    let program = request.upgrade_to.as_deref();
    program.filter(|_| request.verb == AdminVerb::Unspecified as i32)
}

/// Whether a succession is under way already; whoever asks for another is told at once.
pub(super) fn refuse_second(shell: &Rc<Shell>, json: bool) -> Option<AdminReply> {
    let unix_ms = shell.clock().now().unix.get();
    let why = NotUpgraded::UnderWay.to_string();
    shell.moves().is_under_way().then(|| admin::not_upgraded(&why, json, unix_ms))
}

/// Has the broker go on as another program; answers only where that fails.
pub(super) async fn ask(shell: &Rc<Shell>, program: &str, json: bool) -> AdminReply {
    let (tell, told) = oneshot::channel();
    let (shell, program) = (Rc::clone(shell), PathBuf::from(program));
    let unix_ms = shell.clock().now().unix.get();
    let under_way = shell.moves().begin(&shell);
    // On a task of its own: that of the connection ends on the way.
    tokio::task::spawn_local(async move {
        let failure = upgrade(&shell, &program).await;
        drop(under_way);
        tracing::warn!(program = %program.display(), %failure, "the broker goes on as it is");
        // Who has asked may have gone.
        let _ = tell.send(failure);
    });
    let why = told.await.map_or_else(|gone| gone.to_string(), |failure| failure.to_string());
    admin::not_upgraded(&why, json, unix_ms)
}

async fn upgrade(shell: &Rc<Shell>, program: &Path) -> NotUpgraded {
    if !broker_transport::succession::IS_OFFERED {
        return NotUpgraded::NotOffered;
    }
    if !is_serving(shell) {
        return NotUpgraded::Draining;
    }
    tracing::info!(program = %program.display(), "trying whether it would take over");
    let program = match trial::run(shell.spawner(), program).await {
        Ok(program) => program,
        Err(fault) => return NotUpgraded::Unfit { program: program.to_path_buf(), fault },
    };
    tracing::info!(program = %program.display(), "going on as another program");
    shell.call(|broker, _| broker.set_tokens(Tokens::Withheld));
    let (moved, failure) = hand_over(shell, program).await;
    shell.call(|broker, _| broker.set_tokens(Tokens::Issued));
    let why = failure.to_string();
    moved.into_iter().for_each(|moved| serve_again(shell, moved, &why));
    failure
}

/// Returns only where it fails, with the clients that were to be moved.
async fn hand_over(shell: &Rc<Shell>, program: PathBuf) -> (Vec<Moved>, NotUpgraded) {
    let deadline = Instant::now() + SETTLES_WITHIN;
    let mut moved = Vec::new();
    loop {
        if let Err(failure) = settle(shell, deadline).await {
            return (moved, failure);
        }
        // In the same turn: what is begun from now on is not begun here.
        end_client_tasks(shell).await;
        // From here on a signal waits for whoever listens next. One that came before is told of in this time.
        stop_requests::block_here();
        tokio::time::sleep(SIGNALS_TOLD_WITHIN).await;
        // Nothing else runs any more until this program has ended, or goes on.
        moved.extend(shell.moves().stop());
        if is_settled(shell) || !is_serving(shell) {
            break;
        }
        stop_requests::let_through_here();
        // A backend has ended meanwhile: it is to be cleared away, or somebody waits for its successor.
        let (others, asker) = moved.into_iter().partition(|moved| moved.asks == Asks::Anything);
        moved = asker;
        Vec::into_iter(others).for_each(|moved| serve_again(shell, moved, ""));
    }
    let failed = succeed(shell, moved, program);
    stop_requests::let_through_here();
    failed
}

/// Hands over what there is. Returns only where that fails.
fn succeed(shell: &Rc<Shell>, moved: Vec<Moved>, program: PathBuf) -> (Vec<Moved>, NotUpgraded) {
    if !is_serving(shell) {
        return (moved, NotUpgraded::Draining);
    }
    if !shell.moves().is_in_place() {
        return (moved, NotUpgraded::Replaced);
    }
    // It was tried some seconds ago.
    if let Err(fault) = trial::look_at(&program) {
        return (moved, NotUpgraded::Unfit { program, fault });
    }
    shell.flush_events(WRITTEN_WITHIN);
    match Document::draw_up(shell, moved, program) {
        Ok(succession) => {
            let NotSucceeded { mut succession, source } = shell.spawner().succeed(succession);
            let left = std::mem::take(&mut *succession);
            succession.program.clone_from(&left.program);
            (document::clients_of(left).collect(), NotSucceeded { succession, source }.into())
        }
        Err((moved, error)) => (moved, error.into()),
    }
}

fn is_serving(shell: &Rc<Shell>) -> bool {
    shell.look(|broker, _| broker.is_serving())
}

/// Ends the tasks of all clients that are not answered yet, and begins to collect their connections. Whoever comes
/// from now on has no task.
async fn end_client_tasks(shell: &Rc<Shell>) {
    shell.moves().start();
    shell.end_client_tasks();
    while shell.has_client_tasks() {
        tokio::task::yield_now().await;
    }
}

/// Serves a client that was to be moved; the one that has asked for the succession is told why it is not.
fn serve_again(shell: &Rc<Shell>, moved: Moved, why: &str) {
    let (why, unix_ms) = (why.to_owned(), shell.clock().now().unix.get());
    shell.take_back(moved, move |request| admin::not_upgraded(&why, request.json, unix_ms));
}

/// Whether nothing is under way that cannot go along: neither there, nor in an answer, nor on its way to the disk.
fn is_settled(shell: &Rc<Shell>) -> bool {
    // A look, not a call: that would be a change.
    let is_settled = shell.look(|broker, _| broker.is_settled());
    is_settled && shell.moves().is_nothing_held_back() && shell.records().is_all_written()
}

/// Waits until nothing is under way that cannot go along.
async fn settle(shell: &Rc<Shell>, deadline: Instant) -> Result<(), NotUpgraded> {
    let settled = async {
        while is_serving(shell) && !is_settled(shell) {
            shell.moves().changed().await;
        }
    };
    match tokio::time::timeout_at(deadline, settled).await {
        // It may have settled again and again.
        Ok(()) if is_serving(shell) && Instant::now() >= deadline => Err(NotUpgraded::Unsettled),
        Ok(()) if is_serving(shell) => Ok(()),
        Ok(()) => Err(NotUpgraded::Draining),
        Err(_) => Err(NotUpgraded::Unsettled),
    }
}
