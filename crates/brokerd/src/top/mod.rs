//! `brokerd top`: a running broker, watched in a terminal.
//!
//! One thread asks ([`poll`]), one waits for keys, one for a request to end; this one takes what they say and draws.
//! What is shown is decided in [`model`] and [`app`], which know neither a terminal nor a socket. Invariant: a broker
//! that is gone ends nothing here: it is looked for until it is back.

mod app;
mod counters;
mod input;
mod latency;
mod model;
mod once;
mod plain;
mod poll;
mod sample;
mod screen;
mod view;
mod words;

use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broker_transport::stop_requests::StopRequests;
use clap::Args;
use crossterm::event::{self, Event};

use self::app::{App, Effect};
use self::model::Model;
use self::plain::Plain;
use self::poll::{Observer, Pace};
use self::sample::Sample;
use self::screen::Screen;
use self::view::Palette;
use crate::cli::AdminArgs;
use crate::failure::Failure;
use crate::{admin_commands, output};

/// `brokerd top`.
#[derive(Clone, Debug, Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// How often to look at the broker
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    interval: u64,
    /// Look twice, print what there is, and end
    #[arg(long)]
    once: bool,
}

/// What the threads say.
enum Message {
    Sample(Box<Sample>),
    Lost(Plain),
    Terminal(Event),
    Stop,
}

/// Runs the command.
pub(crate) fn run(args: &TopArgs) -> Result<ExitCode, Failure> {
    let socket = admin_commands::socket(&args.admin)?;
    let interval = Duration::from_secs(args.interval);
    if args.once {
        return print(&socket, interval, &args.admin);
    }
    if args.admin.json {
        return Err(Failure::usage("--json prints one frame").next("pass --once, too"));
    }
    screen::check()?;
    watch(&socket, interval).map_err(|error| Failure::refused(format!("the terminal: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

/// Looks twice, as a rate takes two looks, and prints what there is.
fn print(socket: &Path, interval: Duration, args: &AdminArgs) -> Result<ExitCode, Failure> {
    let mut model = Model::default();
    for pause in [Duration::ZERO, interval] {
        thread::sleep(pause);
        // One that knows nothing yet asks for the details each time.
        let sample = Observer::new(socket.to_owned()).look(Instant::now()).map_err(|why| {
            Failure::refused(why.as_str())
                .next(format!("is a broker running? `brokerd serve {}` starts one", args.broker()))
        })?;
        model.take(sample);
    }
    if args.json {
        output::json(&once::json(model.picture()));
    } else {
        output::text_out(&once::text(model.picture()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the broker until somebody has seen enough.
fn watch(socket: &Path, interval: Duration) -> std::io::Result<()> {
    let (sender, messages) = channel();
    let (paces, changes) = channel();
    // Before the terminal is taken: from here on a request to end gives it back first.
    wait_for_stop(sender.clone())?;
    let mut app = App::new(Plain::of(&socket.display().to_string()), interval);
    let palette = Palette::of(std::env::var_os("NO_COLOR").as_deref());
    let mut screen = Screen::open()?;
    let observer = Observer::new(socket.to_owned());
    let (pace, to) = (app.pace(), sender.clone());
    thread::spawn(move || poll::run(observer, pace, &changes, &to));
    thread::spawn(move || wait_for_keys(&sender));
    loop {
        screen.draw(|frame| view::draw(frame, &app, palette))?;
        if !go_on(&mut app, &messages, &paces) {
            return Ok(());
        }
    }
}

/// Takes what was said since the last frame, at least one thing; whether there is another frame to show.
fn go_on(app: &mut App, messages: &Receiver<Message>, paces: &Sender<Pace>) -> bool {
    let Ok(first) = messages.recv() else { return false };
    for message in std::iter::once(first).chain(messages.try_iter()) {
        match message {
            Message::Sample(sample) => app.take(*sample),
            Message::Lost(why) => app.lose(why, now_unix_ms()),
            Message::Stop => return false,
            // A frame takes the size of the terminal anyhow.
            Message::Terminal(Event::Key(key)) => match input::wish(key).map(|wish| app.apply(wish)) {
                Some(Effect::Quit) => return false,
                Some(Effect::Look(pace)) => {
                    // Where nobody takes it, the message that says so is on its way.
                    let _ = paces.send(pace);
                }
                Some(Effect::Show) | None => {}
            },
            Message::Terminal(_) => {}
        }
    }
    true
}

fn wait_for_stop(to: Sender<Message>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut stop = runtime.block_on(async { StopRequests::listen() })?;
    thread::spawn(move || {
        runtime.block_on(stop.next());
        // Nobody listens who has not ended already.
        let _ = to.send(Message::Stop);
    });
    Ok(())
}

/// Ends with its terminal.
fn wait_for_keys(to: &Sender<Message>) {
    while let Ok(event) = event::read() {
        if to.send(Message::Terminal(event)).is_err() {
            return;
        }
    }
    let _ = to.send(Message::Stop);
}

fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
