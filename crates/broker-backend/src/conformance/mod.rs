//! Checks of a service's endpoint, for the tests of whoever writes the service.
//!
//! They play client and broker with bytes of their own, so the service may be written with anything; it need
//! not use the rest of this crate. Each rule that is broken is named with what was expected, what came, and
//! where the rule stands. Invariants: a check ends within its patience, whatever the service does; one that is
//! not carried out says why; and no verdict hangs on how fast the service is, but for the one that is about
//! time.
//!
//! A whole test of a service that is a program, whatever it is written with:
//!
//! ```no_run
//! use broker_backend::conformance::{Conformance, OlderFormat, Program};
//!
//! # fn path_of_the_program() -> std::path::PathBuf { unimplemented!() }
//! // #[test]
//! fn it_keeps_the_protocol() -> Result<(), Box<dyn std::error::Error>> {
//!     let place = tempfile::tempdir()?;
//!     let offers = place.path().join("offers.sock");
//!     let program = Program::new(path_of_the_program(), "build-cache".parse()?, "1.2.3".parse()?)
//!         .arg("--offers-at")
//!         .arg(&offers);
//!     let report = Conformance::of_program(program)
//!         .offers_at(offers, "build-cache")
//!         .older_format(OlderFormat::exchange("ping\n", "pong\n"))
//!         .run_blocking()?;
//!     report.assert_passed();
//!     // What its author means to have is not only not wrong, but there.
//!     assert!(report.skipped().is_empty(), "{report}");
//!     Ok(())
//! }
//! # it_keeps_the_protocol().unwrap();
//! ```
//!
//! [`Conformance`] shows one of a service in the test's own process.
//!
//! | group | what it holds a service to | needs |
//! |---|---|---|
//! | `golden/` | fixed bytes: the kit's own against those written by hand, and the shape of an answer: framing, envelope, lane, ids and trace context echoed | |
//! | `probe/` | the nonce and the truth about the process, in time, twice on a connection, byte by byte, beside a client that stalls; no answer to a nonce of another length | |
//! | `mixed/` | an older format on the same endpoint, before, after, between and byte by byte beside frames | [`Conformance::older_format`] |
//! | `handoff/` | offers of plain v1: taken, rejected, incomplete, of clients that are gone, and nothing left open of them | [`Conformance::offers_at`] |
//! | `hostile/` | bytes that no well-meaning client sends end at most their own connection | |
//! | `control/` | the control connection of a service that was started | [`Conformance::of_program`] |

mod control;
mod descriptors;
mod golden;
mod handoff;
mod hostile;
mod line;
mod mixed;
mod probe;
mod program;
mod report;
mod run;
mod subject;

use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use broker_protocol::PayloadProtocol;
use broker_protocol::bytes::Bytes;
use broker_protocol::wire::Frame;
use tokio::time::{Instant, sleep};

use self::line::Came;
pub use self::mixed::OlderFormat;
pub use self::program::Program;
use self::program::{Place, Started};
use self::report::Outcome;
pub use self::report::{Check, Finding, Report, Verdict};
use self::run::Run;
use self::subject::{Known, OffersAt, OwnRequest, Subject, wire};

/// How long a service may take for anything that it has to do, unless it is told otherwise. Only what fails
/// takes as long.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// First and longest pause between two attempts to reach a service that may have only just been started.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The checks, and what they need to know about the service.
///
/// They are carried out one after another: fixed bytes, the probe, an older format, offers, hostile bytes,
/// and the control connection.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use broker_backend::conformance::Conformance;
/// use broker_backend::{Backend, PayloadProtocol, Request};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// let place = tempfile::tempdir()?;
/// let (endpoint, offers) = (place.path().join("me.sock"), place.path().join("offers.sock"));
/// let service = Backend::bind(&endpoint)?.with_offers_at(&offers)?;
/// tokio::spawn(service.serve(async |request: Request| request.into_payload()));
///
/// let report = Conformance::of(endpoint)
///     .offers_at(offers, "me")
///     .own_request(PayloadProtocol::new(0xF001), "ping")
///     .run()
///     .await;
/// report.assert_passed();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is checked before it is run"]
pub struct Conformance {
    target: Target,
    patience: Duration,
    older: Option<OlderFormat>,
    offers: Option<OffersAt>,
    request: Option<OwnRequest>,
    served_by: Option<u32>,
}

/// What is checked.
#[derive(Debug)]
enum Target {
    Endpoint(PathBuf),
    Program(Box<Program>),
}

