//! What the checks look at: whom and where they are asked about, and what the broker answers.
//!
//! Invariant: the broker is asked once, when the first check wants to know.

use std::cell::OnceCell;

use super::contact::Contact;
use super::mend;
use super::place::{self, Place};
use crate::cli::DoctorArgs;
use crate::definitions::DefinitionDir;

/// What every check gets.
pub(super) struct Facts {
    pub(super) args: DoctorArgs,
    pub(super) socket: Place,
    pub(super) runtime_dir: Place,
    pub(super) service_dir: Place,
    pub(super) state_dir: Place,
    contact: OnceCell<Contact>,
}

impl Facts {
    pub(super) fn new(args: DoctorArgs) -> Self {
        Self {
            socket: place::socket(&args),
            runtime_dir: place::runtime_dir(),
            service_dir: place::service_dir(&args),
            state_dir: place::state_dir(&args),
            contact: OnceCell::new(),
            args,
        }
    }

    /// What became of asking the broker; `None` where nobody can tell where it listens.
    pub(super) fn contact(&self) -> Option<&Contact> {
        let socket = self.socket.known()?;
        Some(self.contact.get_or_init(|| Contact::seek(socket)))
    }

    pub(super) fn definitions(&self) -> Option<DefinitionDir> {
        self.service_dir.known().map(|path| DefinitionDir::new(path.to_path_buf()))
    }

    /// A command about the definitions that are looked at.
    pub(super) fn service_command(&self, command: &str) -> String {
        match &self.args.service_dir {
            Some(dir) => format!("brokerd service {command} --service-dir {}", mend::word(dir)),
            None => format!("brokerd service {command}"),
        }
    }

    /// A command about the broker that is meant.
    pub(super) fn broker_command(&self, command: &str) -> String {
        match &self.args.socket {
            Some(socket) => format!("brokerd {command} --socket {}", mend::word(socket)),
            None => format!("brokerd {command} --instance {}", self.args.instance),
        }
    }

    /// The command that starts the broker that is meant, as far as that is known.
    pub(super) fn serve_command(&self) -> String {
        let mut command = self.broker_command("serve");
        for (option, dir) in
            [("--service-dir", &self.args.service_dir), ("--state-dir", &self.args.state_dir)]
        {
            if let Some(dir) = dir {
                command.push_str(&format!(" {option} {}", mend::word(dir)));
            }
        }
        command
    }
}
