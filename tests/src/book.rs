//! The Rust in the book's pages, compiled and run as doc tests.

macro_rules! page {
    ($name:ident, $file:literal) => {
        #[doc = include_str!(concat!("../../", $file))]
        struct $name;
    };
}

page!(Readme, "README.md");
page!(IntegrateAClient, "docs/integrate-a-client.md");
page!(IntegrateABackend, "docs/integrate-a-backend.md");
