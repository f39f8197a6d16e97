//! A backend before it serves: its endpoint, bound or taken over, and its identity.
//!
//! Everything that can be wrong with the place is found here; [`serve`](crate::serve) only accepts.
//! Invariant: once a [`Backend`] exists, its endpoint takes connections, and they wait to be served.

use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};

use broker_protocol::control::{Announcement, CONTROL_FD};
use broker_protocol::{Capabilities, ServiceName, Version};
use broker_transport::activation::{self, ActivationError};
use broker_transport::endpoint::{self, EndpointError};
use broker_transport::listener::{BindError, BindOptions, BoundSocket};
use broker_transport::lock::{InstanceLock, LockError};
use broker_transport::private_dir::{self, PrivateDirError};
use broker_transport::stream::Stream;
use thiserror::Error;

use crate::control::Link;
use crate::environment::{Environment, EnvironmentError};
use crate::handler::Handler;
use crate::identity::{Identity, Unidentified};
use crate::mux::Mux;
use crate::serve::{self, ServeError};

/// Why a backend did not come to listen.
#[derive(Debug, Error)]
pub enum StartError {
    /// The broker did not say, or not well, what to serve.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// This process cannot say which one it is.
    #[error(transparent)]
    Unidentified(#[from] Unidentified),
    /// The listener that the process was started with cannot be used.
    #[error(transparent)]
    Activation(#[from] ActivationError),
    /// The endpoint cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The endpoint's directory is not this user's alone.
    #[error("the endpoint's directory must be private: {0}")]
    Directory(#[from] PrivateDirError),
    /// Another process serves the endpoint.
    #[error("cannot have the endpoint alone: {0}")]
    Lock(#[from] LockError),
    /// What the broker passed for a control connection is none.
    #[error("cannot take the control connection to the broker: {0}")]
    Control(#[source] io::Error),
    /// The endpoint's namespace or its directory is not known.
    #[error("cannot name what belongs to the endpoint: {0}")]
    Namespace(#[from] EndpointError),
}

/// A service's side of an endpoint: it listens, and waits to be served.
///
/// On drop the socket file is removed.
#[derive(Debug)]
pub struct Backend {
    pub(crate) socket: BoundSocket,
    pub(crate) identity: Identity,
    /// Released after the socket, so that nobody binds a place that is still taken.
    pub(crate) lock: Option<InstanceLock>,
    /// Where brokers dial to make offers.
    pub(crate) offers: Option<BoundSocket>,
    /// How to get a control connection to a broker, if at all.
    pub(crate) control: Link,
    /// For clients of an older format; most have none.
    pub(crate) mux: Option<Mux>,
    /// Where to tell which process serves; nowhere unless it is asked for.
    pub(crate) sidecar: Option<PathBuf>,
    environment: Option<Environment>,
    endpoint: PathBuf,
}

impl Backend {
    /// The backend that a broker started this process to be.
    ///
    /// # Errors
    /// [`StartError`]; [`EnvironmentError::NoBroker`] where no broker had a part in the start.
    pub fn from_env() -> Result<Self, StartError> {
        Self::from_environment(Environment::from_env()?)
    }

    /// As [`Backend::from_env`], with an environment that was read before.
    ///
    /// Where the broker listens already and has passed the listener on (sd_listen_fds(3)), that one is
    /// taken; otherwise the endpoint is bound.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn from_environment(environment: Environment) -> Result<Self, StartError> {
        let endpoint = environment.endpoint.clone();
        let identity = Identity::of_this_process(&endpoint, &environment.namespace)?;
        let socket = match activation::take_listener(Some(&endpoint))? {
            Some(socket) => socket,
            // No lock: the broker makes a fresh name for every start, in a directory that it keeps.
            None => BoundSocket::bind(&endpoint, &BindOptions::default())?,
        };
        let inherited = match activation::take_parent_stream(CONTROL_FD) {
            Ok(Some(descriptor)) => Some(Stream::from_owned_fd(descriptor).map_err(StartError::Control)?),
            Ok(None) => None,
            // Somebody stands between the broker and this process, or another backend in it has it.
            Err(error @ (ActivationError::NotTheParents { .. } | ActivationError::Taken)) => {
                tracing::debug!(%error, "there is no control connection");
                None
            }
            Err(error) => return Err(error.into()),
        };
        let control = Link {
            announcement: Some(announcement(&environment.service, &environment.version, &endpoint)),
            inherited,
            // Should this process outlive its broker, it announces itself to the next one.
            broker: environment.control_pipe.clone(),
        };
        Ok(Self {
            socket,
            identity,
            lock: None,
            offers: None,
            control,
            mux: None,
            sidecar: None,
            environment: Some(environment),
            endpoint,
        })
    }

    /// A backend that runs without having been started by a broker, on an endpoint of its own.
    ///
    /// The directory is created where it is missing, with mode 0700, and has to be this user's alone. A
    /// lock file beside the socket makes sure that one process serves it; a stale socket is replaced.
    ///
    /// # Errors
    /// [`StartError`]; [`StartError::Lock`] names the process that serves the endpoint already.
    pub fn bind(endpoint: impl Into<PathBuf>) -> Result<Self, StartError> {
        let endpoint = endpoint.into();
        let namespace = endpoint::current_user_hash()?.to_string();
        let identity = Identity::of_this_process(&endpoint, &namespace)?;
        private_dir::ensure_private_dir(&endpoint::dir_beside(&endpoint)?)?;
        let lock = InstanceLock::acquire(&endpoint::lock_path(&endpoint)?, &endpoint.to_string_lossy())?;
        let socket = BoundSocket::bind(&endpoint, &BindOptions::default())?;
        Ok(Self {
            socket,
            identity,
            lock: Some(lock),
            offers: None,
            control: Link::default(),
            mux: None,
            sidecar: None,
            environment: None,
            endpoint,
        })
    }

    /// Announces this process as a backend of `service` in `version` to the broker at this endpoint, over a
    /// connection that it keeps open. The broker then sends clients there, and passes their connections on.
    ///
    /// Where the broker does not run, or ends, it is tried again after a pause that grows from a tenth of a
    /// second to half a minute. What it does not like about the announcement is a warning in the log.
    #[must_use]
    pub fn announced_to(
        mut self,
        broker: impl Into<PathBuf>,
        service: &ServiceName,
        version: &Version,
    ) -> Self {
        self.control = Link {
            announcement: Some(announcement(service, version, &self.endpoint)),
            inherited: None,
            broker: Some(broker.into()),
        };
        self
    }

    /// Takes connections that a broker of plain v1 offers at this endpoint (protocol.md, "Conversations"
    /// 4): the one that the service's definition names in its label `handoff.endpoint`, or that the backend
    /// is registered with. A broker that started this process and knows of control connections does
    /// without.
    ///
    /// # Errors
    /// [`StartError`], as for [`Backend::bind`]; the socket has no lock of its own.
    pub fn with_offers_at(mut self, endpoint: impl AsRef<Path>) -> Result<Self, StartError> {
        let endpoint = endpoint.as_ref();
        private_dir::ensure_private_dir(&endpoint::dir_beside(endpoint)?)?;
        self.offers = Some(BoundSocket::bind(endpoint, &BindOptions::default())?);
        Ok(self)
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Path {
        &self.endpoint
    }

    /// What the broker said at the start; `None` when no broker started it.
    pub const fn environment(&self) -> Option<&Environment> {
        self.environment.as_ref()
    }

    /// What probes are answered with.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Answers probes with another identity.
    ///
    /// A broker that started this process will not accept it: for tests of just that, and for a process
    /// that stands in for another one.
    #[must_use]
    pub fn with_identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    /// Serves for as long as the process lives. Dropping the future ends every connection at once.
    ///
    /// # Errors
    /// [`ServeError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn serve(self, handler: impl Handler) -> Result<(), ServeError> {
        self.serve_until(handler, pending()).await
    }

    /// Serves until `stop` is ready.
    ///
    /// Then the endpoint goes, and every connection with it; one with a request at hand, be it still on
    /// its way in, gets the answer first. What takes longer than [`DRAIN_LIMIT`](crate::DRAIN_LIMIT) is
    /// cut off.
    ///
    /// # Errors
    /// [`ServeError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn serve_until(
        self,
        handler: impl Handler,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        serve::run(self, handler, stop).await
    }
}

fn announcement(service: &ServiceName, version: &Version, endpoint: &Path) -> Announcement {
    Announcement {
        service_name: service.to_string(),
        service_version: version.to_string(),
        endpoint: endpoint.to_string_lossy().into_owned(),
        capabilities: (Capabilities::HANDLE_PASSING | Capabilities::EARLY_DATA).bits(),
    }
}
