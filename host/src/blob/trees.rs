//! The block hashes of files: computed once, when somebody asks for them, and remembered beside the models.
//!
//! A file is known again by its path, its length and the time of its last change. One file is read at a time, by a
//! thread of low priority that pauses while jobs run. What is kept on disk is checked when it is read: hashes that do
//! not merge to the file's name are computed again.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{BlobId, Occupied};
use crate::mesh::protocol::blob::{
    tree::{self, BLOCK, Hash},
    wire::MAX_SIZE,
};

/// Longest first line of a file of hashes, in bytes.
const MAX_HEAD: u64 = 16 << 10;
/// Pause after each block while jobs run.
const PAUSE: Duration = Duration::from_millis(20);
/// The lowest priority there is.
#[cfg(target_os = "linux")]
const LOWEST: i32 = 19;

/// The hashes of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Bytes of the file.
    pub size: u64,
    /// What it is named by.
    pub id: BlobId,
    /// The hashes of its blocks.
    pub hashes: Vec<Hash>,
}

impl Tree {
    /// The hashes of a file, if they are.
    pub fn new(size: u64, id: BlobId, hashes: Vec<Hash>) -> Option<Self> {
        let right = tree::blocks(size) == hashes.len() as u64 && tree::root(&hashes) == Some(id.0);
        right.then_some(Self { size, id, hashes })
    }

    /// Whether these bytes are the block numbered `index`.
    pub fn fits(&self, index: u64, bytes: &[u8]) -> bool {
        let wanted = usize::try_from(index).ok().and_then(|at| self.hashes.get(at));
        wanted.is_some()
            && bytes.len() as u64 == tree::length(self.size, index)
            && tree::block(index, bytes, self.hashes.len() == 1).as_ref() == wanted
    }

    /// Reads hashes that [`Self::write`] wrote; `None` for anything else.
    pub(super) fn read(path: &Path) -> Option<(Self, Head)> {
        let mut reader = BufReader::new(File::open(path).ok()?);
        let head = Head::read(&mut reader)?;
        let count = usize::try_from(tree::blocks(head.size)).ok()?;
        let mut bytes = Vec::new();
        reader.take(head.size.div_ceil(BLOCK) * 32).read_to_end(&mut bytes).ok()?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        let whole = hashes.len() == count && rest.is_empty();
        let tree =
            whole.then(|| Self::new(head.size, BlobId::parse(&head.id)?, hashes.to_vec())).flatten()?;
        Some((tree, head))
    }

    /// Writes the hashes, all or nothing.
    pub(super) fn write(&self, path: &Path, head: &Head) -> io::Result<()> {
        let json = serde_json::to_vec(head).map_err(io::Error::other)?;
        crate::atomic::write(path, |file| {
            file.write_all(&json)?;
            file.write_all(b"\n")?;
            self.hashes.iter().try_for_each(|hash| file.write_all(hash))
        })
    }
}

/// What stands before the hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    version: u32,
    id: String,
    size: u64,
    /// The file, and nanoseconds since 1970 of its last change.
    path: PathBuf,
    modified: u64,
}

impl Head {
    pub(super) fn new(tree: &Tree, path: &Path, stamp: Stamp) -> Self {
        let Stamp { modified, .. } = stamp;
        Self { version: 1, id: tree.id.to_string(), size: tree.size, path: path.to_owned(), modified }
    }

    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = Vec::new();
        reader.take(MAX_HEAD).read_until(b'\n', &mut line).ok()?;
        let head: Self = serde_json::from_slice(&line).ok()?;
        (head.version == 1 && (1..=MAX_SIZE).contains(&head.size)).then_some(head)
    }
}

/// What a file is known again by, besides its path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    /// Nanoseconds since 1970.
    pub(super) modified: u64,
}

impl Stamp {
    pub(super) fn of(meta: &fs::Metadata) -> Self {
        let since = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let nanos = since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        Self { size: meta.len(), modified: nanos }
    }
}

