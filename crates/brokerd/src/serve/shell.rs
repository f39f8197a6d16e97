//! The shell around the state machine: what it decides is carried out here.
//!
//! Everything runs on one thread. The [`Broker`] lies in a `RefCell` that is borrowed for one call at a
//! time and never across an `await`, so there is one owner of the state and no lock order to remember.
//! After each call, whatever it asked for is done before anything else happens. It decides nothing.
//!
//! Invariant: every task that serves a connection or a backend tells the broker of its end exactly once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use broker_core::admission::{ConnectionKey, PeerKey};
use broker_core::backends::ControlKey;
use broker_core::broker::{Action, Arrival, Broker, Input, PeerIdentity, StopSignal};
use broker_core::entropy::BlockEntropy;
use broker_core::handoff::BackendSlot;
use broker_core::hello::Reply;
use broker_core::time::{Monotonic, Now};
use broker_protocol::limits::MAX_HELLO_BODY;
use broker_protocol::wire::EventKind;
use broker_protocol::wire::{AdminReply, AdminRequest};
use broker_protocol::{BoundedEvent, ConnectionId};
use broker_transport::frame_io::FrameReader;
use broker_transport::listener::Accepted;
use broker_transport::peer::{PeerCredentials, UserId};
use broker_transport::process::Spawner;
use broker_transport::stream::Stream;
use foldhash::fast::RandomState;
use tokio::sync::{Mutex, MutexGuard, Notify, OwnedMutexGuard, oneshot};
use tokio::task::AbortHandle;

use super::backend_process::Process;
use super::backends;
use super::clock::Clock;
use super::connection::{self, Asks, Moved};
use super::control::Control;
use super::entropy::SystemEntropy;
use super::event_log::EventLog;
use super::handoff::Parked;
use super::records::Records;
use super::reload::Configuration;
use super::settings::Settings;
use super::succession::Moves;
use super::tidying::Tidying;
use super::watches::Watches;
use crate::definitions::DefinitionDir;

/// The state machine as the daemon runs it.
pub(super) type LiveBroker = Broker<BlockEntropy<SystemEntropy>>;

/// The daemon's state. One per process.
pub(super) struct Shell {
    broker: RefCell<LiveBroker>,
    clock: Clock,
    own_user: UserId,
    configuration: Configuration,
    definitions: DefinitionDir,
    spawner: Spawner,
    events: EventLog,
    /// How to end the task of each connection.
    connections: RefCell<HashMap<ConnectionKey, AbortHandle, RandomState>>,
    tidying: Tidying,
    next_connection: Cell<u64>,
    next_control: Cell<u64>,
    /// Who waits for a backend.
    waiting: RefCell<HashMap<ConnectionKey, oneshot::Sender<Reply>>>,
    processes: RefCell<HashMap<BackendSlot, Rc<Process>>>,
    /// The control connections that are in use.
    controls: RefCell<HashMap<BackendSlot, Rc<Control>>>,
    /// The connections on offer there, and to whom.
    parked: RefCell<HashMap<ConnectionId, (Rc<Control>, Parked)>>,
    watches: Watches,
    records: Records,
    /// When the broker next wants to be called, and the news that this has changed.
    due: Cell<Option<Monotonic>>,
    due_changed: Notify,
    /// Whose turn it is to render an admin answer.
    rendering: Mutex<()>,
    /// Whose turn it is to write an archive, which goes on where nobody waits for it any more.
    diagnosing: Arc<Mutex<()>>,
    /// Requests that are being answered right now, and the news that there are none.
    in_flight: Cell<usize>,
    all_answered: Notify,
    stop: Notify,
    drain_begun: Notify,
    moves: Moves,
}

