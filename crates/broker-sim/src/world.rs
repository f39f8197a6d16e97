//! The world: everything outside the broker, and the loop that moves it.
//!
//! One thing happens at a time. After each, whatever the broker asked for is carried out, as the daemon does
//! it, and every invariant is checked.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_core::backends::{ControlKey, Registration};
use broker_core::broker::{Action, Broker, DefinitionCheck, Exit, Input};
use broker_core::entropy::SeededEntropy;
use broker_core::handoff::BackendSlot;
use broker_core::time::{Monotonic, Now, UnixMillis};
use broker_protocol::handoff::Acknowledgement;

use crate::agenda::Agenda;
use crate::chance::Chance;
use crate::clients::{Connection, Number};
use crate::disk::Disk;
use crate::history::{History, Violation};
use crate::invariants::Counted;
use crate::kernel::{Incarnation, Kernel};
use crate::ledger::Ledger;
use crate::offers::Parked;
use crate::plan::Plan;
use crate::starts::{Start, StartNumber, Step};

/// Longest way between two processes of one machine.
pub(crate) const WAY: Duration = Duration::from_millis(5);

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client connects.
    Connect,
    /// The first frame of a connection is there.
    Request(Number),
    /// The time for that frame is over.
    RequestOverdue(Number),
    /// The definition that a Hello needs was looked at.
    DefinitionRead(Reign, Number, DefinitionCheck),
    /// A client leaves.
    Leave(Number),
    /// The next step of a start.
    Start(StartNumber, Step),
    /// A process of a backend ends.
    Death(Incarnation, Exit),
    /// The broker is told of that.
    Reaped(Incarnation, Exit),
    /// A backend that was started announces itself.
    Announce(Incarnation),
    /// A backend that nobody started connects, to announce itself.
    DaemonConnects(Incarnation),
    /// A backend ends its control connection.
    HangUp(Incarnation),
    /// A control connection is closed, and the broker sees it.
    ControlEnds(ControlKey),
    /// An offer reaches a backend.
    Offer(Incarnation, Parked),
    /// A backend's answer reaches the broker.
    Answer(BackendSlot, Option<ControlKey>, Box<Acknowledgement>),
    /// The time for the answer to an offer that was dialled is over.
    AnswerOverdue(Number),
    /// What the daemon has done for its broker has come to this.
    Tell(Reign, Input),
    /// A registered endpoint is asked who serves it.
    ProbeAnswered(Reign, BackendSlot, String),
    /// What a former broker has left in this place is looked at.
    LeftLookedAt(Reign, BackendSlot, Incarnation),
    /// A definition is edited.
    Edit,
    /// Descriptors run out.
    Shortage,
    /// The machine sleeps, or its calendar is set.
    ClockJump,
    /// The configuration is edited, and the broker told.
    Reconfigure,
    /// The broker is to go on as another program.
    Upgrade,
    /// It does so if nothing is under way, or gives up at this time.
    Succeed(Reign, Monotonic),
    /// The broker is killed, and another one started.
    Crash,
}

/// The time of one broker: what was under way for it is nothing to the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reign(pub(crate) u64);

/// What is done to every broker before it begins.
pub(crate) type Prepare<'a> = &'a dyn Fn(Broker<SeededEntropy>) -> Broker<SeededEntropy>;