/// How far the reading of a file is.
#[derive(Clone, Debug)]
pub enum Making {
    /// So many bytes were read.
    Working {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Its hashes.
    Done(Arc<Tree>),
    /// It could not be read.
    Failed(String),
}

#[derive(Debug, Default)]
struct Known {
    stamp: Stamp,
    id: Option<BlobId>,
    tree: Weak<Tree>,
    making: Option<watch::Receiver<Making>>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    occupied: Arc<dyn Occupied>,
    known: Mutex<HashMap<PathBuf, Known>>,
    /// Held by the thread that reads.
    turn: Mutex<()>,
    stop: AtomicBool,
}

/// The hashes of all files that were asked for. Cloning it is cheap. Every method reads files.
#[derive(Clone, Debug)]
pub struct Trees {
    inner: Arc<Inner>,
}

impl Trees {
    /// Remembers in this folder.
    pub fn new(folder: PathBuf, occupied: Arc<dyn Occupied>) -> Self {
        let (known, turn, stop) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Self { inner: Arc::new(Inner { folder, occupied, known, turn, stop }) }
    }

    /// The id of a file, if it was computed for the file as it is now.
    pub fn id(&self, path: &Path) -> Option<BlobId> {
        let stamp = Stamp::of(&fs::metadata(path).ok()?);
        let mut known = self.inner.known();
        if let Some(known) = known.get(path).filter(|known| known.stamp == stamp) {
            return known.id;
        }
        let head = File::open(self.inner.place(path)).ok();
        let head = head.and_then(|file| Head::read(&mut BufReader::new(file)));
        let head = head
            .filter(|head| head.path == path && Stamp { size: head.size, modified: head.modified } == stamp);
        let id = head.and_then(|head| BlobId::parse(&head.id));
        known.insert(path.to_owned(), Known { stamp, id, ..Known::default() });
        id
    }

    /// The hashes of a file, if they were computed for the file as it is now.
    pub fn tree(&self, path: &Path) -> Option<Arc<Tree>> {
        let id = self.id(path)?;
        let kept = self.inner.known().get(path).and_then(|known| known.tree.upgrade());
        if let Some(tree) = kept.filter(|tree| tree.id == id) {
            return Some(tree);
        }
        let read = Tree::read(&self.inner.place(path)).map(|(tree, _)| Arc::new(tree));
        let read = read.filter(|tree| tree.id == id);
        if let Some(known) = self.inner.known().get_mut(path) {
            match &read {
                Some(tree) => known.tree = Arc::downgrade(tree),
                // What lies on the disk is damaged.
                None => known.id = None,
            }
        }
        read
    }

    /// The hashes of a file; computing them begins where they are not known.
    pub fn make(&self, path: &Path) -> watch::Receiver<Making> {
        if let Some(tree) = self.tree(path) {
            return watch::channel(Making::Done(tree)).1;
        }
        let mut known = self.inner.known();
        let entry = known.entry(path.to_owned()).or_default();
        if let Some(making) = entry.making.as_ref().filter(|making| making.has_changed().is_ok()) {
            return making.clone();
        }
        let (say, making) = watch::channel(Making::Working { done: 0, total: entry.stamp.size });
        entry.making = Some(making.clone());
        let (inner, owned) = (Arc::clone(&self.inner), path.to_owned());
        let thread = std::thread::Builder::new().name("blob-hashes".into());
        let spawned = thread.spawn(move || {
            let outcome = inner.compute(&owned, &say);
            say.send_replace(match outcome {
                Ok(tree) => Making::Done(tree),
                Err(error) => Making::Failed(error.to_string()),
            });
        });
        if let Err(error) = spawned {
            return watch::channel(Making::Failed(error.to_string())).1;
        }
        making
    }

    /// Remembers the hashes of a file that came from others, as it lies there now.
    pub fn put(&self, path: &Path, tree: &Tree) {
        let Ok(meta) = fs::metadata(path) else { return };
        self.inner.keep(path, Stamp::of(&meta), tree);
    }

