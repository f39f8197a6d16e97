//! The archive of `brokerd diagnose` (behaviour.md 7): what is in it, what is not, and where it goes.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::fs;
use std::path::Path;

use broker_protocol::PayloadProtocol;
use broker_protocol::manifest;
use broker_protocol::prost::Message;
use broker_protocol::wire::{
    AdminReply, AdminReplyKind, AdminRequest, AdminVerb, CacheManifest, CacheRoot, Frame, Hello, Ownership,
};
use broker_tests::{Daemon, Finished, Unpacked, World, agreed, hello, refused};
use serde_json::Value;

const PARTS: [(&str, &str, &str, bool); 9] = [
    ("admin/status.json", "json", "status", true),
    ("admin/dump.json", "json", "dump", true),
    ("config/effective.json", "json", "effective-config", true),
    ("metrics/openmetrics.txt", "openmetrics", "metrics", true),
    ("events/lifecycle.jsonl", "jsonl", "lifecycle-events", false),
    ("manifest/backend-manifests.json", "json", "backend-manifest-index", false),
    ("process/backends.json", "json", "backend-table", true),
    ("system/summary.json", "json", "host-summary", false),
    ("report.html", "html", "report", true),
];

fn diagnose(world: &World, output: &Path, more: &[&str]) -> Finished {
    let socket = world.socket();
    let command = ["diagnose", "--socket", socket.to_str().unwrap(), "--output", output.to_str().unwrap()];
    world.run(&[&command[..], more].concat())
}

/// Where this user's manifests lie.
fn manifests(world: &World) -> std::path::PathBuf {
    let command = world.command(Path::new("none"));
    let variable = |name: &str| {
        let (_, value) = command.get_envs().find(|(known, _)| *known == name)?;
        value.map(ToOwned::to_owned)
    };
    broker_transport::endpoint::manifest_dir_in(broker_transport::endpoint::Platform::CURRENT, variable)
        .unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The answer of a broker that is asked as any client of the protocol would.
fn ask(world: &World, output_path: &str) -> AdminReply {
    let request = AdminRequest {
        verb: AdminVerb::Diagnose.into(),
        output_path: output_path.to_owned(),
        ..AdminRequest::default()
    };
    let mut wire = world.connect();
    wire.send(&Frame::request(PayloadProtocol::ADMIN, 1, request.encode_to_vec()));
    AdminReply::decode(&wire.receive().payload[..]).unwrap()
}

#[test]
fn an_archive_has_every_part_and_the_answer_says_so() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    agreed(world.connect().say(&hello("cache", "1.0.0")));
    refused(world.connect().say(&hello("unknown", "1.0.0")));
    world.wait_for_events(5);
    fs::create_dir_all(manifests(&world)).unwrap();
    let sealed = manifest::seal(CacheManifest {
        service_name: "cache".into(),
        service_version: "1.0.0".into(),
        ..CacheManifest::default()
    });
    fs::write(manifests(&world).join("cache-1.0.0.pb"), sealed).unwrap();

    let output = world.path("diagnose.tar.gz");
    let written = diagnose(&world, &output, &["--json"]);
    assert!(written.is_success(), "{written:?}");
    let answer: Value = serde_json::from_str(&written.stdout).unwrap();
    let head = ["schema_version", "command", "generated_at_unix_ms"];
    let body = ["output", "bundle", "files", "redactions", "redaction_policy"];
    assert_eq!(keys(&answer), [&head[..], &body[..]].concat());
    assert_eq!((&answer["schema_version"], &answer["command"]), (&1.into(), &"diagnose".into()));
    assert_eq!(answer["output"], output.to_str().unwrap());
    assert_eq!((&answer["bundle"]["format"], &answer["bundle"]["created"]), (&"tar.gz".into(), &true.into()));
    let entries: Vec<_> = answer["bundle"]["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            assert_eq!((&entry["redacted"], &entry["present"]), (&true.into(), &true.into()), "{entry}");
            let text = |key: &str| entry[key].as_str().unwrap();
            (text("path"), text("kind"), text("source"), entry["required"].as_bool().unwrap())
        })
        .collect();
    assert_eq!(entries, PARTS);
    assert_eq!(answer["redactions"], serde_json::json!(["home", "secret-env", "acl-identities"]));

    let unpacked = Unpacked::of(&output);
    let mut files: Vec<_> = PARTS.iter().map(|(path, ..)| *path).collect();
    assert_eq!(answer["files"], serde_json::json!(files));
    files.sort_unstable();
    assert_eq!(unpacked.names(), files);
    for verb in ["status", "dump", "config"] {
        let file = ["admin/status.json", "admin/dump.json", "config/effective.json"]
            .into_iter()
            .map(|file| unpacked.json(file))
            .find(|file| file["command"] == verb);
        assert_eq!(keys(&file.unwrap()), keys(&world.ask(verb)), "{verb}");
    }
    assert!(unpacked.text("metrics/openmetrics.txt").ends_with("# EOF\n"));
    let kinds: Vec<_> = unpacked
        .text("events/lifecycle.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["SERVICE_DEF_LOADED", "SPAWN_ATTEMPT", "SPAWN", "HELLO_ACCEPTED", "HELLO_REFUSED"]);
    assert_eq!(unpacked.json("manifest/backend-manifests.json")[0]["service_name"], "cache");
    let process = &unpacked.json("process/backends.json")[0];
    assert_eq!(process["service_name"], "cache");
    assert!(process["process"]["executable"].as_str().unwrap().contains("echo-backend"), "{process}");
    let summary = unpacked.json("system/summary.json");
    assert_eq!(summary["system"]["os"], std::env::consts::OS);
    assert!(unpacked.text("report.html").ends_with("</html>"));
}

