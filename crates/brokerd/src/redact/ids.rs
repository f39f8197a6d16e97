//! Ids of users and groups, which become hashes.
//!
//! The hash is that of the broker's own endpoints (protocol.md, "Names and places"): with the id of the machine in
//! it, which nothing that is redacted may tell, nobody elsewhere finds the id by trying all of them. Who has two
//! archives of a machine sees that a user is the same.

use broker_transport::endpoint::UserHash;
use broker_transport::identity;

/// Names under which a JSON value is the id of a user or group, in lower case.
const NAMES: [&str; 9] = ["uid", "gid", "euid", "egid", "user_id", "group_id", "owner", "windows_sid", "sid"];
/// Paths that end with an id.
const PATHS: [&str; 3] = ["/run/user/", "/running-process-", "/.rp-"];
/// Words that an id stands behind in a sentence, in lower case.
const WORDS: [&str; 6] = ["uid", "gid", "euid", "egid", "user", "group"];
/// How the SIDs of a domain's, a machine's or a cloud's accounts begin; the others are the same everywhere.
const SIDS: [&str; 2] = ["S-1-5-21-", "S-1-12-1-"];

/// Ids as hashes.
#[derive(Debug)]
pub(super) struct StableIds {
    machine: String,
}

impl StableIds {
    pub(super) fn new(machine: &str) -> Self {
        Self { machine: machine.to_owned() }
    }

    pub(super) fn of_this_machine() -> Self {
        let machine = identity::machine_id().unwrap_or_else(|| {
            let boot = identity::boot_id().unwrap_or_default();
            format!("boot:{boot}")
        });
        Self::new(&machine)
    }

    /// What an id becomes.
    pub(super) fn hash(&self, id: &str) -> String {
        let identity = if is_sid(id) { id.to_owned() } else { format!("{id}:{}", self.machine) };
        format!("id-{}", UserHash::from_identity(&identity))
    }

    /// Puts hashes in the place of ids, and tells how many.
    pub(super) fn take_out(&self, text: &str) -> (String, u64) {
        let mut out = String::with_capacity(text.len());
        let (mut rest, mut count) = (text, 0);
        while let Some(at) = rest.find(|character: char| character.is_ascii_digit() || character == 'S') {
            let (head, tail) = rest.split_at(at);
            out.push_str(head);
            let length = if is_sid(tail) { sid_length(tail) } else { digits(tail) };
            let (word, behind) = tail.split_at(length.max(1));
            let is_one =
                length > 0 && !out.ends_with(is_part) && (is_sid(tail) || stands_behind_a_name(&out));
            let is_whole = !behind.starts_with(is_letter);
            if is_one && is_whole {
                out.push_str(&self.hash(word));
                count += 1;
            } else {
                out.push_str(word);
            }
            rest = behind;
        }
        out.push_str(rest);
        (out, count)
    }
}

/// Whether a JSON value of this name is an id.
pub(super) fn is_named(key: &str) -> bool {
    NAMES.iter().any(|name| key.eq_ignore_ascii_case(name))
}

/// Whether a text is nothing but an id.
pub(super) fn is_id(text: &str) -> bool {
    !text.is_empty() && (digits(text) == text.len() || (is_sid(text) && sid_length(text) == text.len()))
}

fn is_sid(text: &str) -> bool {
    SIDS.iter().any(|begin| text.starts_with(begin))
}

fn sid_length(text: &str) -> usize {
    let end = text[1..].find(|character: char| !character.is_ascii_digit() && character != '-');
    end.map_or(text.len(), |end| end + 1)
}

fn digits(text: &str) -> usize {
    text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len())
}

const fn is_letter(character: char) -> bool {
    character.is_ascii_alphabetic()
}

const fn is_part(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '.'
}

fn stands_behind_a_name(text: &str) -> bool {
    let sentence = text.trim_end_matches(['=', ':', ' ']);
    let word = sentence.rsplit(|character: char| !character.is_alphanumeric()).next().unwrap_or_default();
    let is_apart = sentence.len() < text.len();
    let is_word = is_apart && WORDS.iter().any(|known| word.eq_ignore_ascii_case(known));
    is_word || PATHS.iter().any(|path| text.ends_with(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_hashes_where_a_name_says_that_they_are_ids() {
        let ids = StableIds::new("m");
        let hash = ids.hash("1000");
        for (text, expected) in [
            ("/run/user/1000/x.sock", format!("/run/user/{hash}/x.sock")),
            ("/tmp/running-process-1000/broker", format!("/tmp/running-process-{hash}/broker")),
            ("uid=1000 gid=1000", format!("uid={hash} gid={hash}")),
            ("Uid: 1000, euid 1000", format!("Uid: {hash}, euid {hash}")),
            ("it belongs to user 1000.", format!("it belongs to user {hash}.")),
        ] {
            assert_eq!(ids.take_out(text).0, expected);
            assert_eq!(ids.take_out(&expected), (expected.clone(), 0), "once more changes nothing");
        }
        assert_eq!(ids.take_out("uid=1000 gid=1000").1, 2);
        let sid = "S-1-5-21-1-2-3-1001";
        assert_eq!(
            ids.take_out(&format!("for {sid}, S-1-5-18")).0,
            format!("for {}, S-1-5-18", ids.hash(sid))
        );
        for text in ["port 1000", "superuser 10", "/run/user/1000x", "1.2.3", "", "S", "Süß 1"] {
            assert_eq!(ids.take_out(text), (text.to_owned(), 0));
        }
    }

    #[test]
    fn the_hash_is_that_of_the_broker_s_endpoints_and_differs_between_machines() {
        assert_eq!(StableIds::new("m").hash("7"), format!("id-{}", UserHash::from_identity("7:m")));
        assert_ne!(StableIds::new("m").hash("7"), StableIds::new("n").hash("7"));
        assert_ne!(StableIds::new("m").hash("7"), StableIds::new("m").hash("8"));
    }
}
