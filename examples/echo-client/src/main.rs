//! Reaches a service by its name and takes over the connection that the broker passes to its backend.
//!
//! The README shows `run` and what it uses; a test compares the two, and runs this against a real broker.

use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo-client: {error}");
            ExitCode::FAILURE
        }
    }
}

use broker_client::blocking::Session;
use broker_client::{Connector, Hello, PayloadProtocol};

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let lane = PayloadProtocol::new(0xF001);
    let hello = Hello::new("build-cache".parse()?, "1.4.2".parse()?);
    let connector = Connector::new(hello).with_handoff();
    let (mut session, answer) = Session::connect_with_request(&connector, lane, "good day")?;
    println!("{} ({:?})", String::from_utf8_lossy(&answer), session.origin());
    let answer = session.request(lane, "good night")?;
    println!("{}", String::from_utf8_lossy(&answer));
    Ok(())
}
