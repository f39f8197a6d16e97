//! Payloads that ask about the process instead of being echoed.
//!
//! | payload | answer |
//! |---|---|
//! | `?pid` | the process id |
//! | `?cwd` | the working directory |
//! | `?env NAME` | the variable's value; empty where it is not set |
//! | `?fds` | the numbers of the open descriptors, ascending, with commas (Linux) |
//! | `?trace` | the request's `traceparent` |
//! | `?exit N` | none: the process ends with status N |
//!
//! Invariant: everything else is echoed, also what only looks like one of these.

use std::fs;
use std::path::Path;

use broker_backend::bytes::Bytes;
use broker_backend::{Handler, Request, Response};

/// The whole service.
pub(crate) struct Echo;

impl Handler for Echo {
    async fn handle(&self, request: Request) -> Response {
        if request.payload().as_ref() == b"?trace" {
            return request.traceparent().to_owned().into();
        }
        match command(request.payload()) {
            Some(answer) => answer.into(),
            None => request.into_payload().into(),
        }
    }

    /// It holds nothing open, but pretends to for one path.
    async fn release_handles(&self, path: &Path) -> Result<(), String> {
        if path.ends_with("held") { Err(format!("{} is in use", path.display())) } else { Ok(()) }
    }
}

fn command(payload: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(payload).ok()?;
    let answer = match text.split_once(' ') {
        None if text == "?pid" => std::process::id().to_string().into(),
        None if text == "?cwd" => std::env::current_dir().ok()?.into_os_string().into_encoded_bytes().into(),
        None if text == "?fds" => descriptors()?.into(),
        Some(("?env", name)) => std::env::var_os(name).unwrap_or_default().into_encoded_bytes().into(),
        Some(("?exit", status)) => std::process::exit(status.parse().ok()?),
        _ => return None,
    };
    Some(answer)
}

fn descriptors() -> Option<String> {
    let listed = fs::read_dir("/proc/self/fd").ok()?.flatten();
    let mut numbers: Vec<u32> = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // The listing had a descriptor of its own, which is closed by now.
    numbers.retain(|number| fs::read_link(format!("/proc/self/fd/{number}")).is_ok());
    numbers.sort_unstable();
    let texts: Vec<String> = numbers.iter().map(u32::to_string).collect();
    Some(texts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(payload: &str) -> Option<String> {
        command(payload.as_bytes()).map(|answer| String::from_utf8(answer.to_vec()).unwrap())
    }

    #[test]
    fn questions_about_the_process_are_answered() {
        assert_eq!(answer_to("?pid").unwrap(), std::process::id().to_string());
        assert_eq!(answer_to("?cwd").unwrap(), std::env::current_dir().unwrap().to_str().unwrap());
        assert_eq!(answer_to("?env PATH").unwrap(), std::env::var("PATH").unwrap());
        assert_eq!(answer_to("?env NO_SUCH_VARIABLE").unwrap(), "");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn open_descriptors_are_counted_without_the_one_that_counts() {
        let before = answer_to("?fds").unwrap();
        assert!(before.starts_with("0,1,2"), "{before}");
        let file = fs::File::open("/dev/null").unwrap();
        let with_one_more = answer_to("?fds").unwrap();
        drop(file);
        assert_eq!(with_one_more.split(',').count(), before.split(',').count() + 1);
    }

    #[test]
    fn what_only_looks_like_a_question_is_echoed() {
        for payload in ["", "?", "?pid ", "?pids", "?env", "?exit", "?exit now", "pid"] {
            assert_eq!(answer_to(payload), None, "{payload}");
        }
        assert_eq!(command(&[0xFF, b'?']), None);
    }
}
