//! The home directory, which becomes `~`.

use std::path::Path;

/// What the home directory is called: as the environment says, and what that leads to.
#[derive(Debug)]
pub(super) struct Homes(Vec<String>);

impl Homes {
    pub(super) fn new(home: Option<&str>) -> Self {
        Self::named(home.map(str::to_owned))
    }

    pub(super) fn of_this_user() -> Self {
        let home = std::env::home_dir();
        let real = home.as_deref().and_then(|home| Path::canonicalize(home).ok());
        let text = |path: Option<&Path>| path.and_then(Path::to_str).map(str::to_owned);
        Self::named(text(home.as_deref()).into_iter().chain(text(real.as_deref())))
    }

    fn named(homes: impl IntoIterator<Item = String>) -> Self {
        let homes = homes.into_iter().map(|home| home.trim_end_matches(['/', '\\']).to_owned());
        // Windows understands both kinds of separators.
        let mut homes: Vec<_> = homes
            .flat_map(|home| {
                let home = home.strip_prefix(r"\\?\").map_or(home.clone(), str::to_owned);
                [home.replace('\\', "/"), home]
            })
            .filter(|home| !home.is_empty())
            .collect();
        // The longest first: one may lie in another.
        homes.sort_by_key(|home| std::cmp::Reverse(home.len()));
        homes.dedup();
        Self(homes)
    }

    /// Puts `~` in its place, and tells how often. `/home/ann` is no part of `/home/anna`.
    pub(super) fn take_out(&self, text: &str) -> (String, u64) {
        let (mut text, mut count) = (text.to_owned(), 0);
        for home in &self.0 {
            let mut out = String::with_capacity(text.len());
            let mut rest = &text[..];
            while let Some(at) = rest.find(home.as_str()) {
                let (head, tail) = rest.split_at(at);
                let behind = &tail[home.len()..];
                let is_longer = behind.starts_with(char::is_alphanumeric);
                out.push_str(head);
                out.push_str(if is_longer { home } else { "~" });
                count += u64::from(!is_longer);
                rest = behind;
            }
            out.push_str(rest);
            text = out;
        }
        (text, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(home: &str, text: &str) -> String {
        Homes::new(Some(home)).take_out(text).0
    }

    #[test]
    fn the_home_directory_becomes_a_tilde() {
        assert_eq!(without("/home/u/", "open /home/u/.cache/x\nat /home/u"), "open ~/.cache/x\nat ~");
        assert_eq!(without("/home/u", "/home/u, /home/u-old, /home/under"), "~, ~-old, /home/under");
        assert_eq!(without(r"C:\Users\u", r"C:\Users\u\x and C:/Users/u/y"), r"~\x and ~/y");
        assert_eq!(without("/", "/ stays"), "/ stays");
        assert_eq!(Homes::new(None).take_out("/home/u"), ("/home/u".to_owned(), 0));
    }

    #[test]
    fn a_home_that_lies_in_another_goes_as_a_whole() {
        let homes = Homes::named(["/home/u".to_owned(), "/data/home/u".to_owned()]);
        assert_eq!(homes.take_out("/data/home/u/x /home/u/y"), ("~/x ~/y".to_owned(), 2));
    }
}
