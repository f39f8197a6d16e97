//! The parts of an archive (behaviour.md 7), and the report.

/// One file in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Status,
    Dump,
    Config,
    Metrics,
    Events,
    Manifests,
    Processes,
    System,
    Report,
}

impl Part {
    /// In the order in which they are in the archive.
    pub(super) const ALL: [Self; 9] = [
        Self::Status,
        Self::Dump,
        Self::Config,
        Self::Metrics,
        Self::Events,
        Self::Manifests,
        Self::Processes,
        Self::System,
        Self::Report,
    ];

    /// What it is called in the archive.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Status => "admin/status.json",
            Self::Dump => "admin/dump.json",
            Self::Config => "config/effective.json",
            Self::Metrics => "metrics/openmetrics.txt",
            Self::Events => "events/lifecycle.jsonl",
            Self::Manifests => "manifest/backend-manifests.json",
            Self::Processes => "process/backends.json",
            Self::System => "system/summary.json",
            Self::Report => "report.html",
        }
    }

    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Status | Self::Dump | Self::Config | Self::Manifests | Self::Processes | Self::System => {
                "json"
            }
            Self::Metrics => "openmetrics",
            Self::Events => "jsonl",
            Self::Report => "html",
        }
    }

    /// Where it comes from.
    pub(super) const fn source(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Dump => "dump",
            Self::Config => "effective-config",
            Self::Metrics => "metrics",
            Self::Events => "lifecycle-events",
            Self::Manifests => "backend-manifest-index",
            Self::Processes => "backend-table",
            Self::System => "host-summary",
            Self::Report => "report",
        }
    }

    /// Whether it is in every archive: the broker has it in memory. What is read from a disk may not be there.
    pub(super) const fn is_required(self) -> bool {
        match self {
            Self::Status | Self::Dump | Self::Config | Self::Metrics | Self::Processes | Self::Report => true,
            Self::Events | Self::Manifests | Self::System => false,
        }
    }
}
