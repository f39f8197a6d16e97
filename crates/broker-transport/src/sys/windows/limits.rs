//! Handles in place of descriptors; inodes do not exist.
//!
//! Invariant: the limit is the system's and never moves.

use std::io;
use std::path::Path;
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::{
    ERROR_COMMITMENT_LIMIT, ERROR_NO_SYSTEM_RESOURCES, ERROR_NOT_ENOUGH_MEMORY, ERROR_NOT_ENOUGH_QUOTA,
    ERROR_TOO_MANY_OPEN_FILES,
};
use windows_sys::Win32::Storage::FileSystem::GetDiskFreeSpaceExW;
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessHandleCount};

use super::calls::{done, wide_path};
use super::unsupported;
use crate::limits::{DescriptorLimits, DescriptorUsage, InodeUsage, Space};

/// Most handles that one process can have.
const MOST_HANDLES: u64 = 1 << 24;

pub(crate) fn descriptor_usage() -> io::Result<DescriptorUsage> {
    let mut open = 0;
    // SAFETY: the pseudo handle of this process is always valid, and the number is written to.
    done(unsafe { GetProcessHandleCount(GetCurrentProcess(), &raw mut open) })?;
    Ok(DescriptorUsage { open: open.into(), limit: MOST_HANDLES })
}

/// There is nothing to raise.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    Ok(MOST_HANDLES)
}

/// Handles run out with the memory that the kernel keeps them in, long before there are as many as there may be.
pub(crate) fn is_descriptor_shortage(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(i32::cast_unsigned);
    matches!(
        code,
        Some(
            ERROR_TOO_MANY_OPEN_FILES
                | ERROR_NO_SYSTEM_RESOURCES
                | ERROR_NOT_ENOUGH_QUOTA
                | ERROR_NOT_ENOUGH_MEMORY
                | ERROR_COMMITMENT_LIMIT
        )
    )
}

pub(crate) fn inode_usage(_path: &Path) -> io::Result<InodeUsage> {
    unsupported("counting inodes")
}

pub(crate) const fn descriptor_limits() -> DescriptorLimits {
    DescriptorLimits { soft: MOST_HANDLES, hard: MOST_HANDLES }
}

/// A volume that is read-only says so when it is written to.
pub(crate) fn space(path: &Path) -> io::Result<Space> {
    let path = wide_path(path)?;
    let (mut available, mut total) = (0, 0);
    // SAFETY: the path ends with NUL, and the numbers are written to.
    done(unsafe { GetDiskFreeSpaceExW(path.as_ptr(), &raw mut available, &raw mut total, null_mut()) })?;
    Ok(Space { available, total, read_only: false, no_execution: false })
}

#[cfg(test)]
mod tests {
    use super::super::is_wine;
    use super::*;

    #[test]
    fn running_out_of_what_handles_are_made_of_is_a_shortage() {
        for (code, expected) in [(4, true), (1450, true), (1816, true), (2, false), (5, false)] {
            assert_eq!(is_descriptor_shortage(&io::Error::from_raw_os_error(code)), expected, "{code}");
        }
        assert!(!is_descriptor_shortage(&io::ErrorKind::NotFound.into()));
    }

    #[test]
    fn a_file_that_is_opened_is_one_handle_more() {
        if is_wine() {
            eprintln!("not tested: Wine counts no handles (GetProcessHandleCount says 0)");
            return;
        }
        // Other tests open and close handles meanwhile; so many they do not.
        let before = descriptor_usage().unwrap().open;
        let _files: Vec<_> = (0..1000).map(|_| std::fs::File::open("NUL").unwrap()).collect();
        assert!(descriptor_usage().unwrap().open >= before + 500);
    }

    #[test]
    fn the_limit_is_far_away_and_files_are_not_counted() {
        let usage = descriptor_usage().unwrap();
        assert!(usage.open < usage.limit);
        assert_eq!(raise_descriptor_limit().unwrap(), usage.limit);
        assert_eq!(inode_usage(Path::new(r"C:\")).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
