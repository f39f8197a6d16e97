//! The report of `brokerd diagnose` in a real browser: what is shown, that nothing in it runs, and that it fits.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use broker_protocol::wire::Hello;
use broker_tests::{Finished, PATIENCE, Unpacked, World, agreed, hello, refused};

const BROWSER: &str = "chromium";

/// What a browser would understand if it were not shown as a text.
const PLANTED: &str = "<script>document.title='run'</script>";
const ADDRESS: &str = "<img src=http://planted.invalid/x>";

/// Whether there is a browser; says what is not tested where there is none.
fn has_browser() -> bool {
    let has = Command::new(BROWSER).arg("--version").output().is_ok_and(|output| output.status.success());
    if !has {
        println!("not tested, as {BROWSER} is not installed: the report in a browser");
    }
    has
}

/// The report of a broker that was told a lot.
fn report(world: &World) -> PathBuf {
    world.define("cache", &["--allow-version", "1.0.0", "--allow-version", "2.0.0"]);
    let failing = world.script("failing", "exit 7");
    let added = world.run(&["service", "add", "failing", "--binary", failing.to_str().unwrap()]);
    assert!(added.is_success(), "{added:?}");
    let broker = world.serve(&[]);
    for version in ["1.0.0", "2.0.0", "1.0.0"] {
        agreed(world.connect().say(&hello("cache", version)));
    }
    refused(world.connect().say(&hello("failing", "1.0.0")));
    refused(world.connect().say(&hello("cache", "3.0.0")));
    for planted in [PLANTED, ADDRESS] {
        refused(world.connect().say(&Hello { wanted_version: planted.into(), ..hello("cache", "1.0.0") }));
    }
    world.wait_for_events(8);
    let output = world.path("diagnose.tar.gz");
    let socket = world.socket();
    let written =
        world.run(&["diagnose", "--socket", socket.to_str().unwrap(), "--output", output.to_str().unwrap()]);
    assert!(written.is_success(), "{written:?}");
    broker.stop();
    let page = world.path("report.html");
    fs::write(&page, Unpacked::of(&output).text("report.html")).unwrap();
    page
}

/// The page as the browser understood it, and what the browser did in the network.
fn shown(world: &World, page: &Path, width: u32) -> (String, String) {
    let log = world.path("network.json");
    let mut browser = Command::new("timeout");
    browser.arg(PATIENCE.as_secs().to_string()).args([
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        // Nor does it reach what it asks for of its own accord.
        "--host-resolver-rules=MAP * ~NOTFOUND",
        &format!("--window-size={width},900"),
        &format!("--user-data-dir={}", world.path("browser").display()),
        &format!("--log-net-log={}", log.display()),
        "--dump-dom",
        page.to_str().unwrap(),
    ]);
    let shown = Finished::of(browser.env("HOME", world.path("")));
    assert!(shown.is_success(), "{shown:?}");
    (shown.stdout, fs::read_to_string(log).unwrap())
}

#[test]
fn a_browser_shows_the_report_runs_nothing_and_asks_nobody() {
    if !has_browser() {
        return;
    }
    let world = World::new();
    let (page, network) = shown(&world, &report(&world), 1_280);
    assert!(page.contains("<title>Broker shared</title>"), "no text of a client's has run: {page}");
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    assert!(page.contains("&lt;script&gt;document.title='run'&lt;/script&gt;"), "it is shown: {page}");
    assert!(!network.contains("planted.invalid"));
    for (tag, least) in [("<svg ", 3), ("<desc ", 3), ("<table>", 8), ("<th scope=\"col\">", 20), ("<h2 ", 5)]
    {
        assert!(page.matches(tag).count() >= least, "{tag}: {page}");
    }
    let text = page.replace(char::is_whitespace, " ");
    for shown in [
        // Backends.
        ">failing</th>",
        "it ended with exit code 7 before it answered",
        // Refusals by reason.
        ">backend spawn failed</th>",
        ">version blocked</th>",
        // Events, and the configuration.
        "Spawn attempt",
        ">hello_burst</th>",
        "protocol-v1",
    ] {
        assert!(text.contains(shown), "{shown}: {page}");
    }
    // An element that was closed too early would have ended up outside.
    assert!(page.trim_end().ends_with("</footer></body></html>"), "{page}");
}

#[test]
fn the_report_fits_into_a_narrow_window_and_a_wide_one() {
    if !has_browser() {
        return;
    }
    let world = World::new();
    let page = fs::read_to_string(report(&world)).unwrap();
    // A copy that measures itself, which the page's own policy forbids. No window is as narrow as a phone, so
    // the page is told to be.
    let policy = page.find("<meta http-equiv").unwrap();
    let end = policy + page[policy..].find('>').unwrap() + 1;
    let page = [&page[..policy], &page[end..]].concat();
    for width in [400, 1_280] {
        let measuring = format!(
            "<script>document.body.style.width = '{width}px'; document.body.style.margin = 0;
            let out = [...document.querySelectorAll('body *')].filter(part =>
                !part.parentElement.closest('.table') && part.getBoundingClientRect().right > {width} + 0.5);
            let flat = [...document.querySelectorAll('svg')].filter(part => part.getBoundingClientRect().height < 50);
            document.title = `measured ${{out.length}} ${{flat.length}} ${{out.map(part => part.outerHTML.slice(0, 80))}}`;
            </script></body>"
        );
        let copy = world.path("measured.html");
        fs::write(&copy, page.replace("</body>", &measuring)).unwrap();
        let (measured, _) = shown(&world, &copy, width);
        assert!(measured.contains("<title>measured 0 0 </title>"), "{width}: {measured}");
    }
}
