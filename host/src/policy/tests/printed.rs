//! The interfaces of guests as one text each: a change that guests would notice shows in a review.
//!
//! `POTLUCK_BLESS=1` writes the texts anew. A package that is already in use gets a new version instead.

use std::path::Path;

use wit_component::WitPrinter;
use wit_parser::Resolve;

/// Prints the package in a folder of `wit/`, without the documentation, and compares it with what is kept.
fn compare(package: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolve = Resolve::default();
    let (id, _) = resolve.push_dir(root.join("../wit").join(package)).unwrap();
    let mut printer = WitPrinter::default();
    printer.emit_docs(false);
    printer.print(&resolve, id, &[]).unwrap();
    let printed = printer.output.to_string();
    let kept = root.join("src/policy/tests/wit").join(package).with_extension("wit");
    if std::env::var_os("POTLUCK_BLESS").is_some() {
        std::fs::write(&kept, &printed).unwrap();
    }
    let kept = std::fs::read_to_string(&kept).unwrap();
    for (line, (printed, kept)) in printed.lines().zip(kept.lines()).enumerate() {
        assert_eq!(printed, kept, "line {} of {package}", line + 1);
    }
    assert_eq!(printed.lines().count(), kept.lines().count(), "{package}");
}

#[test]
fn the_interface_of_policies_is_the_one_that_is_promised() {
    compare("policy");
}

#[test]
fn the_interface_of_importers_is_the_one_that_is_promised() {
    compare("importer");
}
