//! `release-handles`: what became of the files that backends hold open.

use serde::Serialize;

use crate::failure::EXIT_REFUSED;

/// What one backend has done.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Release {
    pub(crate) service_version: String,
    pub(crate) pid: Option<u32>,
    pub(crate) released: bool,
    /// Why not.
    pub(crate) detail: String,
}

/// What all backends of a service have done.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReleaseReport {
    pub(crate) service_name: String,
    pub(crate) backends: Vec<Release>,
}

impl ReleaseReport {
    /// 0 where nothing is held open any more.
    pub(crate) fn exit_code(&self) -> u8 {
        if self.backends.iter().all(|backend| backend.released) { 0 } else { EXIT_REFUSED }
    }

    pub(crate) fn to_text(&self) -> String {
        if self.backends.is_empty() {
            return format!("no backend of {} runs\n", self.service_name);
        }
        let line = |backend: &Release| {
            let pid = backend.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
            let outcome = if backend.released { "released" } else { "not released: " };
            format!(
                "{} {} (pid {pid}) {outcome}{}\n",
                self.service_name, backend.service_version, backend.detail
            )
        };
        self.backends.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_backend_that_holds_on_makes_it_a_failure() {
        let backend = |released, detail: &str| Release {
            service_version: "1.2.3".to_owned(),
            pid: Some(7),
            released,
            detail: detail.to_owned(),
        };
        let report = |backends| ReleaseReport { service_name: "cache".to_owned(), backends };
        let good = report(vec![backend(true, "")]);
        assert_eq!((good.exit_code(), good.to_text().as_str()), (0, "cache 1.2.3 (pid 7) released\n"));
        let bad = report(vec![backend(true, ""), backend(false, "in use")]);
        assert_eq!(bad.exit_code(), 1);
        assert!(bad.to_text().ends_with("cache 1.2.3 (pid 7) not released: in use\n"));
        assert_eq!(report(vec![]).to_text(), "no backend of cache runs\n");
    }
}
