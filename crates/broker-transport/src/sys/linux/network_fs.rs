//! Telling network file systems by their magic number (statfs(2), linux/magic.h).

use std::io;
use std::path::Path;

/// The name of the network file system that `path` lies on; `None` for a local one.
pub(crate) fn network_filesystem(path: &Path) -> io::Result<Option<&'static str>> {
    // The number has 32 bits; as a signed word it may come sign-extended.
    Ok(name_of(rustix::fs::statfs(path)?.f_type as u32))
}

fn name_of(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517B => "SMB",
        0xFE53_4D42 => "SMB2",
        0xFF53_4D42 => "CIFS",
        0x5346_414F | 0x6B41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x564C => "NCP",
        0x0102_1997 => "9P",
        0x00C3_6400 => "Ceph",
        0x0BD0_0BD0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x0116_1970 => "GFS2",
        0x7461_636F => "OCFS2",
        0xAAD7_AAEA => "PanFS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_named_and_local_ones_are_not() {
        assert_eq!(name_of(0x6969), Some("NFS"));
        assert_eq!(name_of(0xFF53_4D42), Some("CIFS"));
        for local in [0xEF53, 0x0102_1994, 0x9123_683E, 0x5846_5342, 0x794C_7630, 0x6573_5546] {
            assert_eq!(name_of(local), None, "{local:#x}");
        }
    }

    #[test]
    fn proc_is_local_and_a_missing_path_is_an_error() {
        assert_eq!(network_filesystem(Path::new("/proc")).unwrap(), None);
        assert_eq!(network_filesystem(Path::new("/absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
