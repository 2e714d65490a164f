//! The address book: where nodes were reached, or are said to be, remembered across restarts.
//!
//! One small file, replaced atomically. A damaged one is set aside and a new one begun: everything in it can be
//! learnt again.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::atomic;
use crate::identity::NodeId;
use libp2p::Multiaddr;
use minicbor::{Decode, Encode};

use crate::mesh::{address, limits};

/// One remembered address. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Place {
    #[cbor(n(0), with = "minicbor::bytes")]
    address: Vec<u8>,
    #[n(1)]
    learnt: i64,
    /// When a connection with it last worked; zero: never.
    #[n(2)]
    worked: i64,
}

#[derive(Clone, Debug, Default, Encode, Decode)]
struct Page {
    #[n(0)]
    node: Option<NodeId>,
    #[n(1)]
    places: Vec<Place>,
}

#[derive(Debug, Default, Encode, Decode)]
struct File {
    #[n(0)]
    pages: Vec<Page>,
}

/// The address book.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pages: BTreeMap<NodeId, Vec<Place>>,
    path: Option<PathBuf>,
    changed: bool,
}

impl Book {
    /// The book kept at `path`; empty where there is none, or none that can be read.
    pub(crate) fn open(path: Option<PathBuf>) -> Self {
        let mut book = Self { path, ..Self::default() };
        let Some(path) = &book.path else { return book };
        match read(path) {
            Ok(pages) => book.pages = pages,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "address book set aside: it cannot be read");
                let _ = fs::rename(path, path.with_extension("damaged"));
            }
        }
        book
    }

    /// Remembers an address. What cannot be dialled is left out. Returns whether it is new.
    pub(crate) fn learn(&mut self, node: NodeId, address: &Multiaddr, now: i64) -> bool {
        let address = address::bare(address);
        if !address::is_dialable(&address) || !self.has_room(node) {
            return false;
        }
        let places = self.pages.entry(node).or_default();
        let bytes = address.to_vec();
        if let Some(place) = places.iter_mut().find(|place| place.address == bytes) {
            place.learnt = now;
            return false;
        }
        places.push(Place { address: bytes, learnt: now, worked: 0 });
        trim(places);
        self.changed = true;
        true
    }

    /// Remembers that an address worked.
    pub(crate) fn worked(&mut self, node: NodeId, address: &Multiaddr, now: i64) {
        self.learn(node, address, now);
        let bytes = address::bare(address).to_vec();
        let places = self.pages.get_mut(&node);
        if let Some(place) = places.and_then(|places| places.iter_mut().find(|place| place.address == bytes))
        {
            place.worked = now;
            self.changed = true;
        }
    }

    /// Forgets an address at which somebody else answers.
    pub(crate) fn forget(&mut self, node: NodeId, address: &Multiaddr) {
        let bytes = address::bare(address).to_vec();
        if let Some(places) = self.pages.get_mut(&node) {
            let before = places.len();
            places.retain(|place| place.address != bytes);
            self.changed |= places.len() != before;
        }
    }

    /// The addresses of a node, in the order in which they should be dialled.
    pub(crate) fn addresses(&self, node: NodeId) -> Vec<Multiaddr> {
        let mut places: Vec<&Place> = self.pages.get(&node).into_iter().flatten().collect();
        places.sort_by_key(|place| std::cmp::Reverse(value(place)));
        let addresses = places.iter().filter_map(|place| Multiaddr::try_from(place.address.clone()).ok());
        let mut addresses: Vec<_> = addresses.take(limits::DIAL_ADDRESSES).collect();
        address::order(&mut addresses);
        addresses
    }

    /// The nodes that were of use last, best first.
    #[cfg(feature = "public")]
    pub(crate) fn best(&self, most: usize) -> Vec<NodeId> {
        let best = |places: &Vec<Place>| places.iter().map(value).max();
        let mut nodes: Vec<_> = self.pages.iter().map(|(node, places)| (best(places), *node)).collect();
        nodes.sort_by(|a, b| b.cmp(a));
        nodes.into_iter().take(most).map(|(_, node)| node).collect()
    }

    /// The bytes to write and where, if anything changed since the last time.
    pub(crate) fn take_changes(&mut self) -> Option<(PathBuf, Vec<u8>)> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let path = self.path.clone()?;
        let pages = self.pages.iter();
        let pages = pages.map(|(node, places)| Page { node: Some(*node), places: places.clone() }).collect();
        Some((path, minicbor::to_vec(File { pages }).ok()?))
    }

    /// Makes room for one more node by forgetting the one that has been of no use for longest.
    fn has_room(&mut self, node: NodeId) -> bool {
        if self.pages.contains_key(&node) || self.pages.len() < limits::BOOK_NODES {
            return true;
        }
        let best = |places: &Vec<Place>| places.iter().map(value).max();
        let least = self.pages.iter().min_by_key(|(_, places)| best(places)).map(|(node, _)| *node);
        least.is_some_and(|node| self.pages.remove(&node).is_some())
    }
}