/// Everything.
pub(crate) struct World<'a> {
    prepare: Prepare<'a>,
    pub(crate) reign: Reign,
    pub(crate) plan: Plan,
    pub(crate) chance: Chance,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) broker: Broker<SeededEntropy>,
    pub(crate) now: Now,
    pub(crate) history: History,
    pub(crate) ledger: Ledger,
    pub(crate) disk: Disk,
    pub(crate) kernel: Kernel,
    pub(crate) connections: BTreeMap<Number, Connection>,
    pub(crate) starts: BTreeMap<StartNumber, Start>,
    /// The control connections that are in use, and whose they are.
    pub(crate) controls: BTreeMap<BackendSlot, (ControlKey, Incarnation)>,
    /// The backends of former brokers that the broker has taken over, which are not its children.
    pub(crate) adopted: BTreeMap<BackendSlot, Incarnation>,
    /// What the broker counts may be over its limits for as long as it does not grow.
    pub(crate) counted: Counted,
    /// The copies of connections that are on offer.
    pub(crate) parked: BTreeMap<Number, Parked>,
    pub(crate) clients_to_come: u32,
    pub(crate) numbers: u64,
    /// How late the timer that is due next is seen.
    lateness: Option<(Monotonic, Duration)>,
    pub(crate) is_upgrading: bool,
    /// What the file names of the backends that nobody has started.
    pub(crate) registrations: Vec<Registration>,
    pub(crate) drains_by: Option<Monotonic>,
    pub(crate) has_stopped: bool,
}

impl<'a> World<'a> {
    pub(crate) fn new(seed: u64, history: History, prepare: Prepare<'a>) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::draw(&mut chance);
        let broker = prepare(Broker::new(plan.config.clone(), SeededEntropy::new(chance.seed())));
        let now = Now::new(Monotonic::from_nanos(1), UnixMillis::new(1_700_000_000_000));
        let mut world = Self {
            prepare,
            reign: Reign::default(),
            adopted: BTreeMap::new(),
            counted: Counted::default(),
            disk: Disk::new(&plan, &mut chance),
            clients_to_come: plan.connections,
            ledger: Ledger::new(&plan),
            plan,
            chance,
            agenda: Agenda::new(),
            broker,
            now,
            history,
            kernel: Kernel::default(),
            connections: BTreeMap::new(),
            starts: BTreeMap::new(),
            controls: BTreeMap::new(),
            parked: BTreeMap::new(),
            numbers: 0,
            lateness: None,
            is_upgrading: false,
            registrations: Vec::new(),
            drains_by: None,
            has_stopped: false,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for _ in 0..self.plan.daemons {
            self.daemon_appears();
        }
        self.enter_within(self.plan.gap, Event::Connect);
        let faults = self.plan.faults;
        let times = [
            (faults.edits, (|| Event::Edit) as fn() -> Event),
            (faults.descriptor_shortage, || Event::Shortage),
            (faults.clock_jumps, || Event::ClockJump),
        ];
        let length = self.plan.gap.saturating_mul(self.plan.connections);
        for (percent, event) in times {
            for _ in 0..percent / 10 {
                self.enter_within(length, event());
            }
        }
        // At any time, also when the backends have become idle.
        let length = length + 2 * self.plan.idle_timeout.unwrap_or_default();
        let times = [
            (faults.reconfigurations, (|| Event::Reconfigure) as fn() -> Event),
            (faults.upgrades, || Event::Upgrade),
            (faults.crashes, || Event::Crash),
        ];
        for (percent, event) in times {
            for _ in 0..percent / 10 {
                let delay = self.chance.up_to(length);
                self.enter_after(delay, event());
            }
        }
    }

    /// A number that nothing else has.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn enter_after(&mut self, delay: Duration, event: Event) {
        self.agenda.enter(self.now.monotonic.saturating_add(delay), event);
    }

    pub(crate) fn enter_within(&mut self, most: Duration, event: Event) {
        let delay = self.chance.delay(most);
        self.enter_after(delay, event);
    }

    /// Tells the broker something a moment later, if it is still the same one.
    pub(crate) fn tell_within(&mut self, most: Duration, input: Input) {
        self.enter_within(most, Event::Tell(self.reign, input));
    }

    /// Has another broker take the place of this one, in a new reign; it knows what the file says, and no more.
    pub(crate) fn enthrone(&mut self) {
        self.reign.0 += 1;
        self.is_upgrading = false;
        self.lateness = None;
        let successor = Broker::new(self.plan.config.clone(), SeededEntropy::new(self.chance.seed()));
        self.broker = (self.prepare)(successor);
        self.registrations.iter().cloned().for_each(|named| self.broker.register(named));
    }