    /// Ends what is being computed.
    pub fn stop(&self) {
        self.inner.stop.store(true, Ordering::Release);
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the hashes of a file lie.
    fn place(&self, path: &Path) -> PathBuf {
        let name = blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex();
        self.folder.join(format!("{}.tree", name.get(..32).unwrap_or_default()))
    }

    fn compute(&self, path: &Path, say: &watch::Sender<Making>) -> io::Result<Arc<Tree>> {
        // On Linux this is the priority of the thread alone.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::setpriority_process(None, LOWEST);
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // One receiver is our own. What nobody waits for by now is not read: whoever asks for everything and goes away
        // costs nothing.
        if say.receiver_count() <= 1 {
            return Err(io::Error::other("nobody waited for it any more"));
        }
        let mut file = File::open(path)?;
        let stamp = Stamp::of(&file.metadata()?);
        let size = stamp.size;
        if !(1..=MAX_SIZE).contains(&size) {
            return Err(io::Error::other(format!("{size} bytes are no size of a model")));
        }
        let count = tree::blocks(size);
        let (mut hashes, mut buffer) = (Vec::new(), Vec::with_capacity(BLOCK as usize));
        for index in 0..count {
            if self.stop.load(Ordering::Acquire) {
                return Err(io::Error::other("the node is stopping"));
            }
            if self.occupied.occupied() {
                std::thread::sleep(PAUSE);
            }
            buffer.clear();
            (&mut file).take(BLOCK).read_to_end(&mut buffer)?;
            let whole = buffer.len() as u64 == tree::length(size, index);
            let hash = tree::block(index, &buffer, count == 1).filter(|_| whole);
            hashes.push(hash.ok_or_else(changed)?);
            say.send_replace(Making::Working {
                done: (index + 1).saturating_mul(BLOCK).min(size),
                total: size,
            });
        }
        if Stamp::of(&fs::metadata(path)?) != stamp {
            return Err(changed());
        }
        let id = tree::root(&hashes).map(BlobId).ok_or_else(changed)?;
        let tree = Tree { size, id, hashes };
        Ok(self.keep(path, stamp, &tree))
    }

    fn keep(&self, path: &Path, stamp: Stamp, tree: &Tree) -> Arc<Tree> {
        let write = fs::create_dir_all(&self.folder)
            .and_then(|()| tree.write(&self.place(path), &Head::new(tree, path, stamp)));
        if let Err(error) = write {
            tracing::warn!(%error, "the hashes of a model cannot be kept; they will be computed again");
        }
        self.tidy();
        let tree = Arc::new(tree.clone());
        let known = Known { stamp, id: Some(tree.id), tree: Arc::downgrade(&tree), making: None };
        self.known().insert(path.to_owned(), known);
        tree
    }

    /// Removes the hashes of files that are gone.
    fn tidy(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let place = entry.path();
            let head = File::open(&place).ok().and_then(|file| Head::read(&mut BufReader::new(file)));
            if head.is_some_and(|head| !head.path.exists()) {
                let _ = fs::remove_file(place);
            }
        }
    }
}

pub(super) fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the file changed while it was read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::tests::Idle;

    async fn made(trees: &Trees, path: &Path) -> Result<Arc<Tree>, String> {
        let mut making = trees.make(path);
        let done = making.wait_for(|making| !matches!(making, Making::Working { .. })).await.unwrap().clone();
        match done {
            Making::Done(tree) => Ok(tree),
            Making::Failed(why) => Err(why),
            Making::Working { .. } => unreachable!(),
        }
    }

    #[tokio::test]
    async fn hashes_are_computed_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, path) = (dir.path().join("trees"), dir.path().join("m.gguf"));
        let bytes = vec![5; 2 * BLOCK as usize + 9];
        fs::write(&path, &bytes).unwrap();
        let trees = Trees::new(folder.clone(), Arc::new(Idle));
        assert_eq!(trees.id(&path), None, "nobody asked yet");
        let tree = made(&trees, &path).await.unwrap();
        assert_eq!(tree.id.0, *blake3::hash(&bytes).as_bytes());
        // Another run of the program knows them without reading the file: it could not, as the bytes are others now.
        let stamp = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, vec![6; bytes.len()]).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(stamp).unwrap();
        let again = Trees::new(folder.clone(), Arc::new(Idle));
        assert_eq!(again.id(&path), Some(tree.id));
        assert_eq!(*again.tree(&path).unwrap(), *tree);
        // A file that is not the same any more is hashed again.
        fs::write(&path, b"other").unwrap();
        assert_eq!((again.id(&path), again.tree(&path)), (None, None));
        let other = made(&again, &path).await.unwrap();
        assert_eq!(other.id.0, *blake3::hash(b"other").as_bytes());
        // Damaged hashes are not believed.
        let kept = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        let mut damaged = fs::read(&kept).unwrap();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(&kept, damaged).unwrap();
        let third = Trees::new(folder.clone(), Arc::new(Idle));
        assert_eq!(third.tree(&path), None);
        assert_eq!(*made(&third, &path).await.unwrap(), *other);
        fs::remove_file(&path).unwrap();
        assert!(made(&third, &path).await.is_err());
        let next = dir.path().join("n.gguf");
        fs::write(&next, b"next").unwrap();
        made(&third, &next).await.unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "those of a file that is gone are removed");
    }
}
