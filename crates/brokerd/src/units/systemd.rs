//! Units of systemd's user manager (systemd.service(5), systemd.socket(5)).
//!
//! Invariant: whatever a path holds, the manager reads it as the one word that it is.

use broker_transport::endpoint::{self, Platform, RuntimePlaces, leaf, socket_path};

use super::{Plan, Service, Unit, directory};
use crate::failure::Failure;

/// A runtime directory in whose place the manager puts its own.
const RUNTIME_DIR: &str = "/run/user/0";
/// How that is written.
const RUNTIME_DIR_SPECIFIER: &str = "%t";

pub(super) fn plan(service: &Service, by_socket: bool) -> Result<Plan, Failure> {
    if !is_executed(&service.program) {
        return Err(Failure::refused(format!(
            "systemd runs no program with such a path: {}",
            service.program
        ))
        .next("move it to where its path has no quotes, backslashes and control characters"));
    }
    let directory = directory(Some("XDG_CONFIG_HOME"), ".config")?.join("systemd/user");
    let name = service.name('-');
    let mut units = vec![Unit {
        path: directory.join(format!("{name}.service")),
        content: service_unit(service, &name, by_socket),
    }];
    let mut started = format!("{name}.service");
    if by_socket {
        started = format!("{name}.socket");
        let content = socket_unit(service, &listen_stream(service)?);
        units.push(Unit { path: directory.join(&started), content });
    }
    let next =
        vec!["systemctl --user daemon-reload".to_owned(), format!("systemctl --user enable --now {started}")];
    Ok(Plan { units, next })
}

/// The endpoint as the user's manager derives it, whose runtime directory is not always that of a shell.
fn listen_stream(service: &Service) -> Result<String, Failure> {
    let places = RuntimePlaces { xdg_runtime_dir: Some(RUNTIME_DIR.into()), ..RuntimePlaces::default() };
    let user = endpoint::current_user_hash().map_err(Failure::refused)?;
    let socket = socket_path(Platform::Linux, &leaf(&user, &service.instance), &places);
    let socket = socket.map_err(Failure::refused)?;
    let below = socket.strip_prefix(RUNTIME_DIR).unwrap_or(&socket).display().to_string();
    Ok(format!("{RUNTIME_DIR_SPECIFIER}/{}", below.replace('%', "%%")))
}

fn service_unit(service: &Service, name: &str, by_socket: bool) -> String {
    let (kill_mode, why) = if service.keep_backends {
        ("process", "Backends are to outlive the broker, so only the broker is ended.")
    } else {
        ("mixed", "The broker ends its backends in good order; what is left after it is killed.")
    };
    let (requires, install) = if by_socket {
        (format!("Requires={name}.socket\n"), format!("Also={name}.socket\n"))
    } else {
        (String::new(), String::new())
    };
    format!(
        "# Written by `brokerd install-units`. Changes belong into {name}.service.d/*.conf, which it leaves alone.
[Unit]
Description=Local service broker ({instance})
Documentation=man:brokerd(1)
{requires}
[Service]
# Ready once it accepts; the status line of `systemctl --user status` is its own, too.
Type=notify
NotifyAccess=main
# A colon: nothing in the command is a variable.
ExecStart=:{command}
ExecReload=/bin/kill -HUP $MAINPID
# A broker that stops turning its event loop is ended and started again.
WatchdogSec=30
Restart=on-failure
RestartSec=1
# 2: the command line is wrong; 3: another broker serves here. Neither gets better by trying again.
RestartPreventExitStatus=2 3
# {why}
KillMode={kill_mode}
# A drain takes ten seconds, unless --drain-ms says otherwise.
TimeoutStopSec=30
# A backend that the kernel ends for want of memory is started by the next Hello; the broker goes on.
OOMPolicy=continue
# What more could be taken away here would be taken from every backend, too: NoNewPrivileges= and all that implies
# it, such as RestrictAddressFamilies= or ProtectSystem=. `brokerd serve --sandbox` binds the broker alone.

[Install]
WantedBy=default.target
{install}",
        instance = service.instance,
        command = command(service),
    )
}

fn socket_unit(service: &Service, listen_stream: &str) -> String {
    format!(
        "# Written by `brokerd install-units`.
[Unit]
Description=Socket of the local service broker ({instance})
Documentation=man:brokerd(1)

[Socket]
ListenStream={listen_stream}
FileDescriptorName=brokerd
# This user's alone, as the broker would make it.
SocketMode=0600
DirectoryMode=0700
Backlog=4096
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
",
        instance = service.instance,
    )
}

/// The words of the command, each quoted where it has to be.
fn command(service: &Service) -> String {
    let words = [service.program.clone()].into_iter().chain(service.arguments());
    words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

/// Whether systemd takes this for a program, however it is quoted.
fn is_executed(program: &str) -> bool {
    !program.chars().any(|letter| letter.is_ascii_control() || "\"'\\".contains(letter))
}

/// A word as systemd.syntax(7) wants it. `%` begins a specifier, also in quotes.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-:+,=@".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for letter in word.chars() {
        match letter {
            '%' => quoted.push_str("%%"),
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control.is_ascii_control() => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(control)));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::super::tests::service;
    use super::*;

    #[test]
    fn a_word_is_quoted_where_the_manager_would_take_it_for_something_else() {
        assert_eq!(quoted("/usr/bin/brokerd"), "/usr/bin/brokerd");
        for (word, written) in [
            ("", r#""""#),
            ("/a b/c", r#""/a b/c""#),
            ("/50%/x", r#""/50%%/x""#),
            (r"/a\b", r#""/a\\b""#),
            ("/\"q\"", r#""/\"q\"""#),
            ("/a\nb", r#""/a\x0ab""#),
            ("/a'b;c", r#""/a'b;c""#),
            ("/ä", "\"/ä\""),
        ] {
            assert_eq!(quoted(word), written, "{word:?}");
        }
    }

    #[test]
    fn a_program_that_systemd_would_not_run_is_told() {
        assert!(is_executed("/a b/50%/$x;y/ä/brokerd"));
        for program in ["/a\"b", "/a'b", r"/a\b", "/a\nb", "/a\x7fb"] {
            assert!(!is_executed(program), "{program:?}");
        }
    }

    #[test]
    fn backends_that_are_kept_are_not_ended_with_the_broker() {
        let kept = Service { keep_backends: true, ..service("shared") };
        let kept = service_unit(&kept, "brokerd", false);
        assert!(kept.contains("\nKillMode=process\n") && kept.contains(" --keep-backends\n"), "{kept}");
        let plain = service_unit(&service("shared"), "brokerd", false);
        assert!(plain.contains("\nKillMode=mixed\n") && !plain.contains("keep-backends"), "{plain}");
    }

    #[test]
    fn a_socket_lies_where_the_manager_s_broker_looks_whatever_the_shell_s_environment_is() {
        let listen = listen_stream(&service("svc:cache")).unwrap();
        assert!(listen.starts_with("%t/running-process/broker/") && listen.ends_with(".sock"), "{listen}");
    }
}
