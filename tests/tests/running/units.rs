//! The units that `brokerd install-units` writes: what is in them, and what is left alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use broker_tests::{Daemon, Finished, World, is_listening};
use serde_json::Value;

use crate::activation::Unit;

fn directory(world: &World) -> PathBuf {
    world.path(".config/systemd/user")
}

fn install(world: &World, options: &[&str]) -> Finished {
    world.run(&[&["install-units"], options].concat())
}

fn unit(world: &World, name: &str) -> String {
    std::fs::read_to_string(directory(world).join(name)).unwrap()
}

/// The value of a setting.
fn setting<'a>(unit: &'a str, key: &str) -> &'a str {
    let of = |line: &'a str| line.strip_prefix(key)?.strip_prefix('=');
    unit.lines().find_map(of).unwrap_or_else(|| panic!("no {key} in {unit}"))
}

/// Has systemd read the units; without systemd, says that this is not tested.
fn verify(world: &World, names: &[&str]) {
    let mut command = world.command(Path::new("systemd-analyze"));
    command.args(["verify", "--user", "--man=no"]);
    command.args(names.iter().map(|name| directory(world).join(name)));
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
            let own: Vec<_> = said.lines().filter(|line| line.contains("brokerd")).collect();
            assert!(own.is_empty(), "{own:?}");
        }
        Err(error) => {
            println!("not tested, as there is no systemd-analyze: that it takes the units: {error}");
        }
    }
}

#[test]
fn what_is_written_is_as_systemd_and_the_doctor_want_it() {
    for options in [
        &[][..],
        &["--keep-backends"],
        &["--socket-activation", "--sandbox"],
        &["--instance", "svc:cache", "--socket-activation", "--keep-backends"],
    ] {
        let world = World::new();
        std::fs::create_dir(world.path("xdg")).unwrap();
        let done = install(&world, options);
        assert_eq!(done.code(), 0, "{done:?}");
        let name = if options.contains(&"svc:cache") { "brokerd-svc-cache" } else { "brokerd" };
        let (service, socket) = (format!("{name}.service"), format!("{name}.socket"));
        let mut names = vec![service.as_str()];
        let mut enabled = &service;
        if options.contains(&"--socket-activation") {
            names.push(&socket);
            enabled = &socket;
        }
        let next = format!("systemctl --user daemon-reload && systemctl --user enable --now {enabled}\n");
        assert!(done.stderr.ends_with(&next), "{done:?}");
        assert_eq!(std::fs::read_dir(directory(&world)).unwrap().count(), names.len());
        verify(&world, &names);
        let doctor = world.run(&["doctor", "--json"]);
        let report: Value = serde_json::from_str(&doctor.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["id"] == "systemd.kill-mode").unwrap();
        assert_eq!(check["status"], "PASS", "{options:?}: {check}");
        assert!(check["found"].as_str().unwrap().contains(&service), "{check}");
    }
}

#[test]
fn the_socket_unit_listens_where_the_service_unit_serves() {
    let world = World::new();
    let done = install(&world, &["--socket-activation", "--instance", "inst:ci"]);
    assert!(done.is_success(), "{done:?}");
    let (service, socket) = (unit(&world, "brokerd-inst-ci.service"), unit(&world, "brokerd-inst-ci.socket"));
    // As the manager reads it, whose runtime directory is this one.
    let runtime = world.path("xdg");
    let listen = setting(&socket, "ListenStream").replace("%t", runtime.to_str().unwrap());
    let command = setting(&service, "ExecStart").strip_prefix(':').unwrap();
    let listener = Unit::at(Path::new(&listen));
    let words: Vec<_> = command.split(' ').collect();
    let mut serve = world.command(Path::new(words[0]));
    serve.args(&words[1..]);
    let name = setting(&socket, "FileDescriptorName");
    let broker = Daemon::start(&mut listener.activated(&[name], &serve));
    assert!(is_listening(Path::new(&listen)));
    let done = world.run(&["readyz", "--instance", "inst:ci"]);
    assert_eq!(done.stdout, "ready\n", "{done:?}");
    broker.stop();
}

#[test]
fn a_file_that_says_something_else_is_replaced_only_where_that_is_asked_for() {
    let world = World::new();
    let own = "[Service]\nExecStart=/bin/true\n";
    std::fs::create_dir_all(directory(&world)).unwrap();
    std::fs::write(directory(&world).join("brokerd.socket"), own).unwrap();
    for dry in [&[][..], &["--dry-run"]] {
        let refused = install(&world, &[&["--socket-activation"], dry].concat());
        assert_eq!((refused.code(), refused.stdout.as_str()), (1, ""), "{refused:?}");
        assert!(refused.stderr.contains("brokerd.socket says something else"), "{refused:?}");
        assert!(refused.stderr.contains("--force"), "{refused:?}");
    }
    assert_eq!(unit(&world, "brokerd.socket"), own);
    assert!(!directory(&world).join("brokerd.service").exists(), "all of it, or nothing");

    let changes = |options: &[&str]| {
        let done = install(&world, &[&["--json", "--socket-activation"], options].concat());
        let told: Value =
            serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"));
        ["0", "1"].map(|index| told["files"][index.parse::<usize>().unwrap()]["change"].clone())
    };
    assert_eq!(changes(&["--force", "--dry-run"]), ["written", "replaced"]);
    assert_eq!(unit(&world, "brokerd.socket"), own, "a dry run writes nothing");
    assert_eq!(changes(&["--force"]), ["written", "replaced"]);
    assert_eq!(changes(&[]), ["unchanged", "unchanged"]);
    let printed = install(&world, &["--dry-run", "--socket-activation"]);
    assert!(printed.stdout.contains(&unit(&world, "brokerd.service")), "{printed:?}");
}

#[test]
fn a_program_is_found_by_its_path_whatever_that_holds() {
    let world = World::new();
    std::fs::create_dir(world.path("xdg")).unwrap();
    let copy = |below: &str| {
        let path = world.path(below);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let copied = Command::new("cp").arg(World::program("brokerd")).arg(&path).status();
        assert!(copied.unwrap().success());
        path
    };
    let mut command = world.command(&copy("50% of $x;y/brokerd"));
    let definitions = world.path("my \"services\" \\ 100%");
    command.arg("install-units").env("RUNNING_PROCESS_SERVICE_DEF_DIR", &definitions);
    let done = Finished::of(&mut command);
    assert!(done.is_success(), "{done:?}");
    let service = unit(&world, "brokerd.service");
    let command = setting(&service, "ExecStart");
    assert!(
        command.contains("50%% of $x;y/brokerd\" serve ") && command.contains("--service-dir \""),
        "{command}"
    );
    assert!(command.contains(r#"my \"services\" \\ 100%%""#), "{command}");
    verify(&world, &["brokerd.service"]);

    let done = Finished::of(world.command(&copy("it's/brokerd")).args(["install-units", "--force"]));
    assert_eq!(done.code(), 1, "{done:?}");
    assert!(done.stderr.contains("systemd runs no program with such a path"), "{done:?}");
    assert_eq!(unit(&world, "brokerd.service"), service);
}
