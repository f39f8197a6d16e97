//! Executables: whether a process still runs the file at its path, and whether what a file asks for is there.
//!
//! Invariant: at most [`MAX_HEAD`] bytes are read to know a file's interpreter, whatever they say.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use broker_transport::identity;

/// What Linux puts behind the path of an executable that is no longer there.
const DELETED: &str = " (deleted)";
/// Bytes of a file that are looked at for its interpreter.
const MAX_HEAD: u64 = 64 * 1024;

/// How a process's executable compares with the file at its path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Running {
    /// It is that file, or one with the same content.
    Same(PathBuf),
    /// Another file lies there by now.
    Replaced(PathBuf),
    /// No file lies there any more.
    Removed(PathBuf),
}

/// Compares what a process executes with what lies there now; `None` where that cannot be told.
pub(super) fn running(pid: u32) -> Option<Running> {
    let path = identity::process_executable(pid).ok()?;
    let Some(path) = path.to_str().and_then(|text| text.strip_suffix(DELETED)).map(PathBuf::from) else {
        return Some(Running::Same(path));
    };
    if !path.exists() {
        return Some(Running::Removed(path));
    }
    match (identity::hash_process_executable(pid), identity::hash_executable(&path)) {
        (Ok(old), Ok(new)) if old == new => Some(Running::Same(path)),
        (Ok(_), Ok(_)) => Some(Running::Replaced(path)),
        (Err(_), _) | (_, Err(_)) => None,
    }
}

/// The program that a script or a dynamically linked program needs to run; `None` where it needs none.
pub(super) fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(MAX_HEAD).read_to_end(&mut head).ok()?;
    let named = if head.starts_with(b"#!") { script_interpreter(&head)? } else { elf_interpreter(&head)? };
    Some(PathBuf::from(String::from_utf8_lossy(named).into_owned()))
}

/// Whether a file is run by another program.
pub(super) fn is_script(path: &Path) -> bool {
    let mut head = [0; 2];
    File::open(path).is_ok_and(|mut file| file.read_exact(&mut head).is_ok()) && head == *b"#!"
}

fn script_interpreter(head: &[u8]) -> Option<&[u8]> {
    let line = head[2..].split(|byte| *byte == b'\n').next()?.trim_ascii();
    line.split(u8::is_ascii_whitespace).next().filter(|word| !word.is_empty())
}

/// `PT_INTERP` of a little-endian ELF file of 64 bits (elf(5)).
fn elf_interpreter(head: &[u8]) -> Option<&[u8]> {
    const ELF_64_LITTLE: &[u8] = b"\x7fELF\x02\x01";
    const PT_INTERP: u64 = 3;
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = head.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    if !head.starts_with(ELF_64_LITTLE) {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let header = usize::try_from(table.checked_add(index * size)?).ok()?;
        if number(header, 4)? == PT_INTERP {
            let start = usize::try_from(number(header.checked_add(8)?, 8)?).ok()?;
            let length = usize::try_from(number(header.checked_add(32)?, 8)?).ok()?;
            return head.get(start..start.checked_add(length)?)?.split(|byte| *byte == 0).next();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scripts_interpreter_is_the_first_word_of_its_first_line() {
        let named = |head: &'static str| script_interpreter(head.as_bytes()).map(<[u8]>::to_vec);
        assert_eq!(named("#!/bin/sh\nexit\n"), Some(b"/bin/sh".to_vec()));
        assert_eq!(named("#! /usr/bin/env  python3 -u"), Some(b"/usr/bin/env".to_vec()));
        assert_eq!(named("#!\nx"), None);
        assert_eq!(named("#!"), None);
    }

    #[test]
    fn any_head_cut_off_anywhere_is_read_without_harm() {
        let mut head = b"\x7fELF\x02\x01".to_vec();
        head.resize(120, 0);
        (head[32], head[54], head[56], head[64]) = (64, 56, 1, 3);
        (head[72], head[96]) = (110, 5);
        head[110..114].copy_from_slice(b"/ld\0");
        assert_eq!(elf_interpreter(&head), Some(&b"/ld"[..]));
        for end in 0..head.len() {
            let _ = elf_interpreter(&head[..end]);
        }
        head[32..40].fill(0xFF);
        assert_eq!(elf_interpreter(&head), None);
    }
}
