//! Whether the packages are there, and how to get them where they are not.
//!
//! Each is tried and not looked up, so that it counts whoever installed it.

use std::path::Path;

use super::toolchain::{Toolchain, works};

/// A package, what of it was tried, and whether that works.
type Tried = (&'static str, String, bool);

/// Says which packages are missing, if any are: those of the type check, and those of the tests where asked for.
pub(super) fn missing(toolchain: &Toolchain, with_tests: bool) -> Option<String> {
    let version = |package, program: &Path| {
        let works = works(toolchain.clean(program).arg("--version"));
        (package, program.display().to_string(), works)
    };
    let library = toolchain.library();
    let mut tried = vec![
        version("cargo-web", &toolchain.cargo),
        version("rustc-web", &toolchain.rustc),
        sources(library.as_deref()),
        // The type check needs it too: dependencies compile C.
        version("gcc-mingw-w64-x86-64", Path::new(super::wine::MINGW)),
    ];
    if with_tests {
        tried.push(version("wine", Path::new("wineserver")));
        tried.push(version("wine64", Path::new("wine")));
    }
    message(&tried)
}

fn sources(library: Option<&Path>) -> Tried {
    let place = library.map_or_else(|| "below rustc's sysroot".to_owned(), |path| path.display().to_string());
    ("rust-web-src", place, library.is_some_and(|library| library.join("std/Cargo.toml").is_file()))
}

fn message(tried: &[Tried]) -> Option<String> {
    let missing: Vec<_> = tried.iter().filter(|(.., works)| !works).collect();
    if missing.is_empty() {
        return None;
    }
    let described: Vec<_> = missing.iter().map(|(package, what, _)| format!("{package} ({what})")).collect();
    let packages: Vec<_> = missing.iter().map(|(package, ..)| *package).collect();
    Some(format!(
        "cross needs what does not work here: {}; get it with `apt-get install --no-install-recommends {}`",
        described.join(", "),
        packages.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_where_everything_works() {
        assert_eq!(message(&[("wine", "wine".into(), true)]), None);
    }

    #[test]
    fn what_does_not_work_is_named_with_the_way_to_get_it() {
        let tried = [
            ("cargo-web", "/a/cargo".into(), false),
            ("rustc-web", "/a/rustc".into(), true),
            ("wine", "wineserver".into(), false),
        ];
        let message = message(&tried).unwrap();
        assert!(message.contains("here: cargo-web (/a/cargo), wine (wineserver);"), "{message}");
        assert!(message.contains("apt-get install --no-install-recommends cargo-web wine`"), "{message}");
    }

    #[test]
    fn a_toolchain_that_is_not_there_is_missing_with_its_sources() {
        let folder = tempfile::tempdir().unwrap();
        let toolchain = Toolchain::at(folder.path().join("cargo"), folder.path().join("rustc"));
        let message = missing(&toolchain, false).unwrap();
        assert!(message.contains("cargo-web rustc-web rust-web-src"), "{message}");
    }
}
