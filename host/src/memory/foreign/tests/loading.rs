//! What is refused before anything runs.

use super::*;

fn load(bytes: &[u8]) -> Result<Importer, ForeignError> {
    Importer::from_bytes(bytes, short())
}

fn refused(bytes: &[u8]) -> ForeignError {
    load(bytes).unwrap_err()
}

#[test]
fn imports_beyond_the_folder_are_named() {
    let text = r#"(component
        (import "wasi:http/outgoing-handler@0.2.0" (instance))
        (import "wasi:filesystem/types@0.2.0" (instance))
        (import "run-command" (func)))"#;
    let error = refused(&wat::parse_str(text).unwrap());
    let ForeignError::Imports { names } = &error else { panic!("{error:?}") };
    assert_eq!(names, &["wasi:http/outgoing-handler@0.2.0", "run-command"]);
    assert!(error.to_string().contains("run-command"), "{error}");
}

#[test]
fn what_is_no_importer_is_refused() {
    assert!(matches!(refused(b"hello"), ForeignError::NotComponent { .. }));
    assert!(matches!(refused(b""), ForeignError::NotComponent { .. }));
    let core = refused(&wat::parse_str("(module)").unwrap());
    assert!(core.to_string().contains("a module and not a component"), "{core}");
    let empty = refused(&wat::parse_str("(component)").unwrap());
    assert!(matches!(&empty, ForeignError::World { reason } if reason.contains("describe")), "{empty:?}");
    let wrong = r#"(component
        (core module $m (func (export "f")))
        (core instance $i (instantiate $m))
        (func (export "describe") (canon lift (core func $i "f"))))"#;
    assert!(matches!(refused(&wat::parse_str(wrong).unwrap()), ForeignError::World { .. }));
    let small = Limits { component: 1000, ..short() };
    let error = Importer::from_bytes(&built("hostile.wasm"), small.clone()).unwrap_err();
    assert!(matches!(error, ForeignError::Large { most: 1000 }));
    let path = Path::new(DIST).join("hostile.wasm");
    assert!(matches!(Importer::open(&path, small), Err(ForeignError::Large { .. })));
    let missing = Importer::open(Path::new("/nowhere/x.wasm"), short()).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/x.wasm"), "{missing}");
}

#[test]
fn a_spoilt_component_is_refused_or_contained() {
    let whole = built("chat-export.wasm");
    let folder = Path::new(SOURCES).join("chat-export/fixtures");
    let limits = Limits { fuel: 100_000_000, call: Duration::from_secs(5), ..short() };
    let mut loaded = 0;
    for number in 0..30 {
        let mut bytes = whole.clone();
        // Spread over the file, each time another bit.
        let at = number * (bytes.len() - 1) / 29;
        bytes[at] ^= 1 << (number % 8);
        if let Ok(importer) = Importer::from_bytes(&bytes, limits.clone()) {
            loaded += 1;
            let outcome = Outcome::of(&importer, &folder);
            assert!(outcome.entries.len() <= 1000);
        }
    }
    assert!(loaded < 30);
    // A header alone is a component, of another world.
    assert!(matches!(refused(&whole[..8]), ForeignError::World { .. }));
    for end in [4, 100, whole.len() / 2, whole.len() - 1] {
        assert!(matches!(refused(&whole[..end]), ForeignError::NotComponent { .. }), "cut at {end}");
    }
}

#[test]
fn the_hash_is_the_one_of_the_file() {
    let listed = String::from_utf8(built("HASHES")).unwrap();
    for name in ["hostile.wasm", "chat-export.wasm"] {
        let importer = load(&built(name)).unwrap();
        assert!(listed.contains(&format!("{}  {name}", importer.hash_text())), "{name} in {listed}");
        assert_eq!(importer.agent("x"), format!("x@{}", &importer.hash_text()[..8]));
    }
}
