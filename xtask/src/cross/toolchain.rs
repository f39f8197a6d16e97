//! The system's own cargo and rustc.
//!
//! Nothing of the toolchain that runs this task reaches them: what rustup and cargo set for their children is
//! taken away, and they write into a directory of their own.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::workspace::root;

/// Of what cargo reads, what a person may have set for all their builds. All else that begins like this was set
/// for the toolchain that runs us.
const KEPT: [&str; 6] =
    ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_TERM_"];

/// How the names of variables begin that would choose another compiler, other flags or another place.
const LEAKING: [&str; 7] = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_", "NEXTEST", "DYLD_"];

/// Such variables by their whole names.
const LEAKING_NAMES: [&str; 5] = ["LD_LIBRARY_PATH", "AR", "CC", "CFLAGS", "TARGET_CC"];

/// A cargo and a rustc that belong together.
pub(super) struct Toolchain {
    pub(super) cargo: PathBuf,
    pub(super) rustc: PathBuf,
    target_dir: PathBuf,
}

impl Toolchain {
    /// The one of the system's packages, unless the environment names another.
    pub(super) fn from_env() -> Self {
        let named =
            |variable, default: &str| env::var_os(variable).map_or_else(|| default.into(), PathBuf::from);
        Self::at(named("BROKER_CROSS_CARGO", "/usr/bin/cargo"), named("BROKER_CROSS_RUSTC", "/usr/bin/rustc"))
    }

    /// The one at these places.
    pub(super) fn at(cargo: PathBuf, rustc: PathBuf) -> Self {
        Self { cargo, rustc, target_dir: root().join("target/cross") }
    }

    /// Where it writes.
    pub(super) fn target_dir(&self) -> &Path {
        &self.target_dir
    }

    /// Where the standard library's sources lie, if rustc tells its sysroot.
    pub(super) fn library(&self) -> Option<PathBuf> {
        let output = self.clean(&self.rustc).args(["--print", "sysroot"]).output().ok()?;
        let sysroot = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        Some(Path::new(sysroot.trim_end()).join("lib/rustlib/src/rust/library"))
    }

    /// Its cargo, which builds the standard library for each target.
    pub(super) fn cargo(&self) -> Command {
        let mut command = self.clean(&self.cargo);
        command
            .env("RUSTC", &self.rustc)
            .env("CARGO_TARGET_DIR", &self.target_dir)
            // The only way to a standard library for targets that the system has no package of.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort")
            .current_dir(root());
        command
    }

    /// Whether its cargo finds a command.
    pub(super) fn has(&self, subcommand: &str) -> bool {
        works(self.cargo().args([subcommand, "--version"]))
    }

    /// A program of it, without what would lead it to another.
    pub(super) fn clean(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os().filter(|(name, _)| leaks(name)) {
            command.env_remove(name);
        }
        command.env("PATH", self.path(env::var_os("PATH").as_deref()));
        command
    }

    /// The search path: first where the toolchain lies, so that no other's programs are found in its place.
    fn path(&self, rest: Option<&OsStr>) -> OsString {
        let own = [&self.rustc, &self.cargo].into_iter().filter_map(|program| program.parent());
        let rest = rest.map(env::split_paths).into_iter().flatten();
        env::join_paths(own.map(Path::to_path_buf).chain(rest)).unwrap_or_default()
    }
}

fn leaks(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let begins = |beginnings: &[&str]| beginnings.iter().any(|beginning| name.starts_with(beginning));
    LEAKING_NAMES.contains(&name) || begins(&LEAKING) && !begins(&KEPT)
}

/// Whether a program can be run and is content.
pub(super) fn works(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolchain() -> Toolchain {
        Toolchain::at("/a/cargo".into(), "/b/rustc".into())
    }

    #[test]
    fn what_cargo_and_rustup_set_for_their_children_does_not_reach_it() {
        for name in [
            "CARGO",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MANIFEST_DIR",
            "CARGO_TARGET_DIR",
            "LD_LIBRARY_PATH",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(leaks(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn what_a_person_sets_for_all_their_builds_does() {
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "HOME", "PATH", "RUST_BACKTRACE", "https_proxy"] {
            assert!(!leaks(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn its_own_programs_are_found_before_all_others() {
        let path = toolchain().path(Some("/c:/d".as_ref()));
        let places: Vec<_> = env::split_paths(&path).collect();
        assert_eq!(places, ["/b", "/a", "/c", "/d"].map(PathBuf::from));
    }

    #[test]
    fn its_cargo_uses_its_rustc_and_its_own_directory() {
        let command = toolchain().cargo();
        let set =
            |name: &str| command.get_envs().find(|(known, _)| *known == name).and_then(|(_, value)| value);
        assert_eq!(set("RUSTC"), Some("/b/rustc".as_ref()));
        assert_eq!(set("CARGO_TARGET_DIR"), Some(root().join("target/cross").as_os_str()));
        // The test itself runs under cargo, which sets this one.
        assert!(command.get_envs().any(|(name, value)| name == "CARGO_MANIFEST_DIR" && value.is_none()));
    }
}
