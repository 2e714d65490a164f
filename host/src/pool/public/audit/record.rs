//! What audits came to, provider by provider, on disk.
//!
//! Each provider has a sequential test ([`Sprt`]). An acquittal begins the next test; a conviction stands until the
//! provider was judged. The transcripts of a test's audits are kept beside the journal until the test ends: what passed
//! belongs to a charge as what failed does, for the policy punishes in proportion.

use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use parity_scale_codec::{Decode, DecodeAll, Encode};
use potluck_chain_client::journal::{Journal, JournalError};
use potluck_kernels::audit::{Decision, Sprt, SprtError};
use potluck_primitives::{Bounded, Hash};

use super::{
    charge::{Charge, MAX_CHARGE, MAX_TRANSCRIPTS},
    examine::Report,
    transcript::{MAX_TRANSCRIPT, Transcript},
};
use crate::{atomic, identity::NodeId, policy::types::Outcome};

/// How often audits of the honest fail at most, of cheats at least, and how often a test may convict the honest and
/// acquit a cheat: in millionths. The same as the policy that ships (`plugins/slashing/sprt`).
const RATES: [u32; 4] = [5_000, 200_000, 1, 10_000];
/// Providers that are remembered.
const PROVIDERS: usize = 4_096;
/// Audits of a test whose transcripts are kept.
const KEPT: usize = MAX_TRANSCRIPTS as usize;
/// Records in the journal before it is written anew.
const RECORDS: usize = 50_000;

/// Why a record cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A transcript's file.
    #[error("the transcripts of audits at {} cannot be used: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The test.
    #[error(transparent)]
    Sprt(#[from] SprtError),
    /// The same answer again.
    #[error("this answer was audited before")]
    Again,
    /// Too many providers, none of which can be forgotten.
    #[error("there are cases against {PROVIDERS} providers already")]
    Full,
}

/// How it stands with a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Standing {
    /// The sum of the test under way, in thousandths of a nat.
    pub sum: i64,
    /// Audits that it passed in all.
    pub passed: u32,
    /// Audits that it failed in all.
    pub failed: u32,
    /// Audits that could not be told.
    pub unclear: u32,
    /// Whether the test under way convicts it.
    pub convicted: bool,
    /// Transcripts of the audits of the test under way, the oldest first.
    pub case: Vec<Hash>,
    /// The last answers that were audited, so that none counts twice.
    seen: VecDeque<[u8; 16]>,
    /// When it was audited last, in milliseconds since 1970.
    pub last_ms: u64,
}

#[derive(Encode, Decode)]
enum Record {
    /// One audit.
    #[codec(index = 0)]
    Audit { at_ms: u64, report: Report },
    /// How it stood when the journal was written anew.
    #[codec(index = 1)]
    Standing { provider: [u8; 32], standing: Standing },
    /// The case was judged; the next test begins.
    #[codec(index = 2)]
    Closed { provider: [u8; 32] },
    /// A verdict on a job went to the chain; the next test begins.
    #[codec(index = 3)]
    Judged { provider: [u8; 32], job: [u8; 16] },
    /// That verdict was executed, or the chain knows it no more.
    #[codec(index = 4)]
    Executed { provider: [u8; 32], job: [u8; 16] },
}

/// Answers that are remembered of a provider.
const SEEN: usize = 64;

impl Standing {
    fn take(&mut self, at_ms: u64, report: &Report, test: &Sprt) -> Decision {
        self.last_ms = self.last_ms.max(at_ms);
        if self.seen.len() >= SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(report.job);
        let failed = match report.outcome() {
            Outcome::Passed => false,
            Outcome::Failed => true,
            Outcome::Unclear => {
                self.unclear = self.unclear.saturating_add(1);
                return self.decision(test);
            }
        };
        let count = if failed { &mut self.failed } else { &mut self.passed };
        *count = count.saturating_add(1);
        if self.case.len() < KEPT {
            self.case.push(report.transcript);
        }
        // A conviction waits for its judgement, whatever comes meanwhile.
        if !self.convicted {
            self.sum = test.add(self.sum, failed);
        }
        let decision = self.decision(test);
        match decision {
            Decision::Convict => self.convicted = true,
            Decision::Acquit => self.begin(),
            Decision::More => {}
        }
        decision
    }

    fn decision(&self, test: &Sprt) -> Decision {
        if self.convicted { Decision::Convict } else { test.decide(self.sum) }
    }

    fn begin(&mut self) {
        self.sum = 0;
        self.convicted = false;
        self.case.clear();
    }
}

