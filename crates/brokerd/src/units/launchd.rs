//! A user agent of launchd (launchd.plist(5)).

use super::{Plan, Service, Unit, directory};
use crate::failure::Failure;

pub(super) fn plan(service: &Service) -> Result<Plan, Failure> {
    let library = directory(None, "Library")?;
    let label = format!("local.{}", service.name('.'));
    let path = library.join(format!("LaunchAgents/{label}.plist"));
    let log = super::text(library.join(format!("Logs/{label}.log")))?;
    let load =
        format!("launchctl bootstrap \"gui/$(id -u)\" {}", shell_words::quote(&path.display().to_string()));
    Ok(Plan { units: vec![Unit { path, content: agent(service, &label, &log) }], next: vec![load] })
}

fn agent(service: &Service, label: &str, log: &str) -> String {
    let words = [service.program.clone()].into_iter().chain(service.arguments());
    let words: String = words.map(|word| format!("\t\t<string>{}</string>\n", escaped(&word))).collect();
    // The process group is the broker's alone: backends have sessions of their own.
    let keeps = if service.keep_backends { "\t<key>AbandonProcessGroup</key>\n\t<true/>\n" } else { "" };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">
<!-- Written by `brokerd install-units`. -->
<plist version=\"1.0\">
<dict>
\t<key>Label</key>
\t<string>{label}</string>
\t<key>ProgramArguments</key>
\t<array>
{words}\t</array>
\t<key>RunAtLoad</key>
\t<true/>
\t<!-- Started again when it fails, and not when `brokerd shutdown` ends it. -->
\t<key>KeepAlive</key>
\t<dict>
\t\t<key>SuccessfulExit</key>
\t\t<false/>
\t</dict>
\t<!-- A drain takes ten seconds, unless drain-ms says otherwise. -->
\t<key>ExitTimeOut</key>
\t<integer>30</integer>
\t<!-- Backends inherit it: as a background process they would be slowed down. -->
\t<key>ProcessType</key>
\t<string>Interactive</string>
{keeps}\t<key>StandardErrorPath</key>
\t<string>{log}</string>
</dict>
</plist>
",
        label = escaped(label),
        log = escaped(log),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::service;
    use super::*;

    #[test]
    fn an_agent_names_the_program_its_arguments_and_its_log() {
        let service = Service { program: "/a & b/<x>/brokerd".to_owned(), ..service("svc:cache") };
        let agent = agent(&service, "local.brokerd.svc.cache", "/Users/u/Library/Logs/x.log");
        for line in [
            "\t\t<string>/a &amp; b/&lt;x&gt;/brokerd</string>\n\t\t<string>serve</string>\n",
            "\t<string>local.brokerd.svc.cache</string>\n",
            "\t\t<string>svc:cache</string>\n",
            "\t<key>StandardErrorPath</key>\n\t<string>/Users/u/Library/Logs/x.log</string>\n",
            "\t<key>KeepAlive</key>\n",
        ] {
            assert!(agent.contains(line), "{line}{agent}");
        }
        assert!(!agent.contains("AbandonProcessGroup"), "{agent}");
    }
}