impl Shell {
    pub(super) fn new(
        broker: LiveBroker,
        clock: Clock,
        configuration: Configuration,
        spawner: Spawner,
        events: EventLog,
    ) -> Rc<Self> {
        Rc::new(Self {
            broker: RefCell::new(broker),
            clock,
            own_user: UserId::current(),
            definitions: configuration.in_force().definitions(),
            records: Records::new(&configuration.in_force()),
            configuration,
            spawner,
            events,
            connections: RefCell::default(),
            tidying: Tidying::default(),
            next_connection: Cell::new(0),
            next_control: Cell::new(0),
            waiting: RefCell::default(),
            processes: RefCell::default(),
            controls: RefCell::default(),
            parked: RefCell::default(),
            watches: Watches::default(),
            due: Cell::new(None),
            due_changed: Notify::new(),
            rendering: Mutex::default(),
            diagnosing: Arc::default(),
            in_flight: Cell::new(0),
            all_answered: Notify::new(),
            stop: Notify::new(),
            drain_begun: Notify::new(),
            moves: Moves::default(),
        })
    }

    pub(super) const fn clock(&self) -> Clock {
        self.clock
    }

    /// What holds now; it may be something else after an `await`.
    pub(super) fn settings(&self) -> Rc<Settings> {
        self.configuration.in_force()
    }

    pub(super) const fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    pub(super) const fn definitions(&self) -> &DefinitionDir {
        &self.definitions
    }

    pub(super) const fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    pub(super) const fn records(&self) -> &Records {
        &self.records
    }

    pub(super) const fn watches(&self) -> &Watches {
        &self.watches
    }

    pub(super) fn events_dropped(&self) -> u64 {
        self.events.dropped()
    }

    /// Calls the broker, and carries out what it asks for.
    pub(super) fn call<R>(self: &Rc<Self>, call: impl FnOnce(&mut LiveBroker, Now) -> R) -> R {
        let result = call(&mut self.broker.borrow_mut(), self.clock.now());
        self.carry_out_all();
        result
    }

    /// Looks at the broker.
    pub(super) fn look<R>(&self, look: impl FnOnce(&LiveBroker, Now) -> R) -> R {
        look(&self.broker.borrow(), self.clock.now())
    }

    /// Tells the broker what happened.
    pub(super) fn tell(self: &Rc<Self>, input: Input) {
        if matches!(input, Input::Drain { .. }) {
            self.drain_begun.notify_one();
        }
        self.call(|broker, now| broker.handle(now, input));
    }

    fn carry_out_all(self: &Rc<Self>) {
        loop {
            let action = self.broker.borrow_mut().poll_action();
            match action {
                Some(action) => self.carry_out(action),
                None => break,
            }
        }
        let due = self.broker.borrow_mut().next_timeout();
        if self.due.replace(due) != due {
            self.due_changed.notify_one();
        }
        self.moves.note_change();
    }

    fn carry_out(self: &Rc<Self>, action: Action) {
        match action {
            Action::Reply { connection, reply } => {
                if let Some(waiting) = self.waiting.borrow_mut().remove(&connection) {
                    // Its client may have gone this very moment.
                    let _ = waiting.send(reply);
                }
            }
            Action::Evict { connection } => {
                if let Some(task) = self.connections.borrow_mut().remove(&connection) {
                    task.abort();
                    self.tidying.ended();
                }
            }
            Action::Start(order) => {
                let process = Rc::new(Process::default());
                self.processes.borrow_mut().insert(order.slot, Rc::clone(&process));
                tokio::task::spawn_local(backends::start(Rc::clone(self), order, process));
            }
            Action::Probe { slot, endpoint } => {
                tokio::task::spawn_local(backends::probe(Rc::clone(self), slot, endpoint));
            }
            Action::Look { slot, endpoint } => {
                tokio::task::spawn_local(backends::look(Rc::clone(self), slot, endpoint));
            }
            Action::Quiesce { slot, pid, limit } => {
                tokio::task::spawn_local(backends::quiesce(Rc::clone(self), slot, pid, limit));
            }
            Action::Signal { slot, signal } => self.signal(slot, signal),
            Action::Abandon { connection } => {
                let parked = self.parked.borrow_mut().remove(&connection);
                if let Some((control, parked)) = parked {
                    drop(parked);
                    self.tell(Input::ControlSilent { slot: control.slot() });
                }
            }
            Action::EndControl { slot, control } => {
                if let Some(current) = self.control(slot).filter(|current| current.key() == control) {
                    current.end();
                }
            }
            Action::Emit(event) => {
                trace(&event);
                self.events.append(event);
            }
            Action::Stop => self.stop.notify_one(),
        }
    }

