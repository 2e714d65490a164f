use std::fs;

use super::fixture::{config, scoring};
use crate::policy::{CacheConfig, Engine, EngineConfig, EngineError};

fn engine(dir: &std::path::Path, key: u8, baseline: bool) -> Engine {
    let cache = Some(CacheConfig { dir: dir.to_owned(), key: [key; 32] });
    let config = EngineConfig { cache, baseline, slots: 2, warm: 0, ..config() };
    Engine::new(config).unwrap()
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn code_is_compiled_once_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("code");
    let bytes = scoring(41);
    assert!(!engine(&dir, 1, false).load(&bytes).unwrap().report().cached);
    assert!(engine(&dir, 1, false).load(&bytes).unwrap().report().cached);
    assert_eq!(files(&dir).len(), 1);
    // Other settings are another engine.
    assert!(!engine(&dir, 1, true).load(&bytes).unwrap().report().cached);
    assert_eq!(files(&dir).len(), 2);
    assert!(!engine(&dir, 1, false).load(&scoring(42)).unwrap().report().cached);
    assert_eq!(files(&dir).len(), 3);
}

#[cfg(unix)]
#[test]
fn nobody_else_may_enter_the_folder() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    engine(dir.path(), 1, false);
    assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
}

/// Whatever happens to a file, it is never run and is made anew.
#[test]
fn a_spoiled_file_is_never_used() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (scoring(43), scoring(44));
    engine(dir.path(), 1, false).load(&one).unwrap();
    let file = files(dir.path()).pop().unwrap();
    let whole = fs::read(&file).unwrap();
    let cached = || engine(dir.path(), 1, false).load(&one).unwrap().report().cached;
    let mut spoiled: Vec<Vec<u8>> = Vec::new();
    for place in [0, 7, 8, 39, 40, 41, 200, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        spoiled.push(bytes);
    }
    spoiled.extend([Vec::new(), whole[..20].to_vec(), whole[..whole.len() - 1].to_vec()]);
    spoiled.push([whole.as_slice(), b"more"].concat());
    for bytes in spoiled {
        fs::write(&file, &bytes).unwrap();
        assert!(!cached());
        assert_eq!(fs::read(&file).unwrap().len(), whole.len(), "it was not made anew");
        assert!(cached());
    }
    // Made by this node with the same engine, but for another component.
    engine(dir.path(), 1, false).load(&other).unwrap();
    let others = files(dir.path()).into_iter().find(|path| *path != file).unwrap();
    fs::copy(others, &file).unwrap();
    assert!(!cached());
    // Made with another key.
    assert!(!engine(dir.path(), 2, false).load(&one).unwrap().report().cached);
}

#[test]
fn the_folder_does_not_grow_without_end() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..70 {
        fs::write(dir.path().join(format!("{n}.cwasm")), b"old").unwrap();
    }
    engine(dir.path(), 1, false).load(&scoring(45)).unwrap();
    assert_eq!(files(dir.path()).len(), 64);
    assert!(engine(dir.path(), 1, false).load(&scoring(45)).unwrap().report().cached, "the newest is kept");
}

#[test]
fn a_folder_that_cannot_be_is_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let cache = Some(CacheConfig { dir: file.path().join("code"), key: [0; 32] });
    let error = Engine::new(EngineConfig { cache, ..EngineConfig::default() }).unwrap_err();
    assert!(matches!(error, EngineError::Cache(_)), "{error}");
}