    /// Lives the history to its end.
    pub(crate) fn live(&mut self) -> Result<(), Violation> {
        while !self.has_stopped {
            self.step()?;
            self.check()?;
        }
        self.check_end()
    }

    /// The next thing that happens: a timer of the broker's, or an event.
    fn step(&mut self) -> Result<(), Violation> {
        let timer = self.timer();
        let event = self.agenda.next_time();
        match (timer, event) {
            (Some(timer), event) if event.is_none_or(|event| timer < event) => {
                self.pass_to(timer);
                self.history.note(self.now, &"a timer");
                self.broker.handle_timeout(self.now);
                self.lateness = None;
                self.carry_out_all()?;
                self.check_timers()
            }
            (_, Some(_)) => {
                let Some((at, event)) = self.agenda.pop() else { return Ok(()) };
                self.pass_to(at);
                self.history.note(self.now, &event);
                self.happen(event)?;
                self.carry_out_all()
            }
            (_, None) => self.end_or_drain(),
        }
    }

    /// Nothing is left to happen: that is where a history ends, unless the broker has to be told.
    fn end_or_drain(&mut self) -> Result<(), Violation> {
        if self.drains_by.is_some() {
            return Err(
                self.violated("a drain ends", "nothing is due, nothing happens, and it has not stopped")
            );
        }
        self.check_rest()?;
        self.drain(self.plan.drain_deadline);
        self.carry_out_all()
    }

    pub(crate) fn drain(&mut self, deadline: Option<Duration>) {
        if self.drains_by.is_none() {
            let limit = deadline.unwrap_or(self.plan.config.drain);
            self.drains_by = Some(self.now.monotonic.saturating_add(limit));
        }
        self.tell(Input::Drain { deadline });
    }

    /// When the broker's next timer is seen.
    fn timer(&mut self) -> Option<Monotonic> {
        let due = self.broker.next_timeout()?;
        let lateness = match self.lateness {
            Some((of, lateness)) if of == due => lateness,
            _ => {
                let is_late = self.chance.percent(self.plan.faults.late_timers);
                let lateness =
                    if is_late { self.chance.delay(Duration::from_secs(2)) } else { Duration::ZERO };
                self.lateness = Some((due, lateness));
                lateness
            }
        };
        Some(due.saturating_add(lateness).max(self.now.monotonic))
    }

