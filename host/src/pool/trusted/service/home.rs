//! The pool that this machine is in, and its file.

use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};

use super::super::{
    clock::Millis,
    journal::{Found, Journal, JournalError},
    papers::{Discovery, MAX_PAPER, Paper, PaperError, PoolId, RootKey, Sealed, Statement},
    roster::{Roster, View},
};
use super::PoolError;
use crate::{
    identity::{NodeId, Signer},
    mesh::frame,
};

/// What a record of the file is.
#[derive(Encode, Decode)]
enum Record {
    /// The first: the pool whose papers follow.
    #[n(0)]
    Begin(#[n(0)] PoolId),
    /// A paper.
    #[n(1)]
    Paper(#[n(0)] Sealed),
    /// The key under which members find each other.
    #[n(2)]
    Key(#[n(0)] Sealed),
}

/// The file shrinks when it is this much longer than what it holds.
const SLACK: u64 = 256 << 10;

/// The pool that this machine is in.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) roster: Roster,
    pub(super) view: View,
    pub(super) root: Option<RootKey>,
    /// The signed [`Discovery`].
    pub(super) key: Option<Paper>,
    journal: Option<Journal>,
    path: PathBuf,
}

fn papers_path(folder: &Path) -> PathBuf {
    folder.join("papers.log")
}

/// Where the root key of a pool lies.
pub(super) fn root_path(folder: &Path, pool: PoolId) -> PathBuf {
    folder.join("roots").join(format!("{pool}.key"))
}

impl Home {
    /// Reads the pool that this machine is in, if there is one, and what was repaired in its file.
    pub(super) fn open(folder: &Path, now: Millis) -> Result<(Option<Self>, Vec<String>), PoolError> {
        let path = papers_path(folder);
        if !path.exists() {
            return Ok((None, Vec::new()));
        }
        let (journal, Found { records, mut repairs }) = Journal::open(&path, 2 * MAX_PAPER)?;
        let mut records = records.iter().filter_map(|record| frame::decode::<Record>(record).ok());
        let Some(Record::Begin(pool)) = records.next() else {
            // A crash before anything was promised: as if it had never been made.
            journal.remove()?;
            return Ok((None, repairs));
        };
        let (mut roster, mut key) = (Roster::new(pool), None);
        for record in records {
            let outcome = match record {
                // Read with the time of the paper itself: a clock that is wrong now costs no papers.
                Record::Paper(sealed) => Paper::open(sealed, pool)
                    .and_then(|paper| roster.insert(paper.clone(), paper.statement().at()).map(drop)),
                Record::Key(sealed) => Paper::open(sealed, pool).map(|paper| key = Some(paper)),
                Record::Begin(_) => Ok(()),
            };
            if let Err(error) = outcome {
                repairs.push(format!("{}: passed over {error}", path.display()));
            }
        }
        roster.prune(now);
        let root = load_root(folder, &roster)?;
        let view = roster.view(now);
        Ok((Some(Self { roster, view, root, key, journal: Some(journal), path }), repairs))
    }

    /// Begins with the papers of `roster`, on disk when this returns.
    pub(super) async fn begin(
        folder: &Path,
        roster: Roster,
        key: Option<Paper>,
        now: Millis,
    ) -> Result<Self, PoolError> {
        let path = papers_path(folder);
        let records = snapshot(&roster, key.as_ref())?;
        let at = path.clone();
        let journal = blocking(&path, move || {
            let (mut journal, _) = Journal::open(&at, 2 * MAX_PAPER)?;
            journal.rewrite(&records)?;
            Ok(journal)
        })
        .await?;
        let root = load_root(folder, &roster)?;
        let view = roster.view(now);
        Ok(Self { roster, view, root, key, journal: Some(journal), path })
    }

    /// Takes in papers, and a new key. They are on disk when this returns; those returned are new.
    pub(super) async fn record(
        &mut self,
        papers: Vec<Paper>,
        key: Option<Paper>,
        now: Millis,
    ) -> Result<(Vec<Paper>, Vec<PaperError>), JournalError> {
        let mut roster = self.roster.clone();
        let (mut fresh, mut refused, mut records) = (Vec::new(), Vec::new(), Vec::new());
        for paper in papers {
            match roster.insert(paper.clone(), now) {
                Ok(true) => {
                    records.push(encode(&Record::Paper(paper.sealed().clone()), &self.path)?);
                    fresh.push(paper);
                }
                Ok(false) => {}
                Err(error) => refused.push(error),
            }
        }
        if let Some(key) = &key {
            records.push(encode(&Record::Key(key.sealed().clone()), &self.path)?);
        }
        if !records.is_empty() {
            self.write(move |journal| journal.append(&records)).await?;
        }
        self.roster = roster;
        self.key = key.or(self.key.take());
        self.view = self.roster.view(now);
        Ok((fresh, refused))
    }

    /// Drops what decides nothing any more, and shortens the file when that is worth it.
    pub(super) async fn tidy(&mut self, now: Millis) -> Result<(), PoolError> {
        self.roster.prune(now);
        let records = snapshot(&self.roster, self.key.as_ref())?;
        let needed: usize = records.iter().map(|record| record.len() + 8).sum();
        let length = self.journal.as_ref().map_or(0, Journal::len);
        if length > (needed as u64).saturating_mul(2).saturating_add(SLACK) {
            self.write(move |journal| journal.rewrite(&records)).await?;
        }
        Ok(())
    }

    /// Deletes the papers and the key: this machine is in no pool any more.
    pub(super) async fn remove(mut self) -> Result<(), JournalError> {
        match self.journal.take() {
            Some(journal) => blocking(&self.path, move || journal.remove()).await,
            None => Ok(()),
        }
    }

    /// The key under which members find each other, as long as who signed it may still issue.
    pub(super) fn discovery(&self) -> Option<&Discovery> {
        let paper = self.key.as_ref().filter(|paper| self.view.is_issuer(paper.author()))?;
        match paper.statement() {
            Statement::Discovery(it) => Some(it),
            _ => None,
        }
    }

    /// What signs papers of this pool on this machine: its own key, if it may issue any.
    pub(super) fn issuer<'s>(&'s self, signer: &'s Signer) -> Option<&'s Signer> {
        self.view.is_issuer(signer.node()).then_some(signer)
    }

    /// The delegation of `node`.
    pub(super) fn delegation(&self, node: NodeId) -> Option<Paper> {
        let mut papers = self.roster.papers();
        papers
            .find(|paper| matches!(paper.statement(), Statement::Delegation(it) if it.node == node))
            .cloned()
    }

    async fn write(
        &mut self,
        work: impl FnOnce(&mut Journal) -> Result<(), JournalError> + Send + 'static,
    ) -> Result<(), JournalError> {
        let stopped = || JournalError::Stopped { path: self.path.clone() };
        let mut journal = self.journal.take().ok_or_else(stopped)?;
        let (journal, outcome) = blocking(&self.path, move || {
            let outcome = work(&mut journal);
            Ok((journal, outcome))
        })
        .await?;
        self.journal = Some(journal);
        outcome
    }
}

/// The root key on this machine, if it is here.
pub(super) fn load_root(folder: &Path, roster: &Roster) -> Result<Option<RootKey>, PoolError> {
    let path = root_path(folder, roster.pool());
    let mut papers = roster.papers();
    let paper = papers.find(|paper| matches!(paper.statement(), Statement::Pool(_)));
    match paper.filter(|_| path.exists()) {
        Some(paper) => Ok(RootKey::load(&path, paper.clone())?),
        None => Ok(None),
    }
}

fn snapshot(roster: &Roster, key: Option<&Paper>) -> Result<Vec<Vec<u8>>, PaperError> {
    let papers = roster.papers().map(|paper| Record::Paper(paper.sealed().clone()));
    let key = key.map(|paper| Record::Key(paper.sealed().clone()));
    let records = std::iter::once(Record::Begin(roster.pool())).chain(papers).chain(key);
    let encoded = records.map(|record| minicbor::to_vec(&record));
    encoded.collect::<Result<_, _>>().map_err(|error| PaperError::Malformed(error.to_string()))
}

fn encode(record: &Record, path: &Path) -> Result<Vec<u8>, JournalError> {
    minicbor::to_vec(record).map_err(|error| JournalError::Io {
        path: path.to_owned(),
        source: std::io::Error::other(error.to_string()),
    })
}

/// Does what waits for the disk where nothing else waits for it.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    let stopped = |_| JournalError::Stopped { path: path.to_owned() };
    tokio::task::spawn_blocking(work).await.map_err(stopped)?
}
