//! Answers made, replayed and written down.

use std::{fs, path::Path, time::Instant};

use anyhow::{Context as _, Result};
use potluck_kernels::{
    audit::{Answer, Limits, Numerics, Request, Trace},
    cpu::{CpuBackend, Simd},
    cube::{CubeBackend, Selection},
    dtype::DType,
    model::Decoder,
};
use serde::{Deserialize, Serialize};

use super::{
    attack::{Attack, answers, positions, requests},
    serve::{Job, decoder, on_cpu, replay, serve},
    subject::{Change, Subject},
};

/// Lengths at which answers are judged, in tokens.
pub const MARKS: [usize; 8] = [8, 16, 32, 64, 100, 150, 200, 300];
/// Clips that are tried, in micro-logits.
pub const CLIPS: [i64; 4] = [100_000, 250_000, 500_000, 2_000_000];
/// Honest requests have numbers from here on, so that limits are set on other prompts than cheats are measured on.
const HONEST: usize = 1_000_000;

/// An answer under audit, in short.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// How its tokens were drawn, see [`super::serve::preset`].
    pub preset: usize,
    /// Its length.
    pub tokens: usize,
    /// Sums of margins in micro-logits at each of [`MARKS`], for each of [`CLIPS`].
    pub margins: Vec<[i64; 4]>,
    /// Tokens that the verifier would not have drawn, at each of [`MARKS`].
    pub differing: Vec<u32>,
    /// Largest margin of all, in micro-logits.
    pub largest: i64,
    /// Margin of the end, or of where it should have been.
    pub end: Option<i64>,
    /// Whether the verifier would have ended the answer before.
    pub past: bool,
    /// Least agreement of exponents, largest mean and median difference of mantissas, at each of [`MARKS`] and at the
    /// end, where a commitment could be judged.
    pub activations: Vec<Option<[u32; 3]>>,
    /// Verdicts by [`Limits::EXACT`]: accounts, forced and activations failed.
    pub exact: [bool; 3],
    /// The same by [`Limits::FLOAT`].
    pub float: [bool; 3],
}

/// Answers of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// The model that was asked for.
    pub subject: String,
    /// `honest`, `honest-gpu`, or an attack's name.
    pub kind: String,
    /// What the answers were made on.
    pub made: Vec<String>,
    /// The answers.
    pub rows: Vec<Row>,
    /// Seconds of making and of replaying them.
    pub seconds: [f64; 2],
}

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Answers of each kind.
    pub answers: usize,
    /// Threads of verifier and attackers.
    pub threads: usize,
    /// Sequences at once.
    pub batch: usize,
}

fn failed(verdict: potluck_kernels::audit::Verdict) -> [bool; 3] {
    use potluck_kernels::audit::Outcome::Failed;
    [verdict.accounts == Failed, verdict.forced == Failed, verdict.activations == Failed]
}

/// A trace in short.
pub fn row(preset: usize, trace: &Trace) -> Row {
    let at = |mark| CLIPS.map(|clip| trace.score_first(mark, &Limits { clip, ..Limits::FLOAT }).margins);
    let float = |mark| trace.score_first(mark, &Limits::FLOAT);
    let whole = float(usize::MAX);
    let worst = |mark| float(mark).activations.map(|it| [it.agreement, it.mantissa, it.median]);
    Row {
        preset,
        tokens: trace.margins.len(),
        margins: MARKS.map(at).to_vec(),
        differing: MARKS.map(|mark| float(mark).differing).to_vec(),
        largest: trace.margins.iter().copied().max().unwrap_or(0),
        end: whole.end,
        past: !trace.past.is_empty(),
        activations: MARKS.into_iter().chain([usize::MAX]).map(worst).collect(),
        exact: failed(Limits::EXACT.judge(&trace.score(&Limits::EXACT))),
        float: failed(Limits::FLOAT.judge(&whole)),
    }
}

/// A verifier's decoder.
///
/// # Errors
/// The model cannot be loaded.
pub fn verifier(subject: &Subject, settings: &Settings) -> Result<Decoder<CpuBackend>> {
    on_cpu(&subject.gguf, settings.threads, None, settings.batch, positions(subject))
}

fn replayed(
    subject: &Subject,
    right: &mut Decoder<CpuBackend>,
    requests: &[Request],
    answers: &[Answer],
) -> Result<Vec<Row>> {
    let each = |(request, answer): (&Request, &Answer)| {
        let trace = replay(right, request, answer, &subject.ends)?;
        Ok(row(preset_number(request), &trace))
    };
    requests.iter().zip(answers).map(each).collect()
}

/// Ways to answer honestly on the CPU: threads, instruction set, sequences at once, and a weight.
fn ways() -> Vec<(usize, Simd, usize, usize)> {
    let all = [
        (1, Simd::Avx512Vnni, 32, 50),
        (2, Simd::Avx512Vnni, 7, 5),
        (1, Simd::Avx2, 16, 30),
        (3, Simd::Avx2, 5, 1),
        (1, Simd::Neon, 16, 40),
        (1, Simd::Scalar, 12, 8),
        (2, Simd::Avx2, 1, 2),
        (1, Simd::Avx512Vnni, 1, 4),
    ];
    all.into_iter().filter(|way| way.1.available()).collect()
}