    fn pass_to(&mut self, to: Monotonic) {
        let passed = to.duration_since(self.now.monotonic);
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        self.now = Now::new(to, UnixMillis::new(self.now.unix.get().saturating_add(millis)));
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Connect => self.client_connects(),
            Event::Request(number) => self.request(number),
            Event::RequestOverdue(number) => {
                self.request_overdue(number);
                Ok(())
            }
            Event::DefinitionRead(reign, number, check) if reign == self.reign => self.hello(number, check),
            Event::DefinitionRead(..) => Ok(()),
            Event::Leave(number) => {
                self.client_leaves(number);
                Ok(())
            }
            Event::Start(number, step) => {
                self.start_step(number, step);
                Ok(())
            }
            Event::Death(incarnation, exit) => {
                self.process_dies(incarnation, exit);
                Ok(())
            }
            Event::Reaped(incarnation, exit) => {
                self.reaped(incarnation, exit);
                Ok(())
            }
            Event::Announce(incarnation) => {
                self.announces(incarnation);
                Ok(())
            }
            Event::DaemonConnects(incarnation) => {
                self.daemon_connects(incarnation);
                Ok(())
            }
            Event::HangUp(incarnation) => {
                self.hangs_up(incarnation);
                Ok(())
            }
            Event::ControlEnds(control) => {
                self.control_ends(control);
                Ok(())
            }
            Event::Offer(incarnation, parked) => {
                self.offer_arrives(incarnation, &parked);
                Ok(())
            }
            Event::Answer(slot, control, answer) => self.answer_arrives(slot, control, &answer),
            Event::AnswerOverdue(number) => {
                self.drop_parked(number);
                Ok(())
            }
            Event::Tell(reign, input) => {
                if reign == self.reign {
                    self.tell(input);
                }
                Ok(())
            }
            Event::ProbeAnswered(reign, slot, endpoint) => {
                if reign == self.reign {
                    self.probe_answered(slot, &endpoint);
                }
                Ok(())
            }
            Event::LeftLookedAt(reign, slot, incarnation) => {
                if reign == self.reign {
                    self.left_looked_at(slot, incarnation);
                }
                Ok(())
            }
            Event::Edit => {
                self.disk.edit(&self.plan, &mut self.chance);
                Ok(())
            }
            Event::Shortage => {
                self.tell(Input::DescriptorPressure);
                Ok(())
            }
            Event::ClockJump => {
                self.clock_jumps();
                Ok(())
            }
            Event::Reconfigure => {
                self.reconfigure();
                Ok(())
            }
            Event::Upgrade => {
                self.upgrade();
                Ok(())
            }
            Event::Succeed(reign, gives_up) if reign == self.reign => self.succeed(gives_up),
            Event::Succeed(..) => Ok(()),
            Event::Crash => self.crash(),
        }
    }

    /// The machine sleeps, or somebody sets its calendar.
    fn clock_jumps(&mut self) {
        let jump = self.chance.delay(Duration::from_secs(100_000));
        if self.chance.percent(50) {
            self.now.monotonic = self.now.monotonic.saturating_add(jump);
        }
        let millis = u64::try_from(jump.as_millis()).unwrap_or(0);
        let unix = self.now.unix.get();
        let unix =
            if self.chance.percent(50) { unix.saturating_sub(millis) } else { unix.saturating_add(millis) };
        self.now.unix = UnixMillis::new(unix);
    }

    /// Tells the broker what happened, and the ledger what it was told.
    pub(crate) fn tell(&mut self, input: Input) {
        self.ledger.told(&input);
        self.history.note(self.now, &input);
        self.broker.handle(self.now, input);
    }

    pub(crate) fn carry_out_all(&mut self) -> Result<(), Violation> {
        while let Some(action) = self.broker.poll_action() {
            if !matches!(action, Action::Emit(_)) {
                self.history.note(self.now, &action);
            }
            self.carry_out(action)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, action: Action) -> Result<(), Violation> {
        match action {
            Action::Reply { connection, reply } => self.answer_waiting(Number::of(connection), reply)?,
            Action::Evict { connection } => self.evict(Number::of(connection)),
            Action::Start(order) => self.start(order)?,
            Action::Probe { slot, endpoint } => {
                self.enter_within(WAY, Event::ProbeAnswered(self.reign, slot, endpoint));
            }
            Action::Look { slot, endpoint } => {
                let is_in_use = self.chance.percent(30);
                self.tell_within(WAY, Input::Looked { slot, endpoint, is_in_use });
            }
            Action::Quiesce { slot, pid, limit } => {
                let takes = if self.controls.contains_key(&slot) { limit } else { Duration::ZERO };
                self.tell_within(takes, Input::Quiesced { slot, pid });
            }
            Action::EndControl { slot, control } => {
                if self.controls.get(&slot).is_some_and(|(current, _)| *current == control) {
                    self.enter_within(WAY, Event::ControlEnds(control));
                }
            }
            Action::Signal { slot, signal } => self.signal(slot, signal),
            Action::Abandon { connection } => self.abandon(connection),
            Action::Emit(_) => self.history.emitted(),
            Action::Stop => self.has_stopped = true,
        }
        Ok(())
    }
}
