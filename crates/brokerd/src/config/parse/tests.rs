use proptest::prelude::*;

use super::super::keys::{
    DRAIN_MS, HELLO_BURST, HELLO_TIMEOUT_MS, INSTANCE, KEEP_BACKENDS, LOG_FORMAT, LOG_LEVEL,
    MAX_CONNECTIONS_OPEN, SANDBOX,
};
use super::*;

/// An absolute path of this system, as a TOML string that takes no escapes.
fn absolute(below: &str) -> String {
    let path = std::env::temp_dir().join(below);
    format!("'{}'", path.display())
}

fn whole_file() -> String {
    let (state, services) = (absolute("state"), absolute("services"));
    format!(
        "# everything\n\
         instance = \"inst:ci\"\n\
         keep-backends = true\n\
         sandbox = false\n\
         [paths]\n\
         socket = {socket}\n\
         service-dir = {services}\n\
         state-dir = {state}\n\
         [log]\n\
         format = \"json\"\n\
         level = \"warn,brokerd=debug\"\n\
         [limits]\n\
         hello-timeout-ms = 1_500\n\
         max-connections = 0x40\n\
         hello-burst = 7\n\
         hello-refill = 8\n\
         drain-ms = 0\n\
         [[backend]]\n\
         service = \"cache\"\n\
         version = \"1.0.0\"\n\
         endpoint = {endpoint}\n\
         [[backend]]\n\
         service = \"cache\"\n\
         version = \"2.0.0\"\n\
         endpoint = {endpoint}\n\
         handoff = {endpoint}\n",
        socket = absolute("s.sock"),
        endpoint = absolute("e.sock"),
    )
}

