//! What macOS's answers mean: texts, times, attributes.
//!
//! Pure, without a system call or a type of the system's, so it is tested on other systems, too.
//! Invariant: nothing is guessed; what an answer does not hold is `None`.

/// A UUID as `ioreg` and `uuid_unparse_upper` write it.
pub(crate) fn uuid_text(uuid: &[u8; 16]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(36);
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing into a String does not fail.
        let _ = write!(text, "{byte:02X}");
    }
    text
}

/// The text up to the first NUL, without white space around it; `None` where nothing is left.
pub(crate) fn c_text(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|byte| *byte == 0).next()?;
    let text = std::str::from_utf8(text).ok()?.trim();
    if text.is_empty() { None } else { Some(text.to_owned()) }
}

/// A time in microseconds; `None` for one that no process was started at.
pub(crate) fn start_micros(seconds: u64, micros: u64) -> Option<u64> {
    if seconds == 0 || micros >= 1_000_000 {
        return None;
    }
    seconds.checked_mul(1_000_000)?.checked_add(micros)
}

/// The bit of a quarantine's flags that says that the user has approved of the file.
const USER_APPROVED: u32 = 0x0040;

/// Whether a quarantine attribute (`flags;time;agent;id`, flags in hexadecimal) no longer holds.
pub(crate) fn is_approved(attribute: &[u8]) -> bool {
    let flags = attribute.split(|byte| *byte == b';').next().unwrap_or_default();
    let flags = std::str::from_utf8(flags).ok().and_then(|flags| u32::from_str_radix(flags, 16).ok());
    flags.is_some_and(|flags| flags & USER_APPROVED != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_in_capitals_with_four_hyphens() {
        let uuid = [0x0A, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xAB, 0xCD, 0xEF, 13, 14, 0xFF];
        assert_eq!(uuid_text(&uuid), "0A010203-0405-0607-0809-ABCDEF0D0EFF");
        assert_eq!(uuid_text(&[0; 16]), "00000000-0000-0000-0000-000000000000");
    }

    #[test]
    fn a_text_ends_at_its_first_nul_and_an_empty_one_is_none() {
        assert_eq!(c_text(b"mac.local\0garbage").as_deref(), Some("mac.local"));
        assert_eq!(c_text(b" no nul \n").as_deref(), Some("no nul"));
        for nothing in [&b""[..], b"\0", b" \0x", b"\xFF\0"] {
            assert_eq!(c_text(nothing), None);
        }
    }

    #[test]
    fn a_start_time_counts_microseconds_and_is_never_made_up() {
        assert_eq!(start_micros(1_700_000_000, 999_999), Some(1_700_000_000_999_999));
        assert_eq!(start_micros(1, 0), Some(1_000_000));
        assert_eq!(start_micros(0, 5), None);
        assert_eq!(start_micros(1, 1_000_000), None);
        assert_eq!(start_micros(u64::MAX, 0), None);
    }

    #[test]
    fn only_the_users_approval_ends_a_quarantine() {
        for held in [&b"0081;5f8e7a1c;Safari;1234"[..], b"0001;;;", b"0181", b"", b";", b"words;00c1"] {
            assert!(!is_approved(held), "{held:?}");
        }
        for approved in [&b"00c1;5f8e7a1c;Safari;1234"[..], b"0040", b"01e3;x"] {
            assert!(is_approved(approved), "{approved:?}");
        }
    }
}
