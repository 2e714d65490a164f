//! Records with vectors, without embedding each: to fill a memory with a million.
//!
//! The node embeds a few thousand real texts and exports them with their vectors. Copies of those, with other words
//! in front and their vectors moved a little, are signed with a key made for this run, numbered without gaps, and
//! imported as what they then are: another machine's export. The node checks every signature and treats them like
//! any record that came from elsewhere. What such a run does not show is the time for embedding so many texts.

use std::{
    fs::File,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{BufRead as _, BufReader, Write},
    path::PathBuf,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;
use potluck::memory::{
    clock::{Clock, Stamp},
    record::{Context, Draft, Millis, RecordId, Row, Signer, Vectors, Version},
};
use serde_json::Value;

use super::{random::Random, texts::Texts};

/// Most rows of a record that is copied: itself and one passage. Words in front may split longer texts elsewhere.
const ROWS: usize = 2;
/// How far a number of a vector is moved at most, in steps of its 8 bits.
const MOVE: usize = 3;

/// Where a line of the export holds its parts.
#[derive(Clone, Debug)]
struct Shape {
    line: Value,
    version: Option<String>,
    vectors: Option<String>,
}

/// A text and its vectors.
#[derive(Clone, Debug)]
struct Original {
    content: String,
    model: String,
    dims: u16,
    rows: Vec<Row>,
}

/// Writes lines of an export.
#[derive(Debug)]
pub struct Copier {
    shapes: Vec<Shape>,
    originals: Vec<Original>,
    project: String,
    signer: Signer,
    clock: Clock,
    sequence: u64,
    random: Random,
}

/// Reads an export, line by line.
#[derive(Debug, Default)]
pub struct Reader {
    shapes: Vec<Shape>,
    texts: std::collections::HashMap<RecordId, String>,
    vectors: Vec<Vectors>,
}

impl Reader {
    /// Takes a line.
    pub fn take(&mut self, line: Value) {
        let version = find::<Version>(&line, "");
        let vectors = find::<Vectors>(&line, "");
        let known = |shape: &Shape| {
            shape.version.is_some() == version.is_some() && shape.vectors.is_some() == vectors.is_some()
        };
        if (version.is_some() || vectors.is_some()) && !self.shapes.iter().any(known) {
            let place = |found: &Option<(String, _)>| found.as_ref().map(|(at, _)| at.clone());
            let (version, vectors) = (version.as_ref().map(|v| v.0.clone()), place(&vectors));
            self.shapes.push(Shape { line, version, vectors });
        }
        if let Some((_, Version { header, body: Some(body), .. })) = version {
            self.texts.insert(header.id, body);
        }
        self.vectors.extend(vectors.map(|(_, vectors)| vectors));
    }

    /// The copier of what was read.
    ///
    /// # Errors
    /// When the export does not show texts and their vectors in a way that is understood here.
    pub fn copier(self, project: &str, seed: u64) -> Result<Copier> {
        let original = |vectors: Vectors| {
            let rows = vectors.rows.filter(|rows| rows.len() <= ROWS)?;
            let content = self.texts.get(&vectors.version)?.clone();
            Some(Original { content, model: vectors.model, dims: vectors.dims, rows })
        };
        let originals: Vec<Original> = self.vectors.into_iter().filter_map(original).collect();
        // One line that holds both is enough; else one of each is needed.
        let mut shapes = self.shapes;
        if let Some(both) = shapes.iter().position(|shape| shape.version.is_some() && shape.vectors.is_some())
        {
            shapes = vec![shapes.swap_remove(both)];
        }
        shapes.sort_by_key(|shape| shape.version.is_none());
        ensure!(
            !originals.is_empty() && shapes.iter().any(|shape| shape.vectors.is_some()),
            "the node's export shows no signed versions with vectors of at most {ROWS} rows that could be copied; \
             use --embed node"
        );
        Ok(Copier {
            shapes,
            originals,
            project: project.to_owned(),
            signer: Signer::from_seed(throw_away()),
            clock: Clock::starting_at(Stamp::ZERO),
            sequence: 0,
            random: Random::of(seed, "copies"),
        })
    }
}

impl Copier {
    /// How many texts there are to copy.
    pub const fn len(&self) -> usize {
        self.originals.len()
    }

    /// Signs with this key instead of one that nobody keeps. Its machine must never have written anything: the copies
    /// are its first entries.
    #[must_use]
    pub fn signed_with(mut self, seed: [u8; 32]) -> Self {
        self.signer = Signer::from_seed(seed);
        self
    }

    /// The texts that are copied.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.originals.iter().map(|original| original.content.clone())
    }

    /// Whether there are none, which [`Reader::copier`] refuses.
    pub const fn is_empty(&self) -> bool {
        self.originals.is_empty()
    }

    /// The lines of copy number `index`, from 0: of the first text, the second, … and so on around.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub fn lines(&mut self, texts: &Texts, index: usize) -> Result<Vec<String>> {
        let count = self.originals.len().max(1);
        let original = self.originals.get(index % count).context("nothing to copy")?;
        let content = texts.variant(&original.content, index / count + 1);
        let rows: Vec<Row> = original.rows.iter().map(|row| moved(row, &mut self.random)).collect();
        let model = (original.model.clone(), original.dims);
        let now = Millis::now();
        let id = RecordId::generate(now);
        let draft = Draft { content, project: Some(self.project.clone()), ..Draft::default() };
        let context = Context { id, stamp: self.clock.now(now.0), sequence: self.sequence + 1 };
        let version = Version::seal(draft, context, &self.signer).map_err(|error| anyhow!("{error}"))?;
        let place = (self.clock.now(now.0), self.sequence + 2);
        let vectors =
            Vectors::seal(id, model, rows, place, &self.signer).map_err(|error| anyhow!("{error}"))?;
        self.sequence += 2;
        self.shapes.iter().map(|shape| shape.filled(&version, &vectors)).collect()
    }
}

