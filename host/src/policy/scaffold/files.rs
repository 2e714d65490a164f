//! The files of a new policy, as they are in the house when the node is built.

use super::Kind;

/// A file of the house by its path from there.
macro_rules! house {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../", $path))
    };
}

/// The WIT package of policies: name and text of each file.
pub(super) const WIT: [(&str, &str); 6] = [
    ("about.wit", house!("wit/policy/about.wit")),
    ("pricing.wit", house!("wit/policy/pricing.wit")),
    ("routing.wit", house!("wit/policy/routing.wit")),
    ("slashing.wit", house!("wit/policy/slashing.wit")),
    ("types.wit", house!("wit/policy/types.wit")),
    ("worlds.wit", house!("wit/policy/worlds.wit")),
];

/// The SDK: path in its crate and text of each file.
const SDK: [(&str, &str); 10] = [
    ("Cargo.toml", house!("plugins/sdk/Cargo.toml")),
    ("src/expected.rs", house!("plugins/sdk/src/expected.rs")),
    ("src/fixed.rs", house!("plugins/sdk/src/fixed.rs")),
    ("src/golden.rs", house!("plugins/sdk/src/golden.rs")),
    ("src/hash.rs", house!("plugins/sdk/src/hash.rs")),
    ("src/lib.rs", house!("plugins/sdk/src/lib.rs")),
    ("src/runtime.rs", house!("plugins/sdk/src/runtime.rs")),
    ("src/sample.rs", house!("plugins/sdk/src/sample.rs")),
    ("src/tariff.rs", house!("plugins/sdk/src/tariff.rs")),
    ("src/words.rs", house!("plugins/sdk/src/words.rs")),
];

/// What the author of a policy works with.
pub(super) const YOURS: [&str; 4] = ["src/lib.rs", "golden.json", "Cargo.toml", "README.md"];

/// All files of a new policy: path from its folder, and text.
pub(super) fn of(name: &str, kind: Kind) -> Vec<(String, String)> {
    let (rule, golden) = match kind {
        Kind::Routing => (house!("plugins/template/routing.rs"), house!("plugins/template/routing.json")),
        Kind::Pricing => (house!("plugins/template/pricing.rs"), house!("plugins/template/pricing.json")),
        Kind::Slashing => (house!("plugins/template/slashing.rs"), house!("plugins/template/slashing.json")),
    };
    let fill = |text: &str| {
        text.replace("{{name}}", name).replace("{{Name}}", &camel(name)).replace("{{kind}}", kind.as_str())
    };
    let mut files = vec![
        ("Cargo.toml".to_owned(), fill(house!("plugins/template/Cargo.toml"))),
        // The versions that this node's own policies are built with.
        ("Cargo.lock".to_owned(), house!("plugins/Cargo.lock").to_owned()),
        ("README.md".to_owned(), fill(house!("plugins/template/README.md"))),
        (".gitignore".to_owned(), "/target\n".to_owned()),
        ("src/lib.rs".to_owned(), fill(rule)),
        ("golden.json".to_owned(), golden.to_owned()),
    ];
    files.extend(WIT.iter().map(|(file, text)| (format!("wit/policy/{file}"), (*text).to_owned())));
    files
        .extend(SDK.iter().map(|(file, text)| (format!("vendor/potluck-policy/{file}"), (*text).to_owned())));
    files
}

/// `nearest-first` as `NearestFirst`.
fn camel(name: &str) -> String {
    let word = |word: &str| {
        let mut chars = word.chars();
        chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
    };
    name.split('-').map(word).collect()
}
