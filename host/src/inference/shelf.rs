//! The models of this machine, for members that copy them.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::watch, task::spawn_blocking};

use super::{ModelEntry, keeper::Keeper, quant, store::Store};
use crate::{
    blob::{
        BlobId, Item, Kind, Occupied,
        source::{Blob, BlobSource, Finding, Found},
        trees::{Making, Tree, Trees},
    },
    mesh::{
        protocol::blob::tree::{self, BLOCK, Hash},
        streams::BoxFuture,
    },
};

/// Whether an engine has something to do.
#[derive(Debug)]
pub(super) struct Computing(pub(super) Arc<Keeper>);

impl Occupied for Computing {
    fn occupied(&self) -> bool {
        self.0.runners().iter().map(|runner| runner.describe()).any(|model| model.active + model.queued > 0)
    }
}

/// What can be copied: every model in one file that is not part of the program.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    pub(super) store: Arc<Store>,
    pub(super) trees: Trees,
}

impl Shelf {
    fn entries(&self) -> Vec<ModelEntry> {
        let whole = |entry: &&ModelEntry| {
            let path = entry.path.as_deref().filter(|_| !entry.is_embedder());
            let file = path.and_then(Path::file_name).and_then(|file| file.to_str());
            file.is_some_and(|file| quant::split_part(file).is_none())
        };
        self.store.list().iter().filter(whole).cloned().collect()
    }

    fn items(&self) -> Vec<Item> {
        let item = |entry: ModelEntry| {
            let id = self.trees.id(entry.path.as_deref()?);
            Some(item(&entry, entry.size, id))
        };
        self.entries().into_iter().filter_map(item).collect()
    }

    fn begin(&self, name: &str) -> Option<(ModelEntry, watch::Receiver<Making>)> {
        let entry = self.entries().into_iter().find(|entry| entry.name == name)?;
        let making = self.trees.make(entry.path.as_deref()?);
        Some((entry, making))
    }

    fn file(&self, id: BlobId) -> Option<ModelFile> {
        self.entries().into_iter().filter_map(|entry| entry.path).find_map(|path| {
            let tree = (self.trees.id(&path) == Some(id)).then(|| self.trees.tree(&path)).flatten()?;
            ModelFile::open(&path, tree).ok()
        })
    }
}

fn item(entry: &ModelEntry, size: u64, id: Option<BlobId>) -> Item {
    let sha256 = entry.digest.as_deref().and_then(BlobId::parse);
    Item { name: entry.name.clone(), size, sha256, id }
}

impl BlobSource for Shelf {
    fn list(&self, kind: Kind) -> BoxFuture<'_, Vec<Item>> {
        let shelf = self.clone();
        Box::pin(async move {
            if kind != Kind::Model {
                return Vec::new();
            }
            spawn_blocking(move || shelf.items()).await.unwrap_or_default()
        })
    }

    fn find<'a>(&'a self, kind: Kind, name: &'a str) -> BoxFuture<'a, Option<Finding>> {
        let (shelf, name) = (self.clone(), name.to_owned());
        Box::pin(async move {
            if kind != Kind::Model {
                return None;
            }
            let begun = spawn_blocking(move || shelf.begin(&name)).await.ok()??;
            let (say, finding) = watch::channel(Found::Hashing { done: 0, total: begun.0.size });
            tokio::spawn(async move { follow(begun, say).await });
            Some(finding)
        })
    }

    fn open(&self, kind: Kind, id: BlobId) -> BoxFuture<'_, Option<Arc<dyn Blob>>> {
        let shelf = self.clone();
        Box::pin(async move {
            if kind != Kind::Model {
                return None;
            }
            let file = spawn_blocking(move || shelf.file(id)).await.ok()??;
            Some(Arc::new(file) as Arc<dyn Blob>)
        })
    }
}

/// Tells how far the hashing of a file is until it is done or nobody waits for it any more. It goes on without them:
/// whoever asks next finds it done.
async fn follow((entry, mut making): (ModelEntry, watch::Receiver<Making>), say: watch::Sender<Found>) {
    loop {
        let now = making.borrow_and_update().clone();
        let (found, last) = match now {
            Making::Working { done, total } => (Found::Hashing { done, total }, false),
            Making::Done(tree) => (Found::Known(item(&entry, tree.size, Some(tree.id))), true),
            Making::Failed(why) => (Found::Failed(why), true),
        };
        say.send_replace(found);
        if last {
            return;
        }
        tokio::select! {
            changed = making.changed() => if changed.is_err() { return },
            () = say.closed() => return,
        }
    }
}

/// A model's file, open.
#[derive(Debug)]
struct ModelFile {
    tree: Arc<Tree>,
    file: Mutex<File>,
    modified: std::time::SystemTime,
}

impl ModelFile {
    fn open(path: &Path, tree: Arc<Tree>) -> io::Result<Self> {
        let file = File::open(path)?;
        let modified = file.metadata()?.modified()?;
        Ok(Self { tree, file: Mutex::new(file), modified })
    }
}

impl Blob for ModelFile {
    fn size(&self) -> u64 {
        self.tree.size
    }

    fn hashes(&self, from: u64, count: usize) -> Vec<Hash> {
        let rest =
            usize::try_from(from).ok().and_then(|from| self.tree.hashes.get(from..)).unwrap_or_default();
        rest.get(..count).unwrap_or(rest).to_vec()
    }

    fn read(&self, index: u64) -> io::Result<Vec<u8>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let meta = file.metadata()?;
        if meta.len() != self.tree.size || meta.modified()? != self.modified {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file changed"));
        }
        let length = tree::length(self.tree.size, index);
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        file.seek(SeekFrom::Start(index.saturating_mul(BLOCK)))?;
        (&mut *file).take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