#[test]
fn what_is_planted_is_redacted_before_it_is_written() {
    let world = World::new();
    world.define("cache", &["--label", "env.API_KEY=pl4nted-label"]);
    let mut serve = world.brokerd(&["serve", "--socket", world.socket().to_str().unwrap()]);
    serve.env("AWS_SECRET_ACCESS_KEY", "pl4nted-variable");
    serve.env("RUNNING_PROCESS_BROKER_PASSWORD", "pl4nted-own-variable");
    serve.env("XDG_NOTHING", "--auth-token pl4nted-option");
    let _broker = Daemon::start(&mut serve);
    let with_secret = Hello { request_id: "TOKEN=pl4nted-request".into(), ..hello("cache", "1.0.0") };
    agreed(world.connect().say(&with_secret));
    let with_secret = Hello { request_id: "password: \"pl4nted b\"".into(), ..hello("unknown", "1.0.0") };
    refused(world.connect().say(&with_secret));
    fs::create_dir_all(manifests(&world)).unwrap();
    let home = world.path("");
    let root = CacheRoot {
        path: home.join("cache").to_str().unwrap().into(),
        labels: [("deploy-secret".to_owned(), "pl4nted-manifest".to_owned())].into(),
        ownership: Some(Ownership {
            uid: 4_242_424_242,
            gid: 4_234_234_234,
            windows_sid: "S-1-5-21-4444-1".into(),
            ..Ownership::default()
        }),
        ..CacheRoot::default()
    };
    let sealed = manifest::seal(CacheManifest {
        service_name: "cache".into(),
        service_version: "1.0.0".into(),
        roots: vec![root],
        ..CacheManifest::default()
    });
    fs::write(manifests(&world).join("cache-1.0.0.pb"), sealed).unwrap();

    let output = world.path("diagnose.tar.gz");
    let written = diagnose(&world, &output, &["--json"]);
    assert!(written.is_success(), "{written:?}");
    let unpacked = Unpacked::of(&output);
    let roots = &unpacked.json("manifest/backend-manifests.json")[0]["roots"][0];
    let owner = &roots["ownership"];
    for id in ["uid", "gid", "windows_sid"] {
        assert!(owner[id].as_str().unwrap().starts_with("id-"), "{owner}");
    }
    assert!(roots["path"].as_str().unwrap().starts_with('~'), "{roots}");
    let events = unpacked.json("admin/dump.json")["recent_lifecycle_events"].to_string();
    assert!(events.contains("TOKEN=<redacted>"), "{events}");
    let answer: Value = serde_json::from_str(&written.stdout).unwrap();
    for rule in answer["redaction_policy"].as_array().unwrap() {
        assert!(rule["replaced"].as_u64().unwrap() > 0, "{rule}");
    }
    let home = home.to_str().unwrap().trim_end_matches(['/', '\\']);
    for (name, content) in unpacked.into_files() {
        let text = String::from_utf8(content).unwrap();
        for planted in [
            "pl4nted",
            home,
            &home.escape_default().to_string(),
            "4242424242",
            "4234234234",
            "S-1-5-21-4444-1",
        ] {
            assert!(!text.contains(planted), "{planted} is in {name}:\n{text}");
        }
    }
}

#[test]
fn without_a_secret_nothing_is_taken_for_one() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    agreed(world.connect().say(&hello("cache", "1.0.0")));
    let written = diagnose(&world, &world.path("diagnose.tar.gz"), &["--json"]);
    let answer: Value = serde_json::from_str(&written.stdout).unwrap();
    let secrets = &answer["redaction_policy"][1];
    assert_eq!((&secrets["name"], &secrets["replaced"]), (&"secret-env".into(), &0.into()));
}

