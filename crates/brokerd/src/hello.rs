//! `brokerd hello`: one Hello as any client says it, and the answer for a person or a script.

use std::path::PathBuf;
use std::process::ExitCode;

use broker_client::{
    Agreement, DiscoveryError, ExchangeError, Hello, HelloError, Refused, blocking, broker_of,
    round_trip_timeout,
};
use broker_protocol::wire::ErrorCode;
use serde_json::{Value, json};

use crate::cli::HelloArgs;
use crate::failure::{EXIT_REFUSED, Failure};
use crate::output;

/// Says Hello and prints the answer.
pub(crate) fn run(args: &HelloArgs) -> Result<ExitCode, Failure> {
    let Meant { socket, start } = meant(args)?;
    let hello = Hello::new(args.service.clone(), args.version.clone())
        .client_version(env!("CARGO_PKG_VERSION"))
        .client_lib("brokerd", env!("CARGO_PKG_VERSION"));
    let timeout = round_trip_timeout().map_err(Failure::usage)?;
    match blocking::say_hello(&socket, &hello, timeout) {
        Ok(agreement) => {
            if args.json {
                output::json_answer("hello", &json!({ "negotiated": negotiated(&agreement) }));
            } else {
                print(args, &agreement);
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(HelloError::Refused(refusal)) if args.json => {
            output::json_answer("hello", &json!({ "refused": refused(&refusal) }));
            Ok(ExitCode::from(EXIT_REFUSED))
        }
        Err(error @ HelloError::Exchange(ExchangeError::Connect(_))) => {
            Err(Failure::refused(error).next(format!("is a broker running? `{start}` starts one")))
        }
        Err(error @ HelloError::Exchange(_)) => {
            let doctor = format!("brokerd doctor --socket {}", socket.display());
            Err(Failure::refused(error).next(format!("`{doctor}` says what is wrong")))
        }
        Err(error @ (HelloError::FieldTooLong { .. } | HelloError::Protocol(_) | HelloError::Refused(_))) => {
            Err(Failure::refused(error))
        }
    }
}

/// Where the broker listens that is meant, and how it would be started.
struct Meant {
    socket: PathBuf,
    start: String,
}

/// The broker that is named, or the one that the service's definition names.
fn meant(args: &HelloArgs) -> Result<Meant, Failure> {
    if let Some(socket) = &args.socket {
        let start = format!("brokerd serve --socket {}", socket.display());
        return Ok(Meant { socket: socket.clone(), start });
    }
    let broker = broker_of(&args.service).map_err(|error| match error {
        DiscoveryError::Place(_) => Failure::usage(error),
        DiscoveryError::NotDefined { .. }
        | DiscoveryError::Directory(_)
        | DiscoveryError::NotAFile { .. }
        | DiscoveryError::Unreadable { .. }
        | DiscoveryError::Definition { .. } => Failure::refused(error),
    })?;
    let start = format!("brokerd serve --instance {}", broker.instance);
    Ok(Meant { socket: broker.endpoint, start })
}

fn print(args: &HelloArgs, agreement: &Agreement) {
    let mut text = format!(
        "service    {} {}\nbackend    {}\nkeepalive  {} s\n",
        args.service,
        agreement.daemon_version,
        agreement.backend_pipe.display(),
        agreement.keepalive.as_secs()
    );
    for warning in &agreement.warnings {
        text.push_str(&format!("warning    {warning}\n"));
    }
    output::text_out(&text);
}

/// As the protocol names it, but for the token: that is between the client and the backend.
fn negotiated(agreement: &Agreement) -> Value {
    json!({
        "daemon_version": agreement.daemon_version.to_string(),
        "backend_pipe": agreement.backend_pipe.display().to_string(),
        "warnings": agreement.warnings,
        "capabilities": agreement.capabilities.bits(),
        "keepalive_interval_secs": agreement.keepalive.as_secs(),
        "handle_passed": agreement.token.is_some(),
        "connection_id": agreement.connection_id.get(),
    })
}

fn refused(refusal: &Refused) -> Value {
    let code = refusal.kind.code();
    let name =
        ErrorCode::try_from(code).map_or_else(|_| code.to_string(), |code| code.as_str_name().to_owned());
    json!({
        "code": name,
        "reason": refusal.reason,
        "details": refusal.details,
        "retry_after_ms": refusal.retry_after.map(|wait| wait.as_millis() as u64),
    })
}