/// The record of all audits that this machine made.
#[derive(Debug)]
pub struct Docket {
    folder: PathBuf,
    test: Sprt,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    journal: Journal,
    records: usize,
    rows: HashMap<NodeId, Standing>,
    /// Verdicts that this machine brought to the chain and that wait there.
    waiting: Vec<Waiting>,
}

/// A verdict that waits on the chain: about whom, and on which job.
pub type Waiting = (NodeId, [u8; 16]);

fn file(folder: &Path, transcript: &Hash) -> PathBuf {
    let name: String = transcript.iter().map(|byte| format!("{byte:02x}")).collect();
    folder.join(format!("{name}.transcript"))
}

impl Docket {
    /// The record in a folder; makes one if there is none.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn open(folder: &Path) -> Result<Self, RecordError> {
        let [p0, p1, alpha, beta] = RATES;
        let test = Sprt::new(p0, p1, alpha, beta)?;
        let (journal, records) = Journal::open(&folder.join("audits"))?;
        let mut rows: HashMap<NodeId, Standing> = HashMap::new();
        let mut waiting: Vec<Waiting> = Vec::new();
        for record in &records {
            match Record::decode_all(&mut record.as_slice()) {
                Ok(Record::Audit { at_ms, report }) => {
                    rows.entry(report.provider()).or_default().take(at_ms, &report, &test);
                }
                Ok(Record::Standing { provider, standing }) => drop(rows.insert(NodeId(provider), standing)),
                Ok(Record::Closed { provider }) => rows.entry(NodeId(provider)).or_default().begin(),
                Ok(Record::Judged { provider, job }) => {
                    rows.entry(NodeId(provider)).or_default().begin();
                    waiting.push((NodeId(provider), job));
                }
                Ok(Record::Executed { provider, job }) => waiting.retain(|it| *it != (NodeId(provider), job)),
                Err(_) => tracing::warn!("a record of an audit cannot be read and is left out"),
            }
        }
        let inner = Mutex::new(Inner { journal, records: records.len(), rows, waiting });
        let this = Self { folder: folder.to_owned(), test, inner };
        this.sweep();
        Ok(this)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an audit; when this returns it is on disk. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`RecordError`]; the audit does not count then.
    pub fn enter(
        &self,
        at_ms: u64,
        report: &Report,
        transcript: &Transcript,
    ) -> Result<Decision, RecordError> {
        let provider = report.provider();
        let mut inner = self.inner();
        let row = inner.rows.get(&provider);
        if row.is_some_and(|row| row.seen.contains(&report.job)) {
            return Err(RecordError::Again);
        }
        // The transcript first: a test that convicts has all its transcripts.
        let room = row.is_none_or(|row| row.case.len() < KEPT);
        if report.outcome() != Outcome::Unclear && room {
            self.keep(transcript)?;
        }
        if row.is_none() && inner.rows.len() >= PROVIDERS {
            inner.forget()?;
        }
        inner.journal.append(&Record::Audit { at_ms, report: report.clone() }.encode())?;
        inner.records += 1;
        let row = inner.rows.entry(provider).or_default();
        let mut before = row.case.clone();
        before.push(report.transcript);
        let decision = row.take(at_ms, report, &self.test);
        if decision == Decision::Acquit {
            self.discard(&before);
        }
        inner.shorten()?;
        Ok(decision)
    }

    /// How it stands with a provider.
    pub fn standing(&self, provider: NodeId) -> Standing {
        self.inner().rows.get(&provider).cloned().unwrap_or_default()
    }

    /// Providers whose test convicts them.
    pub fn convicted(&self) -> Vec<NodeId> {
        let inner = self.inner();
        let mut all: Vec<NodeId> =
            inner.rows.iter().filter(|(_, row)| row.convicted).map(|(provider, _)| *provider).collect();
        all.sort_unstable();
        all
    }

    /// The charge against a provider whose test convicts it, as far as its transcripts can be read.
    pub fn charge(&self, provider: NodeId) -> Option<Charge> {
        let case = self.inner().rows.get(&provider).filter(|row| row.convicted)?.case.clone();
        // The newest, as many as may travel together.
        let (mut transcripts, mut room) = (Vec::new(), MAX_CHARGE.saturating_sub(1_024));
        for transcript in case.iter().rev().filter_map(|digest| self.read(digest)) {
            match room.checked_sub(transcript.encoded_size()) {
                Some(left) => room = left,
                None => break,
            }
            transcripts.push(transcript);
        }
        transcripts.reverse();
        let transcripts = Bounded::new(transcripts).ok().filter(|all| !all.is_empty())?;
        Some(Charge { provider: provider.0, transcripts })
    }

    /// The case was judged: the next test begins.
    ///
    /// # Errors
    /// [`RecordError::Journal`]; it stands as it was.
    pub fn close(&self, provider: NodeId) -> Result<(), RecordError> {
        self.end(provider, &Record::Closed { provider: provider.0 }, None)
    }

    /// A verdict on a job of it went to the chain: the next test begins, and the verdict waits to be executed.
    ///
    /// # Errors
    /// [`RecordError::Journal`]; it stands as it was.
    pub fn judged(&self, provider: NodeId, job: [u8; 16]) -> Result<(), RecordError> {
        self.end(provider, &Record::Judged { provider: provider.0, job }, Some((provider, job)))
    }

    /// A verdict waits no more.
    ///
    /// # Errors
    /// [`RecordError::Journal`]; it stands as it was.
    pub fn executed(&self, (provider, job): Waiting) -> Result<(), RecordError> {
        let mut inner = self.inner();
        inner.journal.append(&Record::Executed { provider: provider.0, job }.encode())?;
        inner.records += 1;
        inner.waiting.retain(|it| *it != (provider, job));
        Ok(())
    }

    /// The verdicts that this machine brought to the chain and that wait there.
    pub fn waiting(&self) -> Vec<Waiting> {
        self.inner().waiting.clone()
    }

    /// How it stands with at most so many providers: those that failed most first, then those audited last.
    pub fn standings(&self, most: usize) -> Vec<(NodeId, Standing)> {
        let mut all: Vec<_> = self.inner().rows.iter().map(|(id, row)| (*id, row.clone())).collect();
        all.sort_by_key(|(_, row)| std::cmp::Reverse((row.failed, row.last_ms)));
        all.truncate(most);
        all
    }

    fn end(&self, provider: NodeId, record: &Record, waits: Option<Waiting>) -> Result<(), RecordError> {
        let mut inner = self.inner();
        inner.journal.append(&record.encode())?;
        inner.records += 1;
        inner.waiting.extend(waits);
        let row = inner.rows.entry(provider).or_default();
        let old = std::mem::take(&mut row.case);
        row.begin();
        self.discard(&old);
        Ok(())
    }

    fn keep(&self, transcript: &Transcript) -> Result<(), RecordError> {
        let path = file(&self.folder, &transcript.digest());
        atomic::write(&path, |out| out.write_all(&transcript.encode()))
            .map_err(|source| RecordError::Io { path, source })
    }

    fn read(&self, digest: &Hash) -> Option<Transcript> {
        let path = file(&self.folder, digest);
        let small = fs::metadata(&path).ok()?.len() <= MAX_TRANSCRIPT as u64;
        let bytes = small.then(|| fs::read(&path).ok())??;
        let (transcript, case) = Transcript::open(&bytes).ok()?;
        (case.digest == *digest).then_some(transcript)
    }

    fn discard(&self, transcripts: &[Hash]) {
        for digest in transcripts {
            let _ = fs::remove_file(file(&self.folder, digest));
        }
    }

    /// Deletes transcripts that no test needs: a crash may leave some.
    fn sweep(&self) {
        let needed: Vec<PathBuf> = {
            let inner = self.inner();
            inner.rows.values().flat_map(|row| &row.case).map(|digest| file(&self.folder, digest)).collect()
        };
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let ours = path.extension().is_some_and(|extension| extension == "transcript");
            if ours && !needed.contains(&path) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl Inner {
    /// Forgets the provider against which nothing speaks and that was audited longest ago.
    fn forget(&mut self) -> Result<(), RecordError> {
        let clean = self.rows.iter().filter(|(_, row)| row.sum <= 0 && !row.convicted);
        let oldest = clean.min_by_key(|(_, row)| row.last_ms).map(|(provider, _)| *provider);
        let oldest = oldest.ok_or(RecordError::Full)?;
        self.rows.remove(&oldest);
        self.rewrite()
    }

    fn shorten(&mut self) -> Result<(), RecordError> {
        if self.records > RECORDS { self.rewrite() } else { Ok(()) }
    }

    fn rewrite(&mut self) -> Result<(), RecordError> {
        let record = |(provider, standing): (&NodeId, &Standing)| {
            Record::Standing { provider: provider.0, standing: standing.clone() }.encode()
        };
        let judged = |&(provider, job): &Waiting| Record::Judged { provider: provider.0, job }.encode();
        let waiting = self.waiting.iter().map(judged);
        let records: Vec<Vec<u8>> = waiting.chain(self.rows.iter().map(record)).collect();
        self.journal.rewrite(records.iter().map(Vec::as_slice))?;
        self.records = records.len();
        Ok(())
    }
}