#[test]
fn nothing_is_overwritten_and_each_error_says_what_to_do() {
    let world = World::new();
    let _broker = world.serve(&[]);
    let taken = world.path("taken.tar.gz");
    fs::write(&taken, "somebody's").unwrap();
    let directory = world.path("directory");
    fs::create_dir(&directory).unwrap();
    let missing = world.path("missing").join("diagnose.tar.gz");
    let cases = [
        (&taken, "a regular file is at", "choose another name"),
        (&directory, "a directory is at", "name a file in it"),
        (&missing, "there is no directory", "make it"),
    ];
    for (output, what, next) in cases {
        let failed = diagnose(&world, output, &[]);
        assert_eq!((failed.code(), failed.stdout.as_str()), (1, ""), "{failed:?}");
        for text in ["error: ", what, output.to_str().unwrap(), "\n  next: ", next] {
            assert!(failed.stderr.contains(text), "no {text:?} in {failed:?}");
        }
    }
    assert_eq!(fs::read_to_string(&taken).unwrap(), "somebody's");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    for (path, what) in
        [("diagnose.tar.gz", "not an absolute path"), (&format!("{}/", taken.display()), "names no file")]
    {
        let reply = ask(&world, path);
        assert_eq!((reply.kind(), reply.exit_code), (AdminReplyKind::Text, 2), "{reply:?}");
        assert!(reply.body.contains(what) && reply.body.contains("\n  next: "), "{reply:?}");
    }
    let without = world.run(&["diagnose", "--socket", world.endpoint("run/none.sock").to_str().unwrap()]);
    assert_eq!(without.code(), 1);
    assert!(without.stderr.contains("brokerd serve"), "{without:?}");
}

#[test]
fn a_part_that_is_not_there_is_said_to_be_missing_and_the_others_are_written() {
    let world = World::new();
    let _broker = world.serve(&[]);
    let output = world.path("diagnose.tar.gz");
    let written = diagnose(&world, &output, &["--json"]);
    assert!(written.is_success(), "{written:?}");
    let answer: Value = serde_json::from_str(&written.stdout).unwrap();
    let entries = answer["bundle"]["entries"].as_array().unwrap();
    let missing: Vec<_> = entries.iter().filter(|entry| entry["present"] == false).collect();
    let paths: Vec<_> = missing.iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["events/lifecycle.jsonl", "manifest/backend-manifests.json"]);
    for entry in missing {
        assert!(entry["note"].as_str().unwrap().contains('~'), "where it looked: {entry}");
        assert!(!answer["files"].as_array().unwrap().contains(&entry["path"]));
    }
    let unpacked = Unpacked::of(&output);
    assert_eq!(unpacked.names().len(), PARTS.len() - 2);
    assert!(unpacked.text("report.html").contains("There are none."));

    let told = diagnose(&world, &world.path("second.tar.gz"), &[]);
    assert!(told.is_success() && told.stdout.starts_with("wrote "), "{told:?}");
    assert!(told.stdout.contains("\n! events/lifecycle.jsonl"), "{told:?}");
}

#[test]
fn who_names_no_output_gets_one_here_or_in_the_broker_s_directory() {
    let world = World::new();
    let _broker = world.serve(&[]);
    let here = world.path("here");
    fs::create_dir(&here).unwrap();
    let mut command = world.brokerd(&["diagnose", "--json", "--socket", world.socket().to_str().unwrap()]);
    let written = Finished::of(command.current_dir(&here));
    assert!(written.is_success(), "{written:?}");
    let found: Vec<_> = fs::read_dir(&here).unwrap().map(|entry| entry.unwrap().path()).collect();
    let answer: Value = serde_json::from_str(&written.stdout).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        fs::canonicalize(answer["output"].as_str().unwrap()).unwrap(),
        fs::canonicalize(&found[0]).unwrap()
    );

    let reply = ask(&world, "");
    assert_eq!((reply.kind(), reply.exit_code), (AdminReplyKind::Json, 0), "{reply:?}");
    let answer: Value = serde_json::from_str(&reply.body).unwrap();
    let output = Path::new(answer["output"].as_str().unwrap());
    assert_eq!(output.parent().unwrap(), world.state_dir());
    assert!(Unpacked::of(output).names().contains(&"report.html"));
}

#[test]
fn several_may_ask_at_once_and_who_says_hello_is_served() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let world = &world;
            scope.spawn(move || {
                let output = world.path(&format!("{number}.tar.gz"));
                let written = diagnose(world, &output, &[]);
                assert!(written.is_success(), "{written:?}");
                assert!(Unpacked::of(&output).names().contains(&"report.html"));
            });
        }
        for _ in 0..20 {
            agreed(world.connect().say(&hello("cache", "1.0.0")));
        }
    });
    // Of eight that want the same name one has it.
    let output = world.path("same.tar.gz");
    let codes: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| diagnose(&world, &output, &[]).code())).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert!(Unpacked::of(&output).names().contains(&"report.html"));
    let left = fs::read_dir(world.path(""))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"));
    assert_eq!(left.count(), 0);
}