/// What lines of copies are made of.
#[derive(Args, Clone, Debug)]
pub struct CopiesArgs {
    /// A node's export with vectors (`GET /potluck/v1/memory/export?vectors=true`).
    export: PathBuf,
    /// How many copies.
    #[arg(long)]
    count: usize,
    /// Their project.
    #[arg(long)]
    project: String,
    /// The key (32 bytes) of the machine that signs them, which must never have written anything.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// Writes copies of an export's texts as lines of an export, for programs that fill memories.
///
/// # Errors
/// A file that cannot be read or written, or is not what it should be.
pub fn write(args: &CopiesArgs, seed: u64, mut out: impl Write) -> Result<()> {
    let mut reader = Reader::default();
    let file = File::open(&args.export).with_context(|| format!("opening {}", args.export.display()))?;
    for line in BufReader::new(file).lines() {
        reader.take(serde_json::from_str(&line?).context("the export has a line that is no JSON")?);
    }
    let mut copier = reader.copier(&args.project, seed)?;
    if let Some(path) = &args.key {
        let key = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let key = key.try_into().map_err(|_| anyhow!("{} is no key of 32 bytes", path.display()))?;
        copier = copier.signed_with(key);
    }
    let texts = Texts::new(copier.texts(), seed)?;
    for index in 0..args.count {
        for line in copier.lines(&texts, index)? {
            writeln!(out, "{line}")?;
        }
    }
    out.flush().context("writing the copies")
}

impl Shape {
    /// The line with other parts in it.
    fn filled(&self, version: &Version, vectors: &Vectors) -> Result<String> {
        let mut line = self.line.clone();
        put(&mut line, self.version.as_deref(), serde_json::to_value(version)?)?;
        put(&mut line, self.vectors.as_deref(), serde_json::to_value(vectors)?)?;
        Ok(line.to_string())
    }
}

fn put(line: &mut Value, at: Option<&str>, part: Value) -> Result<()> {
    if let Some(at) = at {
        let place = line.pointer_mut(at).context("the line has lost a part")?;
        // Side by side with the part there may be more in the same object; that stays.
        match (place, part) {
            (Value::Object(place), Value::Object(part)) => place.extend(part),
            (place, part) => *place = part,
        }
    }
    Ok(())
}

/// The first part of a line that is such a thing, and where it stands.
fn find<T: serde::de::DeserializeOwned>(value: &Value, at: &str) -> Option<(String, T)> {
    let Value::Object(fields) = value else { return None };
    if let Ok(found) = serde_json::from_value(value.clone()) {
        return Some((at.to_owned(), found));
    }
    fields.iter().find_map(|(name, inner)| {
        find(inner, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")))
    })
}

/// A vector near another, of length 1.
fn moved(row: &Row, random: &mut Random) -> Row {
    let step = |value: &i8, random: &mut Random| {
        let by = i8::try_from(random.below(2 * MOVE + 1)).unwrap_or(0) - MOVE as i8;
        value.saturating_add(by)
    };
    let values: Vec<i8> = row.values.iter().map(|value| step(value, random)).collect();
    let squares: f32 = values.iter().map(|&value| f32::from(value) * f32::from(value)).sum();
    Row { scale: if squares > 0.0 { squares.sqrt().recip() } else { row.scale }, values }
}

/// The seed of a key that nobody keeps.
fn throw_away() -> [u8; 32] {
    let mut seed = [0; 32];
    for part in seed.chunks_mut(8) {
        // The hasher's keys are random, and differ each time.
        let random = RandomState::new().build_hasher().finish().to_le_bytes();
        part.copy_from_slice(random.get(..part.len()).unwrap_or_default());
    }
    seed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parts(number: u64, signer: &Signer) -> (Version, Vectors) {
        let now = Millis::now();
        let id = RecordId::generate(now);
        let stamp = Stamp::new(now.0, 0);
        let content = format!(
            "A real text with plain words enough for every copy that puts other words between them, number {number}."
        );
        let draft = Draft { content, ..Draft::default() };
        let context = Context { id, stamp, sequence: number * 2 - 1 };
        let version = Version::seal(draft, context, signer).unwrap();
        let row = Row { scale: 0.01, values: (0..100).map(|n| (n % 21) - 10).collect() };
        let vectors =
            Vectors::seal(id, ("m@1".into(), 100), vec![row.clone(), row], (stamp, number * 2), signer)
                .unwrap();
        (version, vectors)
    }

    fn texts() -> Texts {
        let base =
            (0..5).map(|n| format!("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu {n}"));
        Texts::new(base, 1).unwrap()
    }

    fn check(reader: Reader, lines_each: usize) {
        let mut copier = reader.copier("speed", 1).unwrap();
        assert_eq!(copier.len(), 3);
        let mut all = Reader::default();
        let mut sequences = Vec::new();
        for index in 0..7 {
            let lines = copier.lines(&texts(), index).unwrap();
            assert_eq!(lines.len(), lines_each);
            for line in lines {
                let line: Value = serde_json::from_str(&line).unwrap();
                if let Some((_, version)) = find::<Version>(&line, "") {
                    version.verify().unwrap();
                    assert_eq!(version.header.project.as_deref(), Some("speed"));
                    sequences.push(version.header.sequence);
                }
                if let Some((_, vectors)) = find::<Vectors>(&line, "") {
                    vectors.verify().unwrap();
                    sequences.push(vectors.sequence);
                }
                all.take(line);
            }
        }
        assert_eq!(sequences, (1..=14).collect::<Vec<u64>>());
        let different: std::collections::BTreeSet<&String> = all.texts.values().collect();
        assert_eq!((different.len(), all.vectors.len()), (7, 7));
    }

    #[test]
    fn copies_are_signed_numbered_and_different() {
        let signer = Signer::from_seed([7; 32]);
        let (mut together, mut apart) = (Reader::default(), Reader::default());
        for number in 1..=3 {
            let (version, vectors) = parts(number, &signer);
            together.take(
                json!({"origin": "x", "version": version, "vectors": [1], "more": {"vectors": vectors}}),
            );
            apart.take(json!({"origin": "x", "version": version}));
            apart.take(json!({"origin": "x", "vectors": vectors}));
        }
        check(together, 1);
        check(apart, 2);
    }

    #[test]
    fn copies_are_written_in_the_name_of_a_given_key() {
        let folder = tempfile::tempdir().unwrap();
        let (export, key) = (folder.path().join("export"), folder.path().join("key"));
        let signer = Signer::from_seed([7; 32]);
        let line = |number| {
            let (version, vectors) = parts(number, &signer);
            json!({"version": version, "vectors": vectors}).to_string() + "\n"
        };
        std::fs::write(&export, (1..=3).map(line).collect::<String>()).unwrap();
        std::fs::write(&key, [9; 32]).unwrap();
        let args = CopiesArgs { export, count: 5, project: "bulk".into(), key: Some(key) };
        let mut written = Vec::new();
        write(&args, 1, &mut written).unwrap();
        let lines: Vec<Value> = String::from_utf8(written)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 5);
        for line in lines {
            let (_, version) = find::<Version>(&line, "").unwrap();
            version.verify().unwrap();
            assert_eq!(version.header.origin, Signer::from_seed([9; 32]).node());
        }
    }

    #[test]
    fn an_export_that_is_not_understood_is_refused() {
        let mut reader = Reader::default();
        reader.take(json!({"id": "x", "content": "y"}));
        assert!(reader.copier("p", 1).unwrap_err().to_string().contains("--embed node"));
    }

    #[test]
    fn a_moved_vector_stays_near_and_has_length_one() {
        let row = Row { scale: 0.01, values: (0..384).map(|n| ((n * 37) % 160) as u8 as i8 / 2).collect() };
        let near = moved(&row, &mut Random::new(1));
        let dot = |a: &Row, b: &Row| -> f32 {
            let values = a.values.iter().zip(&b.values).map(|(&a, &b)| f32::from(a) * f32::from(b));
            values.sum::<f32>() * a.scale * b.scale
        };
        assert!((dot(&near, &near) - 1.0).abs() < 1e-4);
        assert!(dot(&row, &near) / dot(&row, &row).sqrt() > 0.99);
        assert_ne!(near.values, row.values);
        assert_ne!(throw_away(), throw_away());
    }
}