    fn signal(&self, slot: BackendSlot, signal: StopSignal) {
        if let Some(process) = self.processes.borrow().get(&slot) {
            process.signal(signal);
        }
    }

    /// Takes in a connection that was just accepted.
    pub(super) fn take_in(self: &Rc<Self>, accepted: Accepted) {
        let (stream, peer) = (accepted.stream, accepted.peer.ok());
        if self.moves.is_moving() {
            let accepted = self.clock.now().monotonic;
            self.moves.add(Moved { stream, accepted, received: Vec::new(), asks: Asks::Anything });
            return;
        }
        if let Some((key, peer, at)) = self.admit(peer) {
            self.serve((stream, FrameReader::new(MAX_HELLO_BODY)), key, peer, at);
        }
    }

    /// Takes in a connection that was moved, as if everything that was read of it came just now.
    pub(super) fn take_back(
        self: &Rc<Self>,
        moved: Moved,
        succeeded: impl FnOnce(&AdminRequest) -> AdminReply + 'static,
    ) {
        let Moved { stream, accepted, received, asks } = moved;
        let Ok(reader) = FrameReader::resume(MAX_HELLO_BODY, &received) else { return };
        let Some((key, peer, _)) = self.admit(stream.peer().ok()) else { return };
        match asks {
            Asks::Anything => self.serve((stream, reader), key, peer, accepted),
            Asks::ForSuccession => {
                let tell = connection::tell_of_succession(Rc::clone(self), (stream, reader), key, succeeded);
                tokio::task::spawn_local(tell);
            }
        }
    }

    /// Asks the broker whether a peer may have a connection.
    pub(super) fn admit(
        self: &Rc<Self>,
        peer: Option<PeerCredentials>,
    ) -> Option<(ConnectionKey, PeerKey, Monotonic)> {
        let key = ConnectionKey::new(self.next_connection.get());
        self.next_connection.set(key.get() + 1);
        let (identity, peer) = identify(self.own_user, peer);
        match self.call(|broker, now| (broker.connected(now, key, identity), now.monotonic)) {
            (Arrival::Serve, at) => Some((key, peer, at)),
            (Arrival::Drop, _) => None,
        }
    }

    fn serve(
        self: &Rc<Self>,
        client: (Stream, FrameReader),
        key: ConnectionKey,
        peer: PeerKey,
        accepted: Monotonic,
    ) {
        let in_flight = self.begin_answer();
        let shell = Rc::clone(self);
        let mut task = Box::pin(connection::serve(shell, client, key, peer, accepted, in_flight));
        // Most requests are there already and are answered at once: those need no task.
        let mut context = Context::from_waker(Waker::noop());
        if task.as_mut().poll(&mut context).is_pending() {
            let task = tokio::task::spawn_local(task);
            let mut connections = self.connections.borrow_mut();
            connections.insert(key, task.abort_handle());
            self.tidying.began(connections.len());
        }
    }

    /// A connection is no client's any more: it stays where it is when the others are moved.
    pub(super) fn exempt(&self, key: ConnectionKey) {
        if self.connections.borrow_mut().remove(&key).is_some() {
            self.tidying.ended();
        }
    }

    /// Ends the tasks of all clients' connections. As each ends it hands its connection on.
    pub(super) fn end_client_tasks(&self) {
        for task in self.connections.borrow().values() {
            task.abort();
        }
    }

    /// Whether a client's connection has a task.
    pub(super) fn has_client_tasks(&self) -> bool {
        !self.connections.borrow().is_empty()
    }

    /// What is to be moved where the broker goes on as another program.
    pub(super) const fn moves(&self) -> &Moves {
        &self.moves
    }

