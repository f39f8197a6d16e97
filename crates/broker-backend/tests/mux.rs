//! Two wire formats on one endpoint, over real sockets.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod common;

#[cfg(unix)]
use broker_backend::FIRST_BYTES_TIMEOUT;
use broker_backend::bytes::Bytes;
use broker_backend::{
    DRAIN_LIMIT, FIRST_BYTES_LIMIT, LegacyConnection, Request, Stream, Verdict, detect_frames,
};
use broker_transport::probe::probe_identity;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
#[cfg(unix)]
use tokio::time::{Duration, sleep};

use common::{Served, closes, read_body, request, response};

async fn echo(request: Request) -> Bytes {
    request.into_payload()
}

/// What ends what a client of the older format says, unless its end of the connection does.
const STOP: &[u8] = b"<STOP>";

/// The older format: whatever comes up to there, sent back behind `old:`.
async fn old_echo(mut client: LegacyConnection) {
    let mut said = Vec::new();
    while !said.ends_with(STOP) && client.stream.read_buf(&mut said).await.unwrap() > 0 {}
    let said = said.strip_suffix(STOP).unwrap_or(&said);
    client.stream.send_all(&[b"old:", said].concat()).await.unwrap();
}

async fn no_old_client(_: LegacyConnection) {
    panic!("a connection was taken for the older format's");
}

/// How many bytes a detector saw, and what it said of them.
type Looks = mpsc::UnboundedReceiver<(usize, Verdict)>;

/// A detector that tells of every look.
fn watched(detector: impl Fn(&[u8]) -> Verdict) -> (impl Fn(&[u8]) -> Verdict, Looks) {
    let (tell, looks) = mpsc::unbounded_channel();
    let watched = move |first: &[u8]| {
        let verdict = detector(first);
        tell.send((first.len(), verdict)).unwrap();
        verdict
    };
    (watched, looks)
}

fn served(detector: impl Fn(&[u8]) -> Verdict + Send + Sync + 'static) -> Served {
    Served::start_with(echo, |backend| backend.with_legacy(detector, old_echo))
}

async fn says_old(client: &Stream, said: &[u8]) {
    client.send_all(STOP).await.unwrap();
    is_answered(client, said).await;
}

async fn is_answered(client: &Stream, said: &[u8]) {
    for part in [&b"old:"[..], said] {
        let mut answer = vec![0; part.len()];
        let mut filled = 0;
        while filled < part.len() {
            match client.read_some(&mut answer[filled..]).await.unwrap() {
                0 => panic!("the answer ended after {filled} bytes"),
                count => filled += count,
            }
        }
        assert!(answer == part, "the answer is not what was said");
    }
    closes(client).await;
}

#[tokio::test]
async fn clients_of_both_formats_are_served_side_by_side() {
    let served = served(detect_frames);
    let (new, old) = (served.connect().await, served.connect().await);
    for round in ["one", "two"] {
        new.send_all(&request(round.as_bytes())).await.unwrap();
        assert_eq!(read_body(&new).await, response(round.as_bytes()));
        old.send_all(round.as_bytes()).await.unwrap();
    }
    assert_eq!(probe_identity(&served.endpoint).await.unwrap().pid, std::process::id());
    says_old(&old, b"onetwo").await;
    new.send_all(&request(b"three")).await.unwrap();
    assert_eq!(read_body(&new).await, response(b"three"));
    served.stop().await;
}

