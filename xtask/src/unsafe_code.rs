//! The inventory of unsafe code: `docs/unsafe.md`, written from the sources.
//!
//! It is checked in so that a review sees when it grows. Where unsafe code may stand is `layering`'s to check, and
//! that each block says why it is sound is clippy's. Invariant: what the file says is what the sources hold.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::workspace::{TaskError, TaskResult, root, rust_files};

/// Where the inventory lies.
const INVENTORY: &str = "docs/unsafe.md";

/// What is searched. The tasks themselves forbid it.
const FOLDERS: [&str; 4] = ["crates", "examples", "tests", "benches"];

const HEAD: &str = "\
# Where the code is unsafe

Written by `cargo xtask unsafe` and checked by `cargo xtask ci`: a block more or less shows in every review. Each
block says in a `// SAFETY:` comment why it is sound, which clippy insists on. In the libraries and the daemon there
is none outside of `broker-transport/src/sys`.

| file | blocks | functions | implementations | what the file is for |
|---|---:|---:|---:|---|
";

/// Writes the inventory.
pub(crate) fn write() -> TaskResult {
    Ok(fs::write(root().join(INVENTORY), inventory(&root())?)?)
}

/// Fails where the inventory is not what the sources hold.
pub(crate) fn check() -> TaskResult {
    let path = root().join(INVENTORY);
    if fs::read_to_string(&path).unwrap_or_default() == inventory(&root())? {
        println!("unsafe code: {INVENTORY} is current");
        Ok(())
    } else {
        Err(format!("{INVENTORY} is not current; run `cargo xtask unsafe` and look at what has changed")
            .into())
    }
}

fn inventory(root: &Path) -> Result<String, TaskError> {
    let mut text = HEAD.to_owned();
    let mut sum = Count::default();
    for folder in FOLDERS {
        for file in rust_files(&root.join(folder))? {
            let source = fs::read_to_string(&file)?;
            let count = Count::of(&source);
            if count != Count::default() {
                let name = file.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
                let Count { blocks, functions, implementations } = count;
                let purpose = purpose(&source);
                writeln!(text, "| `{name}` | {blocks} | {functions} | {implementations} | {purpose} |")?;
                sum = sum.plus(count);
            }
        }
    }
    let Count { blocks, functions, implementations } = sum;
    writeln!(text, "| all | {blocks} | {functions} | {implementations} | |")?;
    Ok(text)
}

/// How much of it there is in a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    blocks: usize,
    functions: usize,
    implementations: usize,
}

impl Count {
    fn of(source: &str) -> Self {
        let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
        // As rustfmt writes them.
        code.fold(Self::default(), |count, line| {
            let of = |word: &str| line.matches(word).count();
            count.plus(Self {
                blocks: of("unsafe {"),
                functions: of("unsafe fn ") + of("unsafe extern "),
                implementations: of("unsafe impl"),
            })
        })
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            blocks: self.blocks + other.blocks,
            functions: self.functions + other.functions,
            implementations: self.implementations + other.implementations,
        }
    }
}

/// The first paragraph of a file's own prologue.
fn purpose(source: &str) -> String {
    let prologue = source.lines().map_while(|line| line.strip_prefix("//!"));
    let paragraph: Vec<_> = prologue.map(str::trim).take_while(|line| !line.is_empty()).collect();
    // A link leads nowhere from here, and a bar would end the cell.
    paragraph.join(" ").replace("[`", "`").replace("`]", "`").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
//! Asks the
//! kernel.
//!
//! More on it.

// unsafe { in a comment }
unsafe impl Send for X {}
pub(crate) unsafe fn ask() {
    let a = unsafe { b() } + unsafe { c() };
}
unsafe extern \"C\" fn called() {}
";

    #[test]
    fn blocks_functions_and_implementations_are_counted_and_comments_are_not() {
        assert_eq!(Count::of(SOURCE), Count { blocks: 2, functions: 2, implementations: 1 });
        assert_eq!(purpose(SOURCE), "Asks the kernel.");
    }

    #[test]
    fn one_block_more_makes_another_inventory() {
        let place = tempfile::tempdir().unwrap();
        for folder in FOLDERS {
            fs::create_dir(place.path().join(folder)).unwrap();
        }
        fs::write(place.path().join("crates/a.rs"), SOURCE).unwrap();
        fs::write(place.path().join("tests/safe.rs"), "//! Safe.\nfn f() {}\n").unwrap();
        let before = inventory(place.path()).unwrap();
        assert!(
            before.ends_with("| `crates/a.rs` | 2 | 2 | 1 | Asks the kernel. |\n| all | 2 | 2 | 1 | |\n")
        );
        fs::write(place.path().join("crates/a.rs"), format!("{SOURCE}fn g() {{ unsafe {{ h() }} }}\n"))
            .unwrap();
        assert_ne!(inventory(place.path()).unwrap(), before);
    }
}
