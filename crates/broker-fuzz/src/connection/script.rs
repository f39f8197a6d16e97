//! What can happen to a broker, as bytes: a number for the event, then what it needs.

use arbitrary::{Arbitrary, Result, Unstructured};
use broker_core::broker::{Exit, PeerIdentity};
use broker_protocol::Capabilities;
use broker_protocol::prost::Message;
use broker_protocol::wire::Frame;

use crate::seed::{Seed, seed};

/// One of the things of a kind that there are; which, says its number modulo how many there are.
pub(super) type Index = u8;

/// Something that happens.
#[derive(Debug)]
pub(super) enum Event<'a> {
    Connect {
        peer: Index,
        identity: fn(broker_core::admission::PeerKey) -> PeerIdentity,
    },
    /// A first frame with this body.
    Sends {
        connection: Index,
        body: &'a [u8],
    },
    Hello {
        connection: Index,
        hello: Hello,
    },
    /// No whole frame comes.
    Malformed {
        connection: Index,
    },
    Disconnect {
        connection: Index,
    },
    Listens {
        process: Index,
    },
    Starts {
        process: Index,
    },
    FailsToStart {
        process: Index,
    },
    Exits {
        process: Index,
        exit: Exit,
    },
    /// The end of a process is told that nobody knows any more.
    ExitsAgain {
        slot: Index,
    },
    Probed {
        probe: Index,
        is_there: bool,
    },
    Looked {
        look: Index,
        is_in_use: bool,
    },
    Quiesced {
        quiesce: Index,
    },
    OpensControl {
        process: Index,
        announced: Capabilities,
    },
    Announces {
        peer: Index,
        version: Index,
        announced: Capabilities,
    },
    ClosesControl {
        control: Index,
    },
    FallsSilent {
        control: Index,
    },
    Speaks {
        control: Index,
    },
    Offers {
        offer: Index,
    },
    IsNotOffered {
        offer: Index,
    },
    LosesAnswer {
        offer: Index,
    },
    Answers {
        offer: Index,
        answer: Answer,
    },
    /// So many milliseconds.
    Passes {
        millis: u64,
    },
    /// So many milliseconds, and nothing that is due happens yet: the timer is late.
    Lags {
        millis: u64,
    },
    DescriptorPressure,
    /// Randomness fails from now on, or works again.
    Entropy {
        fails: bool,
    },
    Drain {
        millis: Option<u64>,
    },
}

/// A Hello, and what its service's definition looks like then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hello {
    what: u8,
    definition: u8,
}

/// What the definition looks like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Looks {
    AsItIs,
    Absent,
    Invalid,
    Unusable,
    /// Another one, of this kind.
    Changed(u8),
}

impl Hello {
    pub(super) const SERVICES: [&'static str; 2] = ["cache", "tool"];
    pub(super) const VERSIONS: [&'static str; 4] = ["1.0.0", "1.1.0", "2.0.0-rc.1", "0.9.0"];

    pub(super) fn service(self) -> &'static str {
        Self::SERVICES[usize::from(self.what & 1)]
    }

    pub(super) fn version(self) -> &'static str {
        Self::VERSIONS[usize::from(self.what >> 1 & 3)]
    }

    pub(super) fn capabilities(self) -> Capabilities {
        capabilities(self.what >> 3)
    }

    /// For how long the client waits, in milliseconds; none where it leaves that to the broker.
    pub(super) const fn patience(self) -> Option<u64> {
        [None, Some(0), Some(50), Some(5_000)][(self.what >> 5 & 3) as usize]
    }

    pub(super) const fn looks(self) -> Looks {
        match self.definition & 7 {
            0..=3 => Looks::AsItIs,
            4 => Looks::Absent,
            5 => Looks::Invalid,
            6 => Looks::Unusable,
            _ => Looks::Changed(self.definition >> 3 & 7),
        }
    }