#[tokio::test]
async fn the_older_format_is_read_from_its_first_byte_on_however_much_was_looked_at() {
    // More than a look sees, more than the socket holds.
    let said: Vec<u8> = (0..1024 * 1024u32).map(|index| (index >> 8) as u8).collect();
    for needed in [1, 2, 700, FIRST_BYTES_LIMIT] {
        let served = served(move |first| match first.len() {
            count if count < needed => Verdict::NeedMore,
            _ => Verdict::Theirs,
        });
        let client = served.connect().await;
        // So that the detector is asked again where it wants more than one byte.
        client.send_all(&said[..1]).await.unwrap();
        client.send_all(&said[1..]).await.unwrap();
        says_old(&client, &said).await;
        served.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_sends_byte_by_byte_is_told_apart_like_any_other() {
    // A lane, as a frame may have it, and then envelope version 2.
    let (frame, old) = (request(b"slow"), [1, 100, 0, 0, 0, 0x18, 5, 0x08, 2, b'!']);
    for (wire, last, verdict) in [(&frame[..], 7, Verdict::Ours), (&old, 9, Verdict::Theirs)] {
        let (detector, mut looks) = watched(detect_frames);
        let served = served(detector);
        let client = served.connect().await;
        for count in 1..=last {
            client.send_all(&wire[count - 1..count]).await.unwrap();
            let expected = if count < last { Verdict::NeedMore } else { verdict };
            assert_eq!(looks.recv().await.unwrap(), (count, expected));
        }
        for byte in &wire[last..] {
            client.send_all(&[*byte]).await.unwrap();
        }
        match verdict {
            Verdict::Ours => assert_eq!(read_body(&client).await, response(b"slow")),
            Verdict::Theirs | Verdict::NeedMore => says_old(&client, wire).await,
        }
        assert!(looks.try_recv().is_err(), "it was asked again after it had decided");
        drop(client);
        served.stop().await;
    }
}

#[tokio::test]
async fn a_detector_may_ask_for_as_many_bytes_as_the_limit_and_no_more() {
    for (needed, verdict) in
        [(FIRST_BYTES_LIMIT, Verdict::Theirs), (FIRST_BYTES_LIMIT + 1, Verdict::NeedMore)]
    {
        let (detector, mut looks) = watched(move |first| match first.len() {
            count if count < needed => Verdict::NeedMore,
            _ => Verdict::Theirs,
        });
        let served = served(detector);
        let client = served.connect().await;
        let said = vec![b'x'; FIRST_BYTES_LIMIT + 1];
        client.send_all(&said[..FIRST_BYTES_LIMIT - 1]).await.unwrap();
        assert_eq!(looks.recv().await.unwrap(), (FIRST_BYTES_LIMIT - 1, Verdict::NeedMore));
        client.send_all(&said[FIRST_BYTES_LIMIT - 1..]).await.unwrap();
        assert_eq!(looks.recv().await.unwrap(), (FIRST_BYTES_LIMIT, verdict));
        match verdict {
            Verdict::Theirs => says_old(&client, &said).await,
            Verdict::Ours | Verdict::NeedMore => closes(&client).await,
        }
        assert!(looks.try_recv().is_err());
        served.stop().await;
    }
}

#[cfg(unix)] // The stopped clock does not know what a pipe is about to bring.
/// With tokio's clock stopped, time passes only when nothing is busy: a wait that spins would never end.
#[tokio::test(start_paused = true)]
async fn neither_silence_nor_a_trickle_outlives_the_deadline() {
    let served =
        Served::start_with(echo, |backend| backend.with_legacy(|_: &[u8]| Verdict::NeedMore, no_old_client));
    let begun = Instant::now();
    let (silent, trickling) = (served.connect().await, served.connect().await);
    let mut sent = 0;
    while trickling.send_all(b"x").await.is_ok() {
        sent += 1;
        assert!(begun.elapsed() <= FIRST_BYTES_TIMEOUT + Duration::from_secs(1), "{sent} bytes");
        sleep(Duration::from_secs(1)).await;
    }
    assert!(begun.elapsed() >= FIRST_BYTES_TIMEOUT);
    closes(&trickling).await;
    closes(&silent).await;
    served.stop().await;
}

#[cfg(unix)] // The stopped clock does not know what a pipe is about to bring.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_decided_may_be_silent_for_as_long_as_it_likes() {
    let served = served(detect_frames);
    let (new, old) = (served.connect().await, served.connect().await);
    new.send_all(&request(b"first")).await.unwrap();
    assert_eq!(read_body(&new).await, response(b"first"));
    old.send_all(b"fir").await.unwrap();
    sleep(FIRST_BYTES_TIMEOUT * 10).await;
    new.send_all(&request(b"last")).await.unwrap();
    assert_eq!(read_body(&new).await, response(b"last"));
    old.send_all(b"st").await.unwrap();
    says_old(&old, b"first").await;
    served.stop().await;
}

#[tokio::test]
async fn who_leaves_undecided_is_told_to_nobody() {
    let (detector, mut looks) = watched(|_| Verdict::NeedMore);
    let served = Served::start_with(echo, |backend| backend.with_legacy(detector, no_old_client));
    drop(served.connect().await);
    for said in [&b"h"[..], b"hello"] {
        let gone = served.connect().await;
        gone.send_all(said).await.unwrap();
        if cfg!(windows) {
            // Of whom the system knows nothing any more, nobody looks at.
            assert_eq!(looks.recv().await.unwrap().0, said.len());
            drop(gone);
        } else {
            drop(gone);
            assert_eq!(looks.recv().await.unwrap().0, said.len());
        }
    }
    served.stop().await;
    while let Some((count, _)) = looks.recv().await {
        assert!(count > 0, "an empty connection was shown to the detector");
    }
}

#[cfg(unix)] // A pipe does not end in one direction.
#[tokio::test]
async fn who_has_said_all_undecided_will_not_become_clearer() {
    let (detector, mut looks) = watched(|_| Verdict::NeedMore);
    let served = Served::start_with(echo, |backend| backend.with_legacy(detector, no_old_client));
    for said in [&b"h"[..], b"hello"] {
        let done = served.connect().await;
        done.send_all(said).await.unwrap();
        done.shutdown(std::net::Shutdown::Write).unwrap();
        closes(&done).await;
        assert_eq!(looks.recv().await.unwrap().0, said.len());
    }
    served.stop().await;
}

#[cfg(unix)] // A pipe does not end in one direction.
#[tokio::test]
async fn an_old_client_may_end_what_it_says_with_its_own_end() {
    let served = served(detect_frames);
    let client = served.connect().await;
    client.send_all(b"all of it").await.unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    is_answered(&client, b"all of it").await;
    served.stop().await;
}

#[tokio::test]
async fn a_panic_of_the_detector_or_the_old_handler_closes_its_own_connection_alone() {
    let detector = |first: &[u8]| match first {
        b"detector" => panic!("as asked"),
        first => detect_frames(first),
    };
    let served = Served::start_with(echo, |backend| {
        backend.with_legacy(detector, async |client: LegacyConnection| {
            let mut said = [0; 16];
            let count = client.stream.read_some(&mut said).await.unwrap();
            assert_ne!(&said[..count], b"handler", "as asked");
            client.stream.send_all(&said[..count]).await.unwrap();
        })
    });
    let witness = served.connect().await;
    for said in [&b"detector"[..], b"handler"] {
        let client = served.connect().await;
        client.send_all(said).await.unwrap();
        closes(&client).await;
        witness.send_all(&request(said)).await.unwrap();
        assert_eq!(read_body(&witness).await, response(said));
    }
    let old = served.connect().await;
    old.send_all(b"fine").await.unwrap();
    let mut answer = [0; 4];
    old.read_some(&mut answer).await.unwrap();
    assert_eq!(&answer, b"fine");
    served.stop().await;
}

#[tokio::test]
async fn an_old_handler_sees_its_client() {
    let (tell, mut clients) = mpsc::unbounded_channel();
    let served = Served::start_with(echo, |backend| {
        backend.with_legacy(detect_frames, move |client: LegacyConnection| {
            tell.send(client.peer).unwrap();
            async {}
        })
    });
    let client = served.connect().await;
    client.send_all(b"who am I?").await.unwrap();
    let peer = clients.recv().await.unwrap();
    assert!(peer.user.is_self());
    assert_eq!(peer.pid.unwrap().get(), std::process::id());
    closes(&client).await;
    served.stop().await;
}

#[tokio::test]
async fn a_stop_is_told_to_old_handlers_which_may_end_what_they_do() {
    let (tell, mut begun) = mpsc::unbounded_channel();
    let served = Served::start_with(echo, |backend| {
        backend.with_legacy(detect_frames, move |client: LegacyConnection| {
            tell.send(()).unwrap();
            async move {
                let LegacyConnection { stream, mut stop, .. } = client;
                stop.given().await;
                stream.send_all(b"goodbye").await.unwrap();
            }
        })
    });
    let (client, silent) = (served.connect().await, served.connect().await);
    client.send_all(b"hello").await.unwrap();
    begun.recv().await.unwrap();
    let (serving, place) = served.ask_to_stop();
    closes(&silent).await;
    let mut answer = [0; 7];
    client.read_some(&mut answer).await.unwrap();
    assert_eq!(&answer, b"goodbye");
    serving.await.unwrap().unwrap();
    place.assert_left_empty();
}

/// With tokio's clock stopped, time passes only when nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn an_old_handler_that_does_not_end_is_cut_off() {
    let (tell, mut begun) = mpsc::unbounded_channel();
    let served = Served::start_with(echo, |backend| {
        backend.with_legacy(detect_frames, move |client: LegacyConnection| {
            tell.send(()).unwrap();
            async move {
                std::future::pending::<()>().await;
                drop(client);
            }
        })
    });
    let client = served.connect().await;
    client.send_all(b"hello").await.unwrap();
    begun.recv().await.unwrap();
    let before = Instant::now();
    served.stop().await;
    assert!(before.elapsed() >= DRAIN_LIMIT);
    let mut rest = [0; 1];
    let end = client.read_some(&mut rest).await;
    assert!(matches!(&end, Ok(0)) || end.is_err(), "{end:?}");
}

#[tokio::test]
async fn what_has_begun_to_arrive_when_the_stop_comes_is_still_decided_and_served() {
    let (detector, mut looks) = watched(|first| match first.len() {
        1..5 => Verdict::NeedMore,
        _ => detect_frames(first),
    });
    let served = served(detector);
    let (new, old) = (served.connect().await, served.connect().await);
    let wire = request(b"last");
    for (client, said) in [(&new, &wire[..3]), (&old, b"las")] {
        client.send_all(said).await.unwrap();
        assert_eq!(looks.recv().await.unwrap(), (3, Verdict::NeedMore));
    }
    let witness = served.connect().await;
    let (serving, _place) = served.ask_to_stop();
    closes(&witness).await;
    new.send_all(&wire[3..]).await.unwrap();
    assert_eq!(read_body(&new).await, response(b"last"));
    closes(&new).await;
    old.send_all(b"t!").await.unwrap();
    says_old(&old, b"last!").await;
    serving.await.unwrap().unwrap();
}