/// What an address is worth: one that worked beats one that is only said to, and later beats earlier.
fn value(place: &Place) -> (i64, i64) {
    (place.worked, place.learnt)
}

fn trim(places: &mut Vec<Place>) {
    while places.len() > limits::BOOK_ADDRESSES {
        let Some((least, _)) = places.iter().enumerate().min_by_key(|(_, place)| value(place)) else {
            return;
        };
        places.remove(least);
    }
}

fn read(path: &Path) -> io::Result<BTreeMap<NodeId, Vec<Place>>> {
    if fs::metadata(path)?.len() > limits::BOOK_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
    }
    let file: File = minicbor::decode(&fs::read(path)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    let mut pages = BTreeMap::new();
    for page in file.pages.into_iter().take(limits::BOOK_NODES) {
        let Some(node) = page.node else { continue };
        let mut places = page.places;
        places.retain(|place| {
            Multiaddr::try_from(place.address.clone()).is_ok_and(|address| address::is_dialable(&address))
        });
        trim(&mut places);
        pages.insert(node, places);
    }
    Ok(pages)
}

/// Writes the file so that it is there completely or as it was.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    atomic::write(path, |file| io::Write::write_all(file, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{}", n + 1).parse().unwrap()
    }

    fn node(n: u16) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        NodeId(bytes)
    }

    #[test]
    fn it_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh/addresses");
        let mut book = Book::open(Some(path.clone()));
        assert!(book.learn(node(1), &at(1), 10));
        assert!(!book.learn(node(1), &at(1), 11));
        book.worked(node(1), &at(2), 12);
        let (to, bytes) = book.take_changes().unwrap();
        write(&to, &bytes).unwrap();
        assert!(book.take_changes().is_none());
        let again = Book::open(Some(path));
        assert_eq!(again.addresses(node(1)), book.addresses(node(1)));
        assert_eq!(again.addresses(node(1)).len(), 2);
    }

    #[test]
    fn caps_hold_and_what_worked_stays() {
        let mut book = Book::default();
        book.worked(node(1), &at(0), 1);
        for n in 1..200 {
            book.learn(node(1), &at(n), 1_000 + i64::from(n));
        }
        assert_eq!(book.addresses(node(1)).len(), limits::BOOK_ADDRESSES);
        assert!(book.addresses(node(1)).contains(&at(0)));
        for n in 2..2_000 {
            book.learn(node(n), &at(1), 5_000);
        }
        assert_eq!(book.pages.len(), limits::BOOK_NODES);
        assert!(!book.addresses(node(1)).is_empty());
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("addresses");
        fs::write(&path, b"no such file").unwrap();
        let book = Book::open(Some(path.clone()));
        assert!(book.pages.is_empty());
        assert!(!path.exists() && path.with_extension("damaged").exists());
    }
}