    /// Waits until everything that was to be told is written, but no longer than `limit`.
    pub(super) fn flush_events(&self, limit: Duration) {
        self.events.flush(limit);
    }

    /// Forgets a connection whose task ends.
    pub(super) fn forget(self: &Rc<Self>, key: ConnectionKey) {
        if self.connections.borrow_mut().remove(&key).is_some() {
            self.tidying.ended();
        }
        self.waiting.borrow_mut().remove(&key);
        self.call(|broker, now| broker.disconnected(now, key));
    }

    /// Where the answer to a Hello that waits will come out.
    pub(super) fn wait_for_reply(&self, key: ConnectionKey) -> oneshot::Receiver<Reply> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(key, sender);
        receiver
    }

    /// The control connection of a backend, where one is in use.
    pub(super) fn control(&self, slot: BackendSlot) -> Option<Rc<Control>> {
        self.controls.borrow().get(&slot).cloned()
    }

    pub(super) fn add_control(&self, slot: BackendSlot, control: &Rc<Control>) {
        self.controls.borrow_mut().insert(slot, Rc::clone(control));
    }

    /// Takes a control connection out of use, and with it the copies of what is on offer there.
    pub(super) fn remove_control(&self, slot: BackendSlot, control: &Rc<Control>) {
        let mut controls = self.controls.borrow_mut();
        if controls.get(&slot).is_some_and(|current| Rc::ptr_eq(current, control)) {
            controls.remove(&slot);
        }
        drop(controls);
        let lost: Vec<_> = {
            let mut parked = self.parked.borrow_mut();
            let lost = parked.iter().filter(|(_, (to, _))| Rc::ptr_eq(to, control)).map(|(id, _)| *id);
            let lost: Vec<_> = lost.collect();
            lost.iter().filter_map(|id| parked.remove(id)).collect()
        };
        // Each tells the broker of its end.
        drop(lost);
    }

    /// Keeps the copy of a connection that is on offer.
    pub(super) fn park(&self, connection: ConnectionId, to: Rc<Control>, parked: Parked) {
        self.parked.borrow_mut().insert(connection, (to, parked));
    }

    /// A number for a control connection.
    pub(super) fn next_control(&self) -> ControlKey {
        let number = self.next_control.get();
        self.next_control.set(number + 1);
        ControlKey::new(number)
    }

    /// Whether a connection is on offer on this control connection.
    pub(super) fn is_parked(&self, connection: ConnectionId, on: &Control) -> bool {
        self.parked.borrow().get(&connection).is_some_and(|(to, _)| to.key() == on.key())
    }

    /// Takes note that a backend has taken a connection that was passed to it.
    pub(super) fn note_adopted(&self, slot: BackendSlot) {
        if let Some(process) = self.processes.borrow().get(&slot) {
            process.note_adopted();
        }
    }

    /// Whether a backend that was started has ever taken a connection that was passed to it.
    pub(super) fn has_adopted(&self, slot: BackendSlot) -> bool {
        self.processes.borrow().get(&slot).is_some_and(|process| process.has_adopted())
    }

    /// The copy of a connection that is on offer no more.
    pub(super) fn unpark(&self, connection: ConnectionId) -> Option<Parked> {
        self.parked.borrow_mut().remove(&connection).map(|(_, parked)| parked)
    }

    /// Keeps a process that runs.
    pub(super) fn add_process(&self, slot: BackendSlot, process: &Rc<Process>) {
        self.processes.borrow_mut().insert(slot, Rc::clone(process));
    }

    /// The process in this place.
    pub(super) fn process(&self, slot: BackendSlot) -> Option<Rc<Process>> {
        self.processes.borrow().get(&slot).cloned()
    }

    /// Every control connection that is in use.
    pub(super) fn all_controls(&self) -> Vec<Rc<Control>> {
        self.controls.borrow().values().cloned().collect()
    }

    /// Forgets a process that has ended. Another one may have its place by now.
    pub(super) fn forget_process(&self, slot: BackendSlot, ended: &Process) {
        let mut processes = self.processes.borrow_mut();
        if processes.get(&slot).is_some_and(|process| std::ptr::eq(&**process, ended)) {
            processes.remove(&slot);
        }
    }

    /// Waits for the turn to render an admin answer. Each takes as long as many Hellos, so between two of them
    /// whoever else waits is accepted and answered: a flood of long answers delays only those who ask for one.
    pub(super) async fn turn_to_render(&self) -> MutexGuard<'_, ()> {
        let turn = self.rendering.lock().await;
        tokio::task::yield_now().await;
        turn
    }

    /// Waits for the turn to write an archive, so that however many are asked for, one is held in memory.
    pub(super) async fn turn_to_diagnose(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.diagnosing).lock_owned().await
    }

    /// Counts a request as being answered until the guard is dropped.
    pub(super) fn begin_answer(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight(Rc::clone(self))
    }

    /// Waits until every request that was read is answered, but no longer than `limit`.
    pub(super) async fn finish_answers(&self, limit: Duration) {
        let all_answered = async {
            while self.in_flight.get() > 0 {
                self.all_answered.notified().await;
            }
        };
        if tokio::time::timeout(limit, all_answered).await.is_err() {
            tracing::warn!(
                left = self.in_flight.get(),
                "answers were still being written when the broker ended"
            );
        }
    }

    /// Waits until the broker is told to drain.
    pub(super) async fn drain_begun(&self) {
        self.drain_begun.notified().await;
    }

    /// Waits until the broker wants the daemon to end.
    pub(super) async fn stopped(&self) {
        self.stop.notified().await;
    }

    /// Removes the sockets of backends that end with this process.
    pub(super) fn remove_backend_sockets(&self) {
        for process in self.processes.borrow().values() {
            process.remove_socket();
        }
    }

    /// Gives memory back after bursts of connections, for ever.
    pub(super) async fn keep_tidy(self: Rc<Self>) {
        self.tidying.keep(|| self.connections.borrow().len()).await;
    }

    /// Calls the broker whenever something is due, for ever.
    pub(super) async fn keep_time(self: Rc<Self>) {
        loop {
            let changed = self.due_changed.notified();
            match self.due.get() {
                None => changed.await,
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(self.clock.instant(due)) => {
                        self.call(LiveBroker::handle_timeout);
                    }
                },
            }
        }
    }
}

