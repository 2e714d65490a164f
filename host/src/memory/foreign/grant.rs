//! What an importer may see.
//!
//! A guest gets one folder. Where a file is to be imported, that folder is a private one that holds nothing but this
//! file: as a hard link where the file system allows it, else as a copy. The folder a file lies in is never shown,
//! because its other files were not meant.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::error::ForeignError;

/// One folder, and what to look at in it. A private folder is removed when this is dropped.
#[derive(Debug)]
pub struct Grant {
    folder: PathBuf,
    name: String,
    private: Option<Private>,
}

/// A folder of our own, removed with what is in it.
#[derive(Debug)]
struct Private(PathBuf);

impl Drop for Private {
    fn drop(&mut self) {
        // What is left is a link or a copy in a folder that only the owner can enter.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Grant {
    /// The grant of a file or folder. A symbolic link that is named here is followed, since it was named; those
    /// within a folder are followed only as long as they stay in it. `scratch` is a folder in which a private one may
    /// be made; on the same file system as the file nothing is copied.
    ///
    /// # Errors
    /// [`ForeignError::Path`] where it cannot be read, [`ForeignError::Kind`] for what is neither file nor folder.
    pub fn of(path: &Path, scratch: &Path) -> Result<Self, ForeignError> {
        let failed = |source| ForeignError::Path { path: path.to_owned(), source };
        let real = fs::canonicalize(path).map_err(failed)?;
        let metadata = fs::metadata(&real).map_err(failed)?;
        if metadata.is_dir() {
            return Ok(Self { folder: real, name: String::new(), private: None });
        }
        if !metadata.is_file() {
            return Err(ForeignError::Kind { path: path.to_owned() });
        }
        // The name that was given, not the one a link led to: its ending may say what the file is.
        let name = path.file_name().or_else(|| real.file_name()).unwrap_or_default().to_string_lossy();
        let private = private(scratch).map_err(failed)?;
        show(&real, &private.0.join(&*name)).map_err(failed)?;
        Ok(Self { folder: private.0.clone(), name: name.into_owned(), private: Some(private) })
    }

    /// The folder on this machine.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file's name in the folder; empty: the folder itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the folder is a private one.
    pub fn is_private(&self) -> bool {
        self.private.is_some()
    }
}

/// A new folder that only this user can enter.
fn private(scratch: &Path) -> io::Result<Private> {
    let folder = scratch.join(format!("potluck-import-{}", uuid::Uuid::new_v4()));
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(&folder)?;
    Ok(Private(folder))
}

/// Puts a file into a private folder. Where a link cannot be made (another file system, another owner), a copy.
fn show(file: &Path, at: &Path) -> io::Result<()> {
    // A file that this user cannot read could be linked all the same.
    fs::File::open(file)?;
    match fs::hard_link(file, at) {
        Ok(()) => Ok(()),
        Err(_) => fs::copy(file, at).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_shown_alone_and_the_folder_goes_away() {
        let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = dir.path().join("export.json");
        fs::write(&file, "{}").unwrap();
        fs::write(dir.path().join("other.txt"), "not meant").unwrap();
        let grant = Grant::of(&file, scratch.path()).unwrap();
        assert_eq!(grant.name(), "export.json");
        let shown: Vec<_> = fs::read_dir(grant.folder()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(shown, ["export.json"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            let mode = fs::metadata(grant.folder()).unwrap().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
        drop(grant);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
    }

    #[test]
    fn folders_are_shown_as_they_are_and_other_things_are_not() {
        let scratch = tempfile::tempdir().unwrap();
        let grant = Grant::of(scratch.path(), scratch.path()).unwrap();
        assert_eq!((grant.name(), grant.is_private()), ("", false));
        assert!(matches!(
            Grant::of(&scratch.path().join("nothing"), scratch.path()),
            Err(ForeignError::Path { .. })
        ));
        #[cfg(unix)]
        assert!(matches!(Grant::of(Path::new("/dev/null"), scratch.path()), Err(ForeignError::Kind { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_was_named_is_followed() {
        let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(dir.path().join("real.json"), "[1]").unwrap();
        std::os::unix::fs::symlink(dir.path().join("real.json"), dir.path().join("link.json")).unwrap();
        let grant = Grant::of(&dir.path().join("link.json"), scratch.path()).unwrap();
        let shown = grant.folder().join("link.json");
        assert!(fs::symlink_metadata(&shown).unwrap().is_file());
        assert_eq!(fs::read_to_string(shown).unwrap(), "[1]");
    }
}