impl Conformance {
    /// Checks the service that listens at `endpoint`, or will within the [patience](Self::patience).
    pub fn of(endpoint: impl Into<PathBuf>) -> Self {
        Self::new(Target::Endpoint(endpoint.into()))
    }

    /// Starts a service as a broker does, and checks it and its control connection. It is killed in the end.
    pub fn of_program(program: Program) -> Self {
        Self::new(Target::Program(Box::new(program)))
    }

    const fn new(target: Target) -> Self {
        Self { target, patience: PATIENCE, older: None, offers: None, request: None, served_by: None }
    }

    /// The endpoint takes clients of an older format, too.
    pub fn older_format(mut self, format: OlderFormat) -> Self {
        self.older = Some(format);
        self
    }

    /// The service takes offers of plain v1 at this endpoint, as the service of this name.
    pub fn offers_at(mut self, endpoint: impl Into<PathBuf>, service: impl Into<String>) -> Self {
        self.offers = Some(OffersAt { endpoint: endpoint.into(), service: service.into() });
        self
    }

    /// A request that the service answers. Without one, only probes are sent, also on connections that are
    /// passed to it.
    pub fn own_request(mut self, lane: PayloadProtocol, payload: impl Into<Bytes>) -> Self {
        self.request = Some(OwnRequest { lane, payload: payload.into() });
        self
    }

    /// The process that serves, where it is another one than has begun to listen: one that was passed its
    /// listener, or was forked off. Otherwise the kernel's word on who listens is taken.
    pub const fn served_by(mut self, pid: u32) -> Self {
        self.served_by = Some(pid);
        self
    }

    /// How long the service may take for anything that it has to do, instead of [`PATIENCE`].
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Carries out the checks. The service may run on the same runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time.
    pub async fn run(self) -> Report {
        let Self { target, patience, older, offers, request, served_by } = self;
        let (endpoint, mut started) = match target {
            Target::Endpoint(endpoint) => (endpoint, None),
            Target::Program(program) => {
                let (endpoint, started) = start(&program).await;
                (endpoint, Some((program, started)))
            }
        };
        let child = started.as_ref().and_then(|(_, started)| started.as_ref().ok()).map(Started::pid);
        let pid = served_by.or(child);
        let mut subject =
            Subject { endpoint, patience, older, offers, request, pid, known: Known::default() };
        let mut run = Run::new(subject.endpoint.clone());
        golden::encodings(&mut run);
        let question = subject::probe();
        let came = match &started {
            None => first_answer(&mut subject, &question).await,
            Some((_, Err(stop))) => Err(stop.clone()),
            Some((_, Ok(started))) => tokio::select! {
                came = first_answer(&mut subject, &question) => came,
                stop = started.ended() => Err(stop),
            },
        };
        golden::answers(&mut run, &mut subject, &question, came).await;
        probe::run(&mut run, &subject).await;
        mixed::run(&mut run, &subject).await;
        handoff::run(&mut run, &subject).await;
        hostile::run(&mut run, &subject).await;
        let control = match &mut started {
            Some((program, Ok(started))) => started.control.take().map(|control| (&**program, control)),
            Some((_, Err(_))) | None => None,
        };
        control::run(&mut run, &subject, control).await;
        run.into_report()
    }

    /// As [`Conformance::run`], for a test without a runtime. A service in the same process needs a thread of
    /// its own.
    ///
    /// # Errors
    /// There is no runtime to be had.
    ///
    /// # Panics
    /// Inside of a runtime.
    pub fn run_blocking(self) -> io::Result<Report> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(self.run()))
    }
}

async fn start(program: &Program) -> (PathBuf, Outcome<Started>) {
    match Place::new() {
        Ok(place) => (place.endpoint(), Started::start(program, place).await),
        Err(stop) => (PathBuf::new(), Err(stop)),
    }
}

/// What comes of the first probe, to a service that may begin to listen any moment.
async fn first_answer(subject: &mut Subject, question: &Frame) -> Outcome<Came> {
    let give_up = Instant::now() + subject.patience;
    let mut pause = PAUSE.0;
    let mut line = loop {
        match subject.dial().await {
            Ok(line) => break line,
            Err(stop) if Instant::now() >= give_up => return Err(stop),
            Err(_) => sleep(pause).await,
        }
        pause = (pause * 2).min(PAUSE.1);
    };
    let listens = || line.stream.peer().ok()?.pid.map(NonZeroU32::get);
    subject.pid = subject.pid.or_else(listens);
    line.send(&wire(question)?).await;
    Ok(line.next().await)
}