/// Honest answers on the CPU, in every way there is.
///
/// # Errors
/// A model cannot be run.
pub fn honest(subject: &Subject, settings: &Settings) -> Result<Cell> {
    let mut right = verifier(subject, settings)?;
    let (mut rows, mut made, mut seconds) = (Vec::new(), Vec::new(), [0.0; 2]);
    let ways = ways();
    let parts: usize = ways.iter().map(|way| way.3).sum();
    let mut first = HONEST;
    for (threads, simd, batch, part) in ways {
        let count = (settings.answers * part).div_ceil(parts);
        let requests = requests(subject, &mut right, first, count, settings.batch)?;
        let jobs: Vec<Job> = requests.iter().map(Job::honest).collect();
        let mut provider = on_cpu(&subject.gguf, threads, Some(simd), batch, positions(subject))?;
        let begun = Instant::now();
        let answers = serve(&mut provider, &jobs, &subject.ends, Numerics::Exact, batch)?;
        let answered = Instant::now();
        rows.extend(replayed(subject, &mut right, &requests, &answers)?);
        seconds =
            [seconds[0] + (answered - begun).as_secs_f64(), seconds[1] + answered.elapsed().as_secs_f64()];
        made.push(format!("{count} on {threads} threads of {simd}, {batch} at once"));
        first += count;
    }
    Ok(Cell { subject: subject.name.clone(), kind: "honest".into(), made, rows, seconds })
}

/// Honest answers by floats all the way: the file's weights as f32, so that activations are not rounded to eight bits.
/// That is what GPUs do, at the speed of a CPU; [`honest_gpu`] shows how near to it they are.
///
/// # Errors
/// The model cannot be made or run.
pub fn honest_float(subject: &Subject, settings: &Settings) -> Result<Cell> {
    let mut right = verifier(subject, settings)?;
    let first = 3 * HONEST;
    let requests = requests(subject, &mut right, first, settings.answers, settings.batch)?;
    let jobs: Vec<Job> = requests.iter().map(Job::honest).collect();
    let expanded = subject.changed(Change::Stored(DType::F32.gguf_id()))?;
    let mut provider = on_cpu(&expanded, settings.threads, None, settings.batch, positions(subject))?;
    let begun = Instant::now();
    let answers = serve(&mut provider, &jobs, &subject.ends, Numerics::Float, settings.batch)?;
    let answered = Instant::now();
    let rows = replayed(subject, &mut right, &requests, &answers)?;
    let seconds = [(answered - begun).as_secs_f64(), answered.elapsed().as_secs_f64()];
    let made = vec![format!("{} by float activations on the CPU", rows.len())];
    Ok(Cell { subject: subject.name.clone(), kind: "honest-float".into(), made, rows, seconds })
}

/// Honest answers on a GPU, or on a software device that computes as one does.
///
/// # Errors
/// There is none, or the model cannot be run.
pub fn honest_gpu(subject: &Subject, settings: &Settings) -> Result<Cell> {
    let mut right = verifier(subject, settings)?;
    let first = 2 * HONEST;
    let requests = requests(subject, &mut right, first, settings.answers, settings.batch)?;
    let jobs: Vec<Job> = requests.iter().map(Job::honest).collect();
    let backend = CubeBackend::new(Selection::Auto).or_else(|_| CubeBackend::new(Selection::Software))?;
    // Launches cost more than sequences do.
    let batch = 128;
    let mut provider = decoder(&subject.gguf, backend, batch, positions(subject))?;
    let name = potluck_kernels::backend::Backend::describe(provider.backend());
    let begun = Instant::now();
    let answers = serve(&mut provider, &jobs, &subject.ends, Numerics::Float, batch)?;
    let answered = Instant::now();
    let rows = replayed(subject, &mut right, &requests, &answers)?;
    let seconds = [(answered - begun).as_secs_f64(), answered.elapsed().as_secs_f64()];
    let made = vec![format!("{} on {name}, {batch} at once", rows.len())];
    Ok(Cell { subject: subject.name.clone(), kind: "honest-gpu".into(), made, rows, seconds })
}

/// An attack's answers.
///
/// # Errors
/// A model cannot be made or run.
pub fn attacked(subject: &Subject, attack: Attack, settings: &Settings) -> Result<Cell> {
    let mut right = verifier(subject, settings)?;
    let drawn = attack.of_draws();
    let wanted = settings.answers;
    // Where an answer does not come to an end, nobody goes past it.
    let count = match attack {
        _ if drawn => (wanted * 5).div_ceil(4),
        Attack::Past => wanted * 2,
        _ => wanted,
    };
    let requests: Vec<Request> = requests(subject, &mut right, 0, count, settings.batch)?
        .into_iter()
        .filter(|request| !drawn || request.params.temperature > 0.0)
        .collect();
    let begun = Instant::now();
    let answers = answers(attack, subject, &requests, &mut right, settings.threads, settings.batch)?;
    let answered = Instant::now();
    let mut rows = replayed(subject, &mut right, &requests, &answers)?;
    rows.retain(|row| attack != Attack::Past || row.past);
    rows.truncate(wanted);
    let seconds = [(answered - begun).as_secs_f64(), answered.elapsed().as_secs_f64()];
    Ok(Cell { subject: subject.name.clone(), kind: attack.name(), made: Vec::new(), rows, seconds })
}

/// Which of the five ways a request has.
fn preset_number(request: &Request) -> usize {
    let p = &request.params;
    match () {
        () if p.temperature == 0.0 => 0,
        () if p.top_p < 1.0 => 1,
        () if p.top_k > 0 => 3,
        () if p.min_p > 0.0 => 4,
        () => 2,
    }
}

/// Writes a cell into a folder.
///
/// # Errors
/// The file cannot be written.
pub fn keep(folder: &Path, cell: &Cell) -> Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{}.{}.json", cell.subject, cell.kind));
    fs::write(&path, serde_json::to_vec(cell)?)
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// All cells of a folder, by name.
///
/// # Errors
/// A file cannot be read.
pub fn kept(folder: &Path) -> Result<Vec<Cell>> {
    let mut paths: Vec<_> =
        fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
    paths.sort();
    paths.iter().map(|path| Ok(serde_json::from_slice(&fs::read(path)?)?)).collect()
}
