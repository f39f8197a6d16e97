//! The admin verbs as commands: ask the broker, print the answer, end with its exit code.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use broker_client::{AdminError, ExchangeError};
use broker_protocol::BrokerInstance;
use broker_protocol::wire::{AdminReply, AdminReplyKind, AdminRequest, AdminVerb};
use broker_transport::stream::BlockingStream;
use serde_json::json;

use crate::cli::AdminArgs;
use crate::failure::Failure;
use crate::{admin, output};

/// How long a broker may take to let somebody in who looks whether it is there.
const CONNECTS_WITHIN: Duration = Duration::from_secs(1);

/// The socket of the broker that is meant.
pub(crate) fn socket(args: &AdminArgs) -> Result<PathBuf, Failure> {
    match &args.socket {
        Some(path) => Ok(path.clone()),
        None => broker_transport::endpoint::broker_endpoint(&args.instance)
            .map_err(|error| Failure::usage(error).next("pass --socket PATH")),
    }
}

/// Asks for `verb` with nothing more to say.
pub(crate) fn ask(command: &'static str, verb: AdminVerb, args: &AdminArgs) -> Result<ExitCode, Failure> {
    send(command, AdminRequest { verb: verb.into(), ..AdminRequest::default() }, args)
}

/// Sends a request and prints the answer. What the broker says as text is wrapped where JSON is wanted.
pub(crate) fn send(
    command: &'static str,
    request: AdminRequest,
    args: &AdminArgs,
) -> Result<ExitCode, Failure> {
    let reply = exchange(&AdminRequest { json: args.json, ..request }, args)?;
    if args.json && reply.kind != i32::from(AdminReplyKind::Json) {
        let answer = json!({
            "ok": reply.exit_code == 0,
            "content_type": reply.content_type,
            "text": reply.body,
        });
        output::json_answer(command, &answer);
    } else {
        output::text_out(&reply.body);
        if !reply.body.ends_with('\n') {
            output::text_out("\n");
        }
    }
    Ok(ExitCode::from(u8::try_from(reply.exit_code).unwrap_or(1)))
}

/// Who they are is on disk: where no broker was named, and the usual one is not there, the others are found without
/// it.
pub(crate) fn list_instances(args: &AdminArgs) -> Result<ExitCode, Failure> {
    let is_named = args.socket.is_some() || args.instance != BrokerInstance::Shared;
    if is_named || BlockingStream::connect(socket(args)?, Some(CONNECTS_WITHIN)).is_ok() {
        return ask("list-instances", AdminVerb::ListInstances, args);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::refused(format!("cannot start the event loop: {error}")))?;
    let instances = runtime.block_on(admin::find_instances(None));
    output::json_answer("list-instances", &json!({ "instances": instances }));
    Ok(ExitCode::SUCCESS)
}

/// Sends a request; the answer.
pub(crate) fn exchange(request: &AdminRequest, args: &AdminArgs) -> Result<AdminReply, Failure> {
    let socket = socket(args)?;
    broker_client::blocking::admin(&socket, request).map_err(|error| match &error {
        AdminError::Config(_) => Failure::usage(error),
        AdminError::Exchange(why) => {
            let next = next(why, args);
            Failure::refused(error).next(next)
        }
        AdminError::Protocol(_) | AdminError::Refused(_) => Failure::refused(error),
    })
}

/// What to do where no answer came.
fn next(why: &ExchangeError, args: &AdminArgs) -> String {
    let broker = args.broker();
    match why {
        ExchangeError::Connect(_) => format!("is a broker running? `brokerd serve {broker}` starts one"),
        _ => format!("`brokerd doctor {broker}` says what is wrong"),
    }
}
