//! Gathering what goes into a diagnostic archive, and having it written off the event loop.

use std::rc::Rc;

use broker_core::time::{Monotonic, Now};
use broker_protocol::wire::{AdminRequest, AdminVerb};
use broker_transport::memory;

use super::facts;
use super::shell::Shell;
use crate::diagnose::{self, DiagnoseError, Diagnosis, Order, Said, Surroundings};

/// Writes an archive to a path that a request names.
pub(super) async fn diagnose(shell: &Rc<Shell>, output_path: &str) -> Result<Diagnosis, DiagnoseError> {
    let settings = shell.settings();
    let output = diagnose::output_of(output_path, &settings.state_dir.value, shell.clock().now().unix)?;
    let turn = shell.turn_to_diagnose().await;
    let Now { monotonic, unix } = shell.clock().now();
    let order = Order {
        output,
        now: unix,
        said: Said {
            status: said(shell, AdminVerb::Status).await,
            dump: said(shell, AdminVerb::Dump).await,
            config: said(shell, AdminVerb::Config).await,
            metrics: said(shell, AdminVerb::Metrics).await,
        },
        event_log: settings.event_log(),
        surroundings: Surroundings {
            instance: settings.instance.value.to_string(),
            state_dir: settings.state_dir.value.clone(),
            sandbox: settings.sandbox.value,
            uptime: monotonic.duration_since(Monotonic::default()),
            events_dropped: shell.events_dropped(),
        },
    };
    let written = tokio::task::spawn_blocking(move || {
        let outcome = order.carry_out();
        // Much more than a broker holds otherwise, and for a moment only.
        memory::return_what_is_free();
        drop(turn);
        outcome
    });
    written.await.unwrap_or_else(|error| Err(DiagnoseError::GivenUp(error.to_string())))
}

/// What the broker answers to another verb.
async fn said(shell: &Rc<Shell>, verb: AdminVerb) -> String {
    let request = AdminRequest { verb: verb.into(), json: true, ..AdminRequest::default() };
    facts::answer(shell, &request).await.body
}