/// A request that is being answered.
pub(super) struct InFlight(Rc<Shell>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let left = self.0.in_flight.get() - 1;
        self.0.in_flight.set(left);
        if left == 0 {
            self.0.all_answered.notify_one();
        }
    }
}

fn identify(own: UserId, peer: Option<PeerCredentials>) -> (PeerIdentity, PeerKey) {
    let Some(peer) = peer else {
        return (PeerIdentity::Unreadable, PeerKey::new(u64::MAX, None));
    };
    let key = PeerKey::new(peer.user.key(), peer.pid.map(std::num::NonZeroU32::get));
    (if peer.user == own { PeerIdentity::Own(key) } else { PeerIdentity::Foreign(key) }, key)
}

/// Tells the log what the event file gets.
fn trace(event: &BoundedEvent) {
    let event = event.get();
    let kind = event.kind();
    let name = kind.as_str_name();
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (service, reason, request_id) =
        (said(&event.service_name), said(&event.reason), said(&event.request_id));
    let version = event.extra.get("version").map(String::as_str);
    let pid = (event.pid != 0).then_some(event.pid);
    match kind {
        EventKind::HelloAccepted | EventKind::HelloRefused => {
            let connection_id = (event.connection_id != 0).then_some(event.connection_id);
            tracing::debug!(service, version, request_id, connection_id, reason, "{name}");
        }
        _ if event.severity_number >= broker_protocol::Severity::Error.number() => {
            tracing::error!(service, version, pid, reason, "{name}");
        }
        _ if event.severity_number >= broker_protocol::Severity::Warn.number() => {
            tracing::warn!(service, version, pid, reason, "{name}");
        }
        _ => tracing::info!(service, version, pid, reason, "{name}"),
    }
}
