use super::*;

/// A module with the functions that a world's exports need, and nothing else.
fn module(functions: &str) -> Vec<u8> {
    wat::parse_str(format!("(module (memory (export \"memory\") 1) {functions})")).unwrap()
}

fn refused(text: &str) -> String {
    wrap(&wat::parse_str(text).unwrap(), &files::WIT, None).unwrap_err().to_string()
}

const SLASHING: &str = r#"
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
    (func (export "potluck:policy/about@0.1.0#describe") (result i32) unreachable)
    (func (export "potluck:policy/slashing@0.1.0#judge")
        (param i64 i32 i32 i32 i32 i64 i64 i32 i64 i64) (result i32) unreachable)
    (@custom "producers" "\00")
    (@custom "made-here" "/home/someone")"#;

#[test]
fn a_module_becomes_a_component_of_its_kind_with_vectors() {
    let golden = br#"[ { "name" : "one" } ]"#;
    let wrapped = wrap(&module(SLASHING), &files::WIT, Some(golden)).unwrap();
    assert_eq!(wrapped.kind, "slashing");
    assert!(wasmparser::Parser::is_component(&wrapped.bytes));
    let sections: Vec<_> = wasmparser::Parser::new(0)
        .parse_all(&wrapped.bytes)
        .filter_map(|payload| match payload.unwrap() {
            wasmparser::Payload::CustomSection(section) => {
                Some((section.name().to_owned(), section.data().to_vec()))
            }
            _ => None,
        })
        .collect();
    assert!(sections.contains(&(GOLDEN_SECTION.to_owned(), br#"[{"name":"one"}]"#.to_vec())));
    assert!(!sections.iter().any(|(name, _)| name == "made-here"));
    assert_eq!(wrap(&module(SLASHING), &files::WIT, Some(golden)).unwrap(), wrapped);
}

#[test]
fn what_is_no_policy_is_refused_in_words() {
    assert!(refused("(component)").contains("no core WebAssembly module"));
    assert!(refused("(module)").contains("no kind of policy"));
    let import = r#"(module (import "wasi_snapshot_preview1" "clock_time_get" (func)))"#;
    assert!(refused(import).contains("imports `wasi_snapshot_preview1` `clock_time_get`"));
    let two = r#"(module (func (export "potluck:policy/slashing@0.1.0#judge"))
        (func (export "potluck:policy/routing@0.1.0#rank")))"#;
    assert!(refused(two).contains("a slashing and a routing policy"));
    let shape = r#"(module (func (export "potluck:policy/slashing@0.1.0#judge")))"#;
    assert!(refused(shape).contains("does not fit its interface"));
    let other = r#"(module (func (export "potluck:policy/slashing@0.2.0#judge")))"#;
    assert!(refused(other).contains("no kind of policy"));
    let golden = wrap(&module(SLASHING), &files::WIT, Some(b"{}")).unwrap_err().to_string();
    assert!(golden.contains("no list in JSON"), "{golden}");
    assert!(matches!(wrap(&[], &files::WIT, None), Err(WrapError::Module(_))));
}

#[test]
fn names_are_those_of_crates_and_files() {
    for name in ["nearest", "nearest-first", "a1", "x".repeat(MAX_NAME).as_str()] {
        check_name(name).unwrap();
    }
    let long = "x".repeat(MAX_NAME + 1);
    for name in
        ["", "Nearest", "a_b", "-a", "a-", "a--b", "1a", "../a", "a b", "ä", "core", "match", "gen", &long]
    {
        assert!(matches!(check_name(name), Err(ScaffoldError::Name { .. })), "{name}");
    }
}

#[test]
fn a_new_folder_is_complete_and_nothing_is_overwritten() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("deep/er");
    let made = new(&dir, "nearest-first", Kind::Routing).unwrap();
    for file in &made.yours {
        assert!(dir.join(file).is_file(), "{}", file.display());
    }
    let source = fs::read_to_string(dir.join("src/lib.rs")).unwrap();
    assert!(source.contains("export_routing!(NearestFirst);") && !source.contains("{{"));
    assert!(fs::read_to_string(dir.join("Cargo.toml")).unwrap().contains("name = \"nearest-first\""));
    assert!(
        dir.join("wit/policy/types.wit").is_file() && dir.join("vendor/potluck-policy/src/lib.rs").is_file()
    );
    assert!(matches!(new(&dir, "other", Kind::Routing), Err(ScaffoldError::Exists(_))));
}

#[test]
fn every_file_of_the_sdk_and_of_the_wit_is_embedded() {
    let house = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let count = |folder: &str, extension: &str| {
        let entries = fs::read_dir(house.join(folder)).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == extension))
            .count()
    };
    let files = files::of("a", Kind::Routing);
    let embedded = |folder: &str| files.iter().filter(|(path, _)| path.starts_with(folder)).count();
    assert_eq!(embedded("wit/policy/"), count("wit/policy", "wit"));
    assert_eq!(embedded("vendor/potluck-policy/src/"), count("plugins/sdk/src", "rs"));
}

#[test]
fn a_folder_that_is_no_policys_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let told = |dir: &Path| build(dir).unwrap_err().to_string();
    assert!(told(home.path()).contains("it has no Cargo.toml"));
    assert!(told(&home.path().join("none")).contains("is not the folder of a policy"));
    fs::write(home.path().join("Cargo.toml"), "[workspace]").unwrap();
    assert!(told(home.path()).contains("names no package"));
    fs::write(home.path().join("Cargo.toml"), "[package]\nname = \"../a\"").unwrap();
    assert!(matches!(build(home.path()), Err(ScaffoldError::Name { .. })));
    fs::write(home.path().join("Cargo.toml"), "[[").unwrap();
    assert!(told(home.path()).contains("its Cargo.toml:"));
}

/// Builds for WebAssembly: needs a compiler for it and the crates registry.
#[test]
#[ignore = "compiles for WebAssembly, which takes a minute and is not possible everywhere"]
fn a_new_policy_of_each_kind_builds_from_an_empty_folder_twice_to_the_same_bytes() {
    for kind in Kind::ALL {
        let build_in = |home: &Path| {
            let dir = home.join("mine");
            new(&dir, "first-try", kind).unwrap();
            build_with(&dir, &mut |line| eprintln!("{line}")).unwrap()
        };
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (built, again) = (build_in(one.path()), build_in(two.path()));
        assert_eq!((built.kind, built.name.as_str(), built.golden), (kind, "first-try", true));
        assert_eq!(fs::read(&built.path).unwrap(), built.bytes);
        assert!(built.bytes == again.bytes, "the same source gives the same bytes wherever it lies");
        let text = String::from_utf8_lossy(&built.bytes).into_owned();
        assert!(!text.contains(&*one.path().to_string_lossy()), "no path of this machine");
    }
}

#[test]
#[ignore = "compiles for WebAssembly, which takes a minute and is not possible everywhere"]
fn what_does_not_compile_is_told() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("mine");
    new(&dir, "first-try", Kind::Routing).unwrap();
    fs::write(dir.join("src/lib.rs"), "pub fn wrong() -> u8 { \"no\" }").unwrap();
    let error = build(&dir).unwrap_err().to_string();
    assert!(error.contains("mismatched types"), "{error}");
}
