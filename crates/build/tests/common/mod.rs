//! The inputs of which the output is committed.

use stubborn_build::{Backend, Config};

/// A case: its name, which is its directory's, the files, and how they are generated.
pub(crate) type Case = (&'static str, &'static [&'static str], fn(Config) -> Config);

const fn same(config: Config) -> Config {
    config
}

pub(crate) const CASES: &[Case] = &[
    ("bank", &["../../examples/bank/bank.proto"], same),
    ("semantics", &["tests/proto/semantics.proto"], same),
    ("keywords", &["tests/proto/keywords.proto"], same),
    ("helpers", &["tests/proto/helpers.proto"], |c| c.rename("helpers.Helpers/Fmt", "format")),
    ("shapes", &["tests/proto/shapes.proto"], |c| c.btree_map(".").bytes("shapes.Optional.bytes")),
    ("legacy", &["tests/proto/legacy.proto"], same),
    ("deprecated", &["tests/proto/deprecated.proto"], same),
    ("nopackage", &["tests/proto/nopackage.proto"], same),
    ("twins", &["tests/proto/twins/a.proto", "tests/proto/twins/b.proto"], same),
    ("buffa", &["../../examples/bank/bank.proto"], |c| c.backend(Backend::Buffa)),
    ("imports", &["tests/proto/imports/shop/v1/shop.proto"], |c| c.include("tests/proto/imports")),
];

/// How goldens are generated: for the runtime in `compiled/`.
pub(crate) fn config() -> Config {
    Config::new().runtime("crate::runtime").include_file("mod.rs")
}