/// What is wrong with a file that is one broker's.
fn problems(text: &str) -> Vec<String> {
    let problems = parse(text, Reach::OneBroker).expect_err("it is taken");
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn every_key_can_be_set() {
    let values = parse(&whole_file(), Reach::OneBroker).unwrap();
    assert_eq!(values.text(&INSTANCE), Some("inst:ci"));
    assert_eq!((values.switch(&KEEP_BACKENDS), values.switch(&SANDBOX)), (Some(true), Some(false)));
    assert_eq!(values.text(&LOG_FORMAT.key), Some("json"));
    assert_eq!(values.text(&LOG_LEVEL), Some("warn,brokerd=debug"));
    let numbers = [&HELLO_TIMEOUT_MS, &MAX_CONNECTIONS_OPEN, &HELLO_BURST, &DRAIN_MS];
    assert_eq!(numbers.map(|number| values.number(number)), [Some(1_500), Some(64), Some(7), Some(0)]);
    let said: Vec<_> =
        values.backends.iter().map(|named| (named.version.to_string(), &named.handoff)).collect();
    assert!(
        matches!(&said[..], [(one, None), (two, Some(_))] if one == "1.0.0" && two == "2.0.0"),
        "{said:?}"
    );
    for entry in ENTRIES {
        let key = entry.key();
        let is_there = values.switch(key).is_some()
            || values.text(key).is_some()
            || matches!(entry, Entry::Number(number) if values.number(number).is_some());
        assert!(is_there, "{} is not in the file of this test", key.path());
    }
}

#[test]
fn an_empty_file_says_nothing() {
    let values = parse("", Reach::EveryBroker).unwrap();
    assert!(values.number(&HELLO_BURST).is_none() && values.backends.is_empty());
}

#[test]
fn an_unknown_key_is_told_with_its_place_and_what_was_probably_meant() {
    for (text, told) in [
        (
            "[limits]\n  hello_burst = 1\n",
            "2:3: unknown key `limits.hello_burst`; did you mean `limits.hello-burst`?",
        ),
        ("keep-backend = true\n", "1:1: unknown key `keep-backend`; did you mean `keep-backends`?"),
        ("hello-burst = 1\n", "1:1: unknown key `hello-burst`; did you mean `limits.hello-burst`?"),
        ("[limit]\nhello-burst = 1\n", "1:2: unknown key `limit`; did you mean `limits`?"),
        (
            "[[backend]]\nservice = 'a'\nversion = '1.0.0'\nendpoint = '/e'\ndrain-ms = 1\n",
            "5:1: unknown key `backend.drain-ms`; did you mean `limits.drain-ms`?",
        ),
        ("[log]\ndrain-ms = 1\n", "2:1: unknown key `log.drain-ms`; did you mean `limits.drain-ms`?"),
        ("\n\ncolour = \"red\"\n", "3:1: unknown key `colour`"),
        ("[paths]\n\"sock\\net\" = 1\n", "2:1: unknown key `paths.sock\\net`; did you mean `paths.socket`?"),
    ] {
        assert_eq!(problems(text), [told]);
    }
}

#[test]
fn a_wrong_kind_of_value_is_told_with_what_is_expected() {
    for (text, told) in [
        (
            "limits.hello-burst = \"many\"",
            "1:22: limits.hello-burst: expected a whole number from 0 to 4294967295 (Hellos), got the string \"many\"",
        ),
        ("sandbox = 1", "1:11: sandbox: expected true or false, got 1"),
        (
            "[log]\nformat = \"xml\"",
            "2:10: log.format: expected \"text\" or \"json\", got the string \"xml\"",
        ),
        ("[log]\nlevel = 3.5", "2:9: log.level: expected a string, got the fraction 3.5"),
        ("[paths]\nstate-dir = []", "2:13: paths.state-dir: expected a path, as a string, got a list"),
        ("[paths]\nstate-dir = \"here\"", "2:13: paths.state-dir: expected an absolute path, got \"here\""),
        ("[paths]\nsocket = ''", "2:10: paths.socket: expected where to listen, got nothing"),
        ("[paths]\nsocket = \"a\\u0000b\"", "2:10: paths.socket: it holds a NUL"),
        ("limits = 3", "1:10: limits: expected a table, [limits], got 3"),
        ("[backend]\n", "1:1: backend: expected a list of tables, [[backend]], got a table"),
        ("backend = [1]\n", "1:12: backend: expected a table, [[backend]], got 1"),
    ] {
        assert_eq!(problems(text), [told], "{text}");
    }
    for wrong in ["brokerd=loud", "degub", "info,foo", "", "=", "info,", "=info", "brokerd="] {
        let level = problems(&format!("[log]\nlevel = \"{wrong}\""));
        assert!(level[0].starts_with("2:9: log.level: expected a level (error, warn,"), "{wrong}: {level:?}");
    }
    let instance = problems("instance = \"mine\"");
    assert!(instance[0].starts_with("1:12: instance: "), "{instance:?}");
}

#[test]
fn numbers_are_taken_from_the_least_to_the_most_and_not_one_beyond() {
    for entry in ENTRIES {
        let Entry::Number(number) = entry else { continue };
        let Number { key, least, most, unit, .. } = number;
        let with = |value: &str| parse(&format!("{} = {value}", key.path()), Reach::OneBroker);
        for good in [least, most] {
            assert_eq!(with(&good.to_string()).unwrap().number(number), Some(*good), "{}", key.path());
        }
        let below = i128::from(*least) - 1;
        for bad in [below.to_string(), (most + 1).to_string(), "99999999999999999999999".to_owned()] {
            let problems = with(&bad).unwrap_err();
            let expected = format!("expected a whole number from {least} to {most} ({unit}), got {bad}");
            assert!(problems[0].message.contains(&expected), "{problems:?}");
        }
    }
}

#[test]
fn a_backend_is_held_to_the_rules_of_the_command_line() {
    let endpoint = absolute("e.sock");
    let named = |version: &str| {
        format!("[[backend]]\nservice = 'cache'\nversion = '{version}'\nendpoint = {endpoint}\n")
    };
    assert_eq!(
        problems(&format!("{}{}", named("1.0.0"), named("1.0.0"))),
        ["5:1: backend: cache 1.0.0 is named twice"]
    );
    assert_eq!(
        problems("[[backend]]\nservice = 'cache'\nversions = '1.0.0'\n"),
        [
            "1:1: backend.endpoint: it is missing",
            "1:1: backend.version: it is missing",
            "3:1: unknown key `backend.versions`; did you mean `backend.version`?",
        ]
    );
    let bad =
        problems(&format!("[[backend]]\nservice = 'A'\nversion = '1'\nendpoint = {endpoint}\nhandoff = 3\n"));
    let begins =
        ["2:11: backend.service: ", "3:11: backend.version: ", "5:11: backend.handoff: expected a string"];
    assert_eq!(bad.len(), begins.len());
    for (problem, begin) in bad.iter().zip(begins) {
        assert!(problem.starts_with(begin), "{problem}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_from_top_to_bottom() {
    let text = "sandbox = 1\nhello = \n[limits]\ndrain-ms = -1\nburst = 2\n";
    let told = problems(text);
    let begins = ["1:11: sandbox", "2:9: this is no TOML: ", "4:12: limits.drain-ms", "5:1: unknown key"];
    assert_eq!(told.len(), begins.len(), "{told:?}");
    for (problem, begin) in told.iter().zip(begins) {
        assert!(problem.starts_with(begin), "{problem}");
    }
    assert_eq!(problems("a = 1\n[x\n").len(), 2);
    let twice = problems("sandbox = true\nsandbox = true\n");
    assert_eq!(twice, ["2:1: this is no TOML: duplicate key"]);
}

#[test]
fn what_is_one_broker_s_does_not_belong_into_the_file_of_all() {
    for (text, key) in [("instance = 'inst:ci'", "instance"), ("paths.socket = '/s'", "paths.socket")] {
        let problems = parse(text, Reach::EveryBroker).unwrap_err();
        assert_eq!(problems[0].key.as_deref(), Some(key));
        assert!(problems[0].message.contains("--config FILE"), "{problems:?}");
    }
    assert!(parse("instance = 'inst:ci'", Reach::OneBroker).is_ok());
}

/// Holds for whatever a file holds.
fn is_taken_or_told(text: &str) -> Result<(), TestCaseError> {
    for reach in [Reach::OneBroker, Reach::EveryBroker] {
        if let Err(problems) = parse(text, reach) {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.is_sorted());
            let lines = text.matches('\n').count() + 1;
            for problem in problems {
                prop_assert!(problem.line <= lines && problem.column >= 1, "{:?}", problem);
                prop_assert!(!problem.to_string().contains('\n'), "{:?}", problem);
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        is_taken_or_told(&text)?;
    }

    #[test]
    fn no_text_of_toml_s_own_characters_makes_it_panic(
        text in r#"([\[\]{}=.,"'#\\\n\r\t -]|true|[0-9]{1,3}|é|u0000|limits|paths|backend|service|socket|level){0,60}"#,
    ) {
        is_taken_or_told(&text)?;
    }

    #[test]
    fn no_change_to_a_good_file_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..6),
    ) {
        let mut text: Vec<char> = whole_file().chars().collect();
        for (at, with) in changes {
            let at = at.index(text.len());
            text[at] = with;
        }
        is_taken_or_told(&text.into_iter().collect::<String>())?;
    }
}

#[test]
fn tables_within_tables_without_end_are_no_toml() {
    for deep in [format!("a = {}", "[".repeat(100_000)), format!("a{} = 1", ".a".repeat(50_000))] {
        assert!(parse(&deep, Reach::OneBroker).is_err());
    }
}
