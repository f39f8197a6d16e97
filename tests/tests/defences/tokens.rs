//! Where a handoff token must not be found: in no line, no file and no answer, in whatever form it is written.

use std::fs;
use std::path::Path;

use broker_protocol::wire::Hello;
use broker_tests::{Daemon, PlainBackend, Unpacked, World, agreed, hello};

const BIT_0: u64 = 1;

/// Every way in which somebody could have written these bytes into a text.
fn forms(token: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = |separator: &str| token.iter().map(u8::to_string).collect::<Vec<_>>().join(separator);
    let mut forms = vec![
        ("raw", token.to_vec()),
        ("hex", hex.clone().into_bytes()),
        ("upper hex", hex.to_uppercase().into_bytes()),
        ("decimal list", list(", ").into_bytes()),
        ("dense decimal list", list(",").into_bytes()),
        ("escaped", token.escape_ascii().to_string().into_bytes()),
        ("debugged", format!("{:?}", broker_backend::bytes::Bytes::copy_from_slice(token)).into_bytes()),
        ("lossy text", String::from_utf8_lossy(token).into_owned().into_bytes()),
    ];
    // Within a longer text it can begin at each of three places of a group; the groups at its edges mix with others.
    for lead in 0..3 {
        let padded = [&vec![0; lead][..], token].concat();
        let whole = base64(&padded, b"+/");
        let inner = whole.get(if lead == 0 { 0 } else { 4 }..whole.len() - 4).unwrap();
        forms.push(("base64", inner.as_bytes().to_vec()));
        forms.push(("base64 for URLs", inner.replace('+', "-").replace('/', "_").into_bytes()));
    }
    forms
}

/// Base64 without padding, with these two characters at its end.
fn base64(bytes: &[u8], last: &[u8; 2]) -> String {
    const FIRST: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let group =
            chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |index| (group >> (18 - 6 * index)) as usize & 0x3F)
    });
    digits.map(|digit| char::from(*FIRST.get(digit).unwrap_or_else(|| &last[digit - 62]))).collect()
}

/// The form in which a token is in a text.
fn found(text: &[u8], token: &[u8]) -> Option<&'static str> {
    let is_in = |form: &[u8]| text.windows(form.len()).any(|window| window == form);
    forms(token).into_iter().find(|(_, form)| is_in(form)).map(|(name, _)| name)
}

fn files_below(path: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Says Hello until the broker has given a token; it is the second time at the latest that there is one to give.
fn issued(world: &World, service: &str, tokens: &mut Vec<Vec<u8>>) {
    let mut client = world.connect();
    let hello = Hello { client_capabilities: BIT_0, ..hello(service, "1.2.3") };
    let token = agreed(client.say(&hello)).handle_passed_token.to_vec();
    if !token.is_empty() {
        tokens.push(token);
    }
}

#[test]
fn no_token_is_in_any_line_file_or_answer_however_much_is_logged() {
    for format in ["text", "json"] {
        let world = World::new();
        world.define("cache", &[]);
        world.define("own", &[]);
        let backend = PlainBackend::bind(&world);
        let (socket, option) = (world.socket(), backend.option("1.2.3"));
        let arguments =
            ["serve", "--socket", socket.to_str().unwrap(), "--backend", &option, "--log", format];
        let broker = Daemon::start(world.brokerd(&arguments).env("RUST_LOG", "trace"));
        let mut tokens = Vec::new();
        // An offer that is taken, one that is turned down, one that is answered wrongly, and one that is not.
        issued(&world, "cache", &mut tokens);
        backend.next_offer().accept();
        issued(&world, "cache", &mut tokens);
        backend.next_offer().reject();
        issued(&world, "cache", &mut tokens);
        let mut offer = backend.next_offer();
        offer.answer(&[7; 16], true, offer.offer.correlation_id);
        drop(offer);
        issued(&world, "cache", &mut tokens);
        drop(backend.next_offer());
        assert_eq!(tokens.len(), 4);
        // Offers over a control connection, which is there a moment after the backend.
        let deadline = std::time::Instant::now() + broker_tests::PATIENCE;
        while tokens.len() < 8 {
            assert!(std::time::Instant::now() < deadline, "no control connection");
            issued(&world, "own", &mut tokens);
        }
        let mut places = Vec::new();
        for verb in ["status", "dump", "config", "metrics", "healthz", "readyz", "list-instances"] {
            for json in [&[][..], &["--json"]] {
                let command = [&[verb, "--socket", socket.to_str().unwrap()], json].concat();
                let answer = world.run(&command);
                places.push((verb.to_owned(), [answer.stdout, answer.stderr].concat().into_bytes()));
            }
        }
        let archive = world.path("diagnose.tar.gz");
        let command =
            ["diagnose", "--socket", socket.to_str().unwrap(), "--output", archive.to_str().unwrap()];
        let answer = world.run(&command);
        assert!(answer.is_success(), "{answer:?}");
        places.push(("diagnose".to_owned(), [answer.stdout, answer.stderr].concat().into_bytes()));
        let unpacked = Unpacked::of(&archive);
        assert!(unpacked.text("admin/dump.json").contains("HELLO_ACCEPTED"), "it has what happened");
        places.extend(unpacked.into_files().map(|(name, text)| (format!("{name} of the archive"), text)));
        let log = broker.stop_and_hear();
        assert!(log.contains("TRACE") || log.contains("DEBUG"), "all of it is logged: {log}");
        assert!(places.iter().any(|(_, text)| text.windows(15).any(|part| part == b"lifecycle_event")));
        places.push(("log".to_owned(), log.into_bytes()));
        let files = files_below(&world.path(""));
        assert!(files.iter().any(|file| file.ends_with("lifecycle.pb")), "{files:?}");
        let regular = files.into_iter().filter(|file| file.is_file());
        places.extend(regular.map(|file| (file.display().to_string(), fs::read(&file).unwrap())));
        for (place, text) in places {
            for token in &tokens {
                assert_eq!(found(&text, token), None, "a token is in {place}");
            }
        }
    }
}

#[test]
fn a_token_is_found_in_whatever_form_it_is_written() {
    let token: Vec<u8> = (0..16).map(|index| (index * 17) ^ 0x5A).collect();
    let other: Vec<u8> = token.iter().map(|byte| byte ^ 1).collect();
    for (name, form) in forms(&token) {
        let text = [b"before ", &form[..], b" behind"].concat();
        assert!(found(&text, &token).is_some(), "{name}");
        assert_eq!(found(&text, &other), None, "{name}");
    }
    for lead in 0..7 {
        let message = [&vec![b'm'; lead][..], &token, b"more"].concat();
        assert_eq!(found(base64(&message, b"+/").as_bytes(), &token), Some("base64"), "{lead}");
    }
    assert_eq!(base64(b"any carnal pleas", b"+/"), "YW55IGNhcm5hbCBwbGVhcw");
}
