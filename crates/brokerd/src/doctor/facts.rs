//! What the checks look at: whom and where they are asked about, and what the broker answers.
//!
//! Invariant: the broker is asked once, and the configuration file read once, when the first check wants to know.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use super::contact::Contact;
use super::mend;
use super::place::{self, Place};
use crate::cli::DoctorArgs;
use crate::config::{CONFIG_VARIABLE, Fault, File, Location, NotRead, keys};
use crate::definitions::DefinitionDir;

/// What every check gets.
pub(super) struct Facts {
    pub(super) args: DoctorArgs,
    pub(super) socket: Place,
    pub(super) runtime_dir: Place,
    pub(super) service_dir: Place,
    configuration: OnceCell<Result<File, NotRead>>,
    state_dir: OnceCell<Place>,
    contact: OnceCell<Contact>,
}

impl Facts {
    pub(super) fn new(args: DoctorArgs) -> Self {
        Self {
            socket: place::socket(&args),
            runtime_dir: place::runtime_dir(),
            service_dir: place::service_dir(&args),
            configuration: OnceCell::new(),
            state_dir: OnceCell::new(),
            contact: OnceCell::new(),
            args,
        }
    }

    /// The file that a broker which is started here would read.
    pub(super) fn configuration(&self) -> Result<&File, &NotRead> {
        let read = || {
            let named =
                std::env::var_os(CONFIG_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
            match Location::new(named.as_deref()) {
                Ok(location) => location.read(),
                // A relative path in a directory that is gone.
                Err(_) => Err(NotRead { path: named.unwrap_or_default().into(), fault: Fault::Absent }),
            }
        };
        self.configuration.get_or_init(read).as_ref()
    }

    /// Where the lifecycle events go.
    pub(super) fn state_dir(&self) -> &Place {
        let configured = || self.configuration().ok()?.values.text(&keys::STATE_DIR).map(Path::new);
        self.state_dir.get_or_init(|| place::state_dir(&self.args, configured()))
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