    /// How many events happen while the definition is looked at.
    pub(super) const fn meanwhile(self) -> u8 {
        self.definition >> 6
    }
}

/// What a backend answers to an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Accepts,
    Rejects,
    /// It accepts with another token.
    WrongToken,
    /// Another backend accepts.
    WrongBackend,
}

fn capabilities(bits: u8) -> Capabilities {
    let mut all = Capabilities::empty();
    all.set(Capabilities::HANDLE_PASSING, bits & 1 != 0);
    all.set(Capabilities::EARLY_DATA, bits & 2 != 0);
    all
}

const MILLIS: [u64; 8] = [0, 1, 10, 100, 1_000, 5_000, 30_000, 3_600_000];

impl<'a> Arbitrary<'a> for Event<'a> {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let kind = u8::arbitrary(bytes)?;
        let mut next = || u8::arbitrary(bytes);
        Ok(match kind % 27 {
            0 => {
                let peer = next()?;
                let identity = match peer >> 4 {
                    15 => PeerIdentity::Foreign,
                    14 => |_| PeerIdentity::Unreadable,
                    _ => PeerIdentity::Own,
                };
                Self::Connect { peer, identity }
            }
            1 => {
                let (connection, length) = (next()?, usize::from(next()?));
                Self::Sends { connection, body: bytes.bytes(length.min(bytes.len()))? }
            }
            2 => Self::Hello { connection: next()?, hello: Hello { what: next()?, definition: next()? } },
            3 => Self::Malformed { connection: next()? },
            4 => Self::Disconnect { connection: next()? },
            5 => Self::Listens { process: next()? },
            6 => Self::Starts { process: next()? },
            7 => Self::FailsToStart { process: next()? },
            8 => {
                let (process, how) = (next()?, next()?);
                let exit = match how % 4 {
                    0 => Exit::Status(0),
                    1 => Exit::Status(1),
                    2 => Exit::Signal(9),
                    _ => Exit::Unknown,
                };
                Self::Exits { process, exit }
            }
            9 => Self::ExitsAgain { slot: next()? },
            10 => Self::Probed { probe: next()?, is_there: next()? & 1 == 0 },
            11 => Self::Looked { look: next()?, is_in_use: next()? & 1 == 0 },
            12 => Self::Quiesced { quiesce: next()? },
            13 => Self::OpensControl { process: next()?, announced: capabilities(next()?) },
            14 => Self::Announces { peer: next()?, version: next()?, announced: capabilities(next()?) },
            15 => Self::ClosesControl { control: next()? },
            16 => Self::FallsSilent { control: next()? },
            17 => Self::Speaks { control: next()? },
            18 => Self::Offers { offer: next()? },
            19 => Self::IsNotOffered { offer: next()? },
            20 => Self::LosesAnswer { offer: next()? },
            21 => {
                let (offer, answer) = (next()?, next()?);
                let answer = match answer % 4 {
                    0 => Answer::Accepts,
                    1 => Answer::Rejects,
                    2 => Answer::WrongToken,
                    _ => Answer::WrongBackend,
                };
                Self::Answers { offer, answer }
            }
            22 => Self::Passes { millis: MILLIS[usize::from(next()? % 8)] },
            23 => Self::DescriptorPressure,
            24 => Self::Entropy { fails: next()? & 1 == 0 },
            25 => Self::Drain { millis: Some(MILLIS[usize::from(next()? % 8)]).filter(|millis| *millis > 0) },
            _ => Self::Lags { millis: MILLIS[usize::from(next()? % 8)] },
        })
    }
}

