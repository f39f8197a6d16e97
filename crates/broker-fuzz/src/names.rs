//! Names, versions, instances and what endpoints are called, held against a plain reading of their rules.

use std::cmp::Ordering;
use std::path::Path;

use broker_protocol::{BrokerInstance, InstanceName, NameError, ServiceName, Version, VersionError};
use broker_transport::endpoint::{
    Platform, RuntimePlaces, UserHash, backend_leaf, check_length, instance_of_leaf, leaf, pipe_leaf,
    pipe_name, socket_path,
};

use crate::seed::{Seed, seed};

/// Takes the bytes for a text of two lines, each of which may name anything.
pub fn target(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    for line in [first, second] {
        is_a_name_by_the_rule(line);
        is_a_version_by_the_rule(line);
        is_an_instance_by_the_rule(line);
        is_a_pipe_with_or_without_its_prefix(line);
    }
    if let (Ok(left), Ok(right)) = (Version::parse(first), Version::parse(second)) {
        are_in_semver_order(&left, &right);
    }
}

/// `[a-z0-9-]{1,64}`.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'))
}

/// `^[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9.]+)?$` with numbers of 64 bits, in 64 bytes.
pub(crate) fn is_version(text: &str) -> bool {
    let (numbers, pre) = match text.split_once('-') {
        Some((numbers, pre)) => (numbers, Some(pre)),
        None => (text, None),
    };
    let is_number = |part: &str| part.chars().all(|c| c.is_ascii_digit()) && part.parse::<u64>().is_ok();
    let fits = |part: &str| !part.chars().all(|c| c.is_ascii_digit()) || part.is_empty() || is_number(part);
    text.len() <= 64
        && numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && pre.is_none_or(|pre| {
            !pre.is_empty()
                && pre.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '.'))
                && pre.split('.').all(fits)
        })
}

fn is_a_name_by_the_rule(text: &str) {
    match ServiceName::parse(text) {
        Ok(name) => {
            assert!(is_name(text), "{text:?} is taken for a name");
            assert_eq!((name.as_str(), name.to_string().as_str()), (text, text));
        }
        Err(error) => {
            assert!(!is_name(text), "{text:?} is not taken for a name: {error}");
            if let NameError::Character { offset, byte } = error {
                assert_eq!(text.as_bytes()[offset], byte);
                assert!(is_name(&text[..offset]) || offset == 0, "it is the first wrong byte");
            }
        }
    }
    assert_eq!(ServiceName::check(text), ServiceName::parse(text).map(drop));
    assert_eq!(InstanceName::check(text), ServiceName::check(text), "there is one rule for both");
}

fn is_a_version_by_the_rule(text: &str) {
    match Version::parse(text) {
        Ok(version) => {
            assert!(is_version(text), "{text:?} is taken for a version");
            let printed = version.to_string();
            assert!(printed.len() <= text.len() && is_version(&printed));
            assert_eq!(
                Version::parse(&printed).as_ref(),
                Ok(&version),
                "what is printed is the same version"
            );
            assert_eq!(Version::parse(&printed).map(|again| again.to_string()), Ok(printed));
            let numbers = text.split(['.', '-']).take(3).map(|number| number.parse::<u64>().unwrap());
            assert!(numbers.eq([version.numbers().0, version.numbers().1, version.numbers().2]));
        }
        Err(error) => {
            assert!(!is_version(text), "{text:?} is not taken for a version: {error}");
            assert_eq!(text.len() > 64, matches!(error, VersionError::TooLong { .. }));
        }
    }
}

/// The order of <https://semver.org/#spec-item-11>, over the printed form.
fn semver_order(left: &Version, right: &Version) -> Ordering {
    let identifiers = |version: &Version| -> Vec<Result<u64, String>> {
        let parts = version.pre_release().split('.');
        // A number sorts below a text, as `Ok` does below `Err`.
        parts.map(|part| part.parse().map_err(|_| part.to_owned())).collect()
    };
    let pre_releases = match (left.pre_release(), right.pre_release()) {
        ("", "") => Ordering::Equal,
        ("", _) => Ordering::Greater,
        (_, "") => Ordering::Less,
        _ => identifiers(left).cmp(&identifiers(right)),
    };
    left.numbers().cmp(&right.numbers()).then(pre_releases)
}