/// The lives of connections and backends that matter most.
pub(super) fn seeds() -> Vec<Seed> {
    // Hello: service bit 0, version bits 1 and 2, capabilities bits 3 and 4, patience bits 5 and 6.
    const PLAIN: u8 = 0;
    const BOTH: u8 = 0b1_1000;
    let join = |events: &[&[u8]]| events.concat();
    let begin = |choice: u8| vec![choice];
    let connect: &[u8] = &[0, 0];
    let hello = |what: u8, definition: u8| vec![2, 0, what, definition];
    let run = |what: u8| join(&[connect, &hello(what, 0), &[6, 0]]);
    let with_control = |what: u8| join(&[&run(what), &[13, 0, 3], &[4, 0], connect, &hello(what, 0)]);
    let script =
        |name: &str, choice: u8, events: &[&[u8]]| seed(name, [begin(choice), join(events)].concat());
    let body = {
        let hello = crate::hello::good();
        let hello = broker_protocol::wire::Hello { wanted_version: "1.0.0".into(), peer_pid: 0, ..hello };
        Frame::request(broker_protocol::PayloadProtocol::CONTROL, 5, hello.encode_to_vec()).encode_to_vec()
    };
    let length = u8::try_from(body.len()).expect("a short Hello");
    let silent: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 2, 0, 3];
    vec![
        script("nothing", 0, &[]),
        script("a-start-and-the-next-hello", 0, &[&run(PLAIN), &[4, 0], connect, &hello(PLAIN, 0)]),
        script("a-hello-of-bytes", 0, &[connect, &[1, 0, length], &body, &[6, 0]]),
        script("a-frame-of-no-meaning", 0, &[connect, &[1, 0, 2, 0xFF, 0xFF]]),
        script("malformed", 0, &[connect, &[3, 0]]),
        script("two-wait-for-one-start", 0, &[connect, &hello(PLAIN, 0), connect, &[2, 1, 0, 0], &[6, 0]]),
        script("a-start-that-fails", 0, &[connect, &hello(PLAIN, 0), &[7, 0]]),
        script(
            "a-spent-budget",
            0,
            &[
                &join(&[connect, &hello(PLAIN, 0), &[7, 0], &[4, 0]]).repeat(4)[..],
                &[22, 6],
                connect,
                &hello(PLAIN, 0),
            ],
        ),
        script("a-client-that-leaves", 0, &[connect, &hello(PLAIN, 0), &[4, 0], &[6, 0]]),
        script("a-client-without-patience", 0, &[connect, &hello(0b010_0000, 0), &[22, 4], &[6, 0]]),
        script("a-listener-that-never-answers", 0, &[connect, &hello(PLAIN, 0), &[5, 0], &[7, 0]]),
        script("a-crash-and-a-new-start", 0, &[&run(PLAIN), &[8, 0, 2], &[4, 0], connect, &hello(PLAIN, 0)]),
        script("more-connections-than-there-may-be", 0, &[silent, silent, &[0, 0xF0, 0, 0xE0]]),
        script(
            "more-hellos-than-there-may-be",
            0,
            &[&join(&[connect, &hello(PLAIN, 0), &[4, 0]]).repeat(12)],
        ),
        script("a-handoff", 0, &[&with_control(BOTH), &[18, 0], &[21, 0, 0]]),
        script("a-rejected-handoff", 0, &[&with_control(BOTH), &[18, 0], &[21, 0, 1]]),
        script("an-answer-with-another-token", 0, &[&with_control(BOTH), &[18, 0], &[21, 0, 2], &[21, 0, 3]]),
        script("an-offer-that-expires", 0, &[&with_control(BOTH), &[18, 0], &[22, 5], &[21, 0, 0], &[16, 0]]),
        script(
            "a-backend-that-dies-with-an-offer",
            0,
            &[&with_control(BOTH), &[18, 0], &[8, 0, 2], &[21, 0, 0]],
        ),
        script("a-control-connection-that-ends", 0, &[&with_control(BOTH), &[18, 0], &[15, 0], &[20, 0]]),
        script("no-randomness", 0, &[&[24, 0], &with_control(BOTH), &[24, 1]]),
        script(
            "more-offers-than-there-may-be",
            0,
            &[&with_control(BOTH), &join(&[&[4, 0], connect, &hello(BOTH, 0)]).repeat(6)[..]],
        ),
        script("a-registered-backend", 1, &[connect, &hello(1, 0), &[10, 0, 0], &[8, 0, 0]]),
        script("a-registered-backend-that-is-not-there", 1, &[connect, &hello(1, 0), &[10, 0, 1], &[6, 0]]),
        script(
            "a-backend-that-announces-itself",
            0,
            &[&[14, 1, 0, 3], connect, &hello(BOTH, 0), &[10, 0, 0], &[18, 0], &[15, 0]],
        ),
        script(
            "an-idle-backend",
            0,
            &[connect, &hello(PLAIN, 0b00_1111), &[6, 0], &[22, 7], &[11, 0, 1], &[22, 5]],
        ),
        script(
            "an-idle-backend-that-quiesces",
            0,
            &[connect, &hello(PLAIN, 0b00_1111), &[6, 0, 13, 0, 3, 22, 7, 11, 0, 1, 12, 0, 8, 0, 0]],
        ),
        script(
            "a-definition-that-goes-and-comes",
            0,
            &[&run(PLAIN), connect, &[2, 1, 0, 4], connect, &[2, 2, 0, 0]],
        ),
        script("a-bad-definition", 0, &[connect, &hello(PLAIN, 5), connect, &[2, 1, 0, 6]]),
        script("a-disconnect-while-a-definition-is-read", 0, &[connect, &hello(PLAIN, 0x40), &[4, 0]]),
        script("a-drain-while-a-definition-is-read", 0, &[connect, &hello(PLAIN, 0x40), &[25, 4]]),
        script(
            "a-drain-with-one-who-waits",
            0,
            &[connect, &hello(PLAIN, 0), &[25, 4], &[22, 3], &[6, 0], &[8, 0, 0]],
        ),
        script("a-drain-that-ends-before-a-start-does", 0, &[connect, &hello(PLAIN, 0), &[25, 4], &[22, 4]]),
        script(
            "a-hello-that-waits-for-an-end-when-the-drain-begins",
            0,
            &[
                connect,
                &hello(PLAIN, 0b00_1111),
                &[6, 0, 22, 7, 11, 0, 1, 4, 0],
                connect,
                &hello(PLAIN, 0),
                &[25, 5, 8, 0, 0],
            ],
        ),
        script(
            "nobody-makes-room-for-a-newcomer",
            0,
            &[
                &join(&[connect, &hello(PLAIN, 0)]).repeat(3),
                &join(&[&[0, 1], &hello(PLAIN, 0)]).repeat(3),
                &[0, 2],
            ],
        ),
        script("an-answer-before-a-late-timer", 0, &[&with_control(BOTH), &[18, 0], &[26, 5], &[21, 0, 0]]),
        script(
            "an-answer-after-its-control-connection",
            0,
            &[&with_control(BOTH), &[18, 0, 15, 0, 21, 0, 0, 22, 5]],
        ),
        script("a-drain-that-nobody-obeys", 0, &[&run(PLAIN), &[25, 5], &[22, 5]]),
        script("a-hello-to-a-broker-that-ends", 0, &[&run(PLAIN), connect, &[25, 5], &hello(PLAIN, 0)]),
        script(
            "a-drain-while-another-version-is-asked-for",
            0,
            &[&run(PLAIN), connect, &hello(2, 0x40), &[25, 5]],
        ),
        script(
            "descriptor-pressure",
            0,
            &[&[23], connect, &hello(PLAIN, 0), &[22, 5], connect, &[2, 1, 0, 0]],
        ),
        script("descriptor-pressure-and-a-silent-connection", 0, &[connect, &[23], &hello(PLAIN, 0)]),
        script("backends-that-stay", 2, &[&run(PLAIN), &[25, 4]]),
    ]
}