fn are_in_semver_order(left: &Version, right: &Version) {
    assert_eq!(left.cmp(right), semver_order(left, right), "{left} and {right}");
    assert_eq!(left.cmp(right), right.cmp(left).reverse());
    assert_eq!(left == right, left.to_string() == right.to_string());
    assert_eq!(left == right, left.cmp(right) == Ordering::Equal);
}

fn is_an_instance_by_the_rule(text: &str) {
    let expected = text == "shared"
        || text.strip_prefix("svc:").is_some_and(is_name)
        || text.strip_prefix("inst:").is_some_and(is_name);
    let user = UserHash::from_identity(text);
    match text.parse::<BrokerInstance>() {
        Ok(instance) => {
            assert!(expected, "{text:?} is taken for an instance");
            assert_eq!(instance.to_string(), text);
            let leaf = leaf(&user, &instance);
            assert_eq!(instance_of_leaf(&user, &leaf).as_ref(), Some(&instance));
            has_an_endpoint_of_bounded_length(&leaf);
        }
        Err(error) => assert!(!expected, "{text:?} is not taken for an instance: {error}"),
    }
    assert_eq!(user, UserHash::from_identity(text.trim()), "white space around an identity does not count");
    assert_eq!(instance_of_leaf(&user, &backend_leaf(&user, [7; 16])), None, "a backend is no broker");
    if let Some(instance) = instance_of_leaf(&user, text) {
        assert_eq!(leaf(&user, &instance), text);
    }
}

fn has_an_endpoint_of_bounded_length(leaf: &str) {
    let places = RuntimePlaces {
        uid: 1000,
        xdg_runtime_dir: Some("/run/user/1000".into()),
        tmpdir: Some("/var/folders/ab".into()),
        local_app_data: Some(r"C:\Users\u\AppData\Local".into()),
    };
    for platform in [Platform::Linux, Platform::MacOs, Platform::Windows] {
        if let Ok(path) = socket_path(platform, leaf, &places) {
            assert!(check_length(platform, &path).is_ok());
            let is_pipe = platform == Platform::Windows;
            assert_eq!(path == Path::new(leaf), is_pipe, "{} names it", path.display());
        }
    }
}

fn is_a_pipe_with_or_without_its_prefix(text: &str) {
    let leaf = pipe_leaf(text);
    assert!(text.ends_with(leaf));
    assert_eq!(pipe_leaf(&pipe_name(text)), leaf, "both ways to write it are one pipe");
}

/// Each kind of text, and each way to break its rule.
pub fn seeds() -> Vec<Seed> {
    vec![
        seed("name", "build-cache\ncache-2"),
        seed("longest-name", "n".repeat(64)),
        seed("name-that-is-too-long", "n".repeat(65)),
        seed("upper-case", "Cache"),
        seed("not-ascii", "cäche\n-"),
        seed("versions", "1.2.3\n1.10.0"),
        seed("pre-releases", "1.0.0-alpha.1\n1.0.0-alpha.beta"),
        seed("release-and-pre-release", "1.0.0\n1.0.0-rc.1"),
        seed("numbers-in-pre-releases", "1.0.0-rc.2\n1.0.0-rc.11"),
        seed("leading-zeros", "01.002.3-rc.007\n1.2.3-rc.7"),
        seed("empty-identifiers", "1.0.0-a..b\n1.0.0-."),
        seed("largest-number", "18446744073709551615.0.0\n0.0.0-18446744073709551615"),
        seed("overflow", "18446744073709551616.0.0\n0.0.0-18446744073709551616"),
        seed("longest-version", format!("1.2.3-{}\n1.2.3-{}", "a".repeat(58), "a".repeat(59))),
        seed("instances", "shared\nsvc:cache"),
        seed("named-instance", "inst:ci-1\nrpb-v1-af1349b9f5f9a1a6-inst-ci-1"),
        seed("leaf-of-nobody", "\nrpb-v1-af1349b9f5f9a1a6-shared"),
        seed("pipes", "\\\\.\\pipe\\leaf\n\\\\.\\PIPE\\\\\\.\\pipe\\x"),
    ]
}
