//! Time, throughput and size by the number of records, over HTTP.

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{
    bootstrap::p50_p95,
    cli::or_shared,
    copies::{Copier, Reader},
    layout::{Question, lines, pool},
    need::Need,
    node::{Node, NodeArgs, machine, version},
    report::table,
    store::{Store, progress},
    texts::Texts,
};

/// The project of the bulk, so that facts put in while measuring are not taken for it.
const PROJECT: &str = "speed";
/// Questions asked before those that are timed.
const WARM: usize = 20;
/// Records put together for one import.
const STEP: usize = 20_000;

/// How the bulk of the records gets its vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Embed {
    /// The node embeds every one: the whole truth, and hours for a million on two cores.
    #[default]
    Node,
    /// The node embeds the real texts; copies of them come with copied vectors, as another machine's export.
    Copies,
}

/// What the speed table is made of.
#[derive(Args, Clone, Debug)]
pub struct SpeedArgs {
    /// Numbers of records, ascending.
    #[arg(long, value_delimiter = ',', default_value = "5000,10000,100000")]
    sizes: Vec<usize>,
    /// Real texts: JSON Lines of {id, turns}, each turn a text; or any other file, each line a text.
    #[arg(long, value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Questions: JSON Lines with a field `query`.
    #[arg(long, value_name = "FILE")]
    queries: Option<PathBuf>,
    /// How the bulk gets its vectors.
    #[arg(long, value_enum, default_value_t)]
    embed: Embed,
    /// Questions timed at each size.
    #[arg(long, default_value_t = 300)]
    asks: usize,
    /// Records written and looked for at each size.
    #[arg(long, default_value_t = 200)]
    writes: usize,
}

/// The figures at one size, times in milliseconds as (median, 95th percentile).
#[derive(Clone, Debug, Default)]
struct Row {
    size: usize,
    live: u64,
    overlay: u64,
    imported: usize,
    import_rate: f64,
    ready_rate: f64,
    recall: (f64, f64),
    embed: (f64, f64),
    without: (f64, f64),
    remember: (f64, f64),
    written: usize,
    lost: usize,
    record_bytes: f64,
    disk_bytes: Option<f64>,
    resident: Option<(u64, u64)>,
}

/// The speed table.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
    embedder: Option<String>,
}

/// Fills one memory step by step and measures it at every size.
///
/// # Errors
/// The node's refusal, or a file that cannot be read.
pub fn measure(args: &SpeedArgs, node: &NodeArgs, seed: u64) -> Result<Table> {
    ensure!(args.sizes.is_sorted() && !args.sizes.is_empty(), "--sizes must ascend");
    let texts = Texts::new(args.texts()?, seed)?;
    let questions = args.questions()?;
    ensure!(!questions.is_empty(), "there are no questions");
    let node_args = node;
    let node = Node::open(node_args)?;
    let store = Store::new(node.client()?, node_args.words_only);
    let mut bench = Bench { args, node, store, texts, questions, copier: None, filled: 0, names: 0, seed };
    let found = bench.store.stats()?;
    ensure!(found.live == 0, "the memory holds {} records; measure one that is empty", found.live);
    let mut rows = Vec::new();
    for &size in &args.sizes {
        let row = bench.at(size)?;
        eprintln!("{size}: recall {:.1} ms, remember {:.1} ms", row.recall.0, row.remember.0);
        rows.push(row);
    }
    let embedder = bench.store.stats()?.embedder;
    Ok(Table { rows, notes: bench.notes(node_args.words_only), embedder })
}

struct Bench<'a> {
    args: &'a SpeedArgs,
    node: Node,
    store: Store,
    texts: Texts,
    questions: Vec<Question>,
    copier: Option<Copier>,
    filled: usize,
    names: usize,
    seed: u64,
}

impl Bench<'_> {
    /// Fills up to this size and measures there.
    fn at(&mut self, size: usize) -> Result<Row> {
        let mut row = Row { size, imported: size.saturating_sub(self.filled), ..Row::default() };
        self.fill(size, &mut row)?;
        let stats = self.store.settle()?;
        (row.live, row.overlay) = (stats.live, stats.overlay);
        row.record_bytes = stats.bytes.values().sum::<u64>() as f64 / stats.live.max(1) as f64;
        row.disk_bytes = self.node.on_disk().map(|bytes| bytes as f64 / stats.live.max(1) as f64);
        self.recall(&mut row)?;
        self.remember(&mut row)?;
        row.resident = self.node.resident();
        Ok(row)
    }

    fn fill(&mut self, size: usize, row: &mut Row) -> Result<()> {
        let bar = progress((size - self.filled.min(size)) as u64, "importing");
        let (mut sent, mut making) = (0.0, 0.0);
        let began = Instant::now();
        while self.filled < size {
            let made = Instant::now();
            let (format, count, batch) = self.batch(size)?;
            making += made.elapsed().as_secs_f64();
            let started = Instant::now();
            let done = self.store.import(format, batch.into_iter())?;
            sent += started.elapsed().as_secs_f64();
            let refusal = done.errors.first();
            ensure!(
                done.refused == 0 && done.added > 0,
                "the node refused {} lines: {refusal:?}",
                done.refused
            );
            self.filled += count;
            bar.inc(count as u64);
        }
        bar.finish_and_clear();
        self.store.settle()?;
        row.import_rate = row.imported as f64 / f64::max(sent, 1e-9);
        row.ready_rate = row.imported as f64 / f64::max(began.elapsed().as_secs_f64() - making, 1e-9);
        Ok(())
    }

    /// The next lines, how many records they are, and their format.
    fn batch(&mut self, size: usize) -> Result<(&'static str, usize, Vec<String>)> {
        let copies = self.args.embed == Embed::Copies;
        let end = size.min(self.filled + STEP);
        if !copies || self.filled < self.texts.len() {
            let end = if copies { end.min(self.texts.len()) } else { end };
            let line = |index| json!({"content": self.texts.text(index), "project": PROJECT}).to_string();
            return Ok(("", end - self.filled, (self.filled..end).map(line).collect()));
        }
        if self.copier.is_none() {
            self.copier = Some(self.learn()?);
        }
        let mut batch = Vec::new();
        if let Some(copier) = &mut self.copier {
            for index in self.filled - self.texts.len()..end - self.texts.len() {
                batch.extend(copier.lines(&self.texts, index)?);
            }
        }
        Ok(("export", end - self.filled, batch))
    }

    /// Reads the real texts back, with their vectors.
    fn learn(&mut self) -> Result<Copier> {
        self.store.settle()?;
        let mut reader = Reader::default();
        let path = format!("/potluck/v1/memory/export?vectors=true&project={PROJECT}");
        self.store.client().get_lines(&path, |line| {
            reader.take(line);
            Ok(())
        })?;
        reader.copier(PROJECT, self.seed)
    }

    fn recall(&mut self, row: &mut Row) -> Result<()> {
        let (mut all, mut embed, mut without) = (Vec::new(), Vec::new(), Vec::new());
        let asked = self.questions.iter().cycle().take(WARM + self.args.asks);
        for (index, question) in asked.enumerate() {
            let answer = self.store.recall(None, question, 10)?;
            if index >= WARM {
                all.push(answer.http_ms);
                embed.push(answer.embed_ms);
                without.push(answer.http_ms - answer.embed_ms);
            }
        }
        (row.recall, row.embed, row.without) = (p50_p95(all), p50_p95(embed), p50_p95(without));
        Ok(())
    }

    /// Writes facts one by one, and after each asks for it at once.
    fn remember(&mut self, row: &mut Row) -> Result<()> {
        let mut times = Vec::new();
        for _ in 0..self.args.writes {
            self.names += 1;
            let name = Texts::name(self.names);
            let text = format!("{name} keeps the spare key of the boat house in drawer {}.", self.names);
            let (id, took) = self.store.remember(&text)?;
            times.push(took);
            let question =
                Question { text: format!("Where does {name} keep the spare key?"), ..Question::default() };
            let answer = self.store.recall(None, &question, 10)?;
            row.lost += usize::from(!answer.items.iter().any(|item| item.id == id));
        }
        row.written = times.len();
        row.remember = p50_p95(times);
        Ok(())
    }

    fn notes(&self, words_only: bool) -> Vec<String> {
        let how = match (words_only, self.args.embed) {
            (true, _) => "Recall is by words alone; no record has vectors.",
            (false, Embed::Node) => "The node embedded every record itself.",
            (false, Embed::Copies) => {
                "The node embedded the real texts; the copies came as another machine's signed export, each with \
                 the vectors of its original moved a little. The import rate is of checking and indexing them, \
                 not of embedding."
            }
        };
        vec![
            format!(
                "{} real texts of 20 to {} bytes; beyond them copies that begin with words counting which copy it is.",
                self.texts.len(),
                super::texts::LONGEST
            ),
            how.to_owned(),
            format!(
                "One node, grown from size to size; {} questions, 10 items each, one after the other, over a kept \
                 connection; {} records written one by one, each looked for by the very next recall.",
                self.args.asks, self.args.writes
            ),
        ]
    }
}

impl SpeedArgs {
    fn texts(&self) -> Result<Vec<String>> {
        let files = match self.text.as_slice() {
            [] => ["corpus.jsonl", "s_distractors.jsonl"]
                .into_iter()
                .map(|file| or_shared(None, file, "--text"))
                .collect::<Result<_>>()?,
            given => given.to_vec(),
        };
        let mut all = Vec::new();
        for file in files {
            match pool::turns(&file) {
                Ok(turns) => all.extend(turns),
                Err(_) => all.extend(std::fs::read_to_string(&file)?.lines().map(str::to_owned)),
            }
        }
        Ok(all)
    }

    fn questions(&self) -> Result<Vec<Question>> {
        let file = or_shared(self.queries.as_deref(), "queries.dev.jsonl", "--queries")?;
        let query = |line: Value| {
            let text = line.get("query")?.as_str()?.to_owned();
            Some(Question { text, ..Question::default() })
        };
        Ok(lines(&file)?.into_iter().filter_map(query).collect())
    }
}

impl Table {
    /// The table.
    pub fn text(&self) -> String {
        let by = self.embedder.as_deref().unwrap_or("words alone");
        let mut out = format!("# Speed\n\nBy {by}; {}; Potluck {}.\n", machine(), version());
        out.push_str(&self.notes.join("\n"));
        out.push('\n');
        let heads = [
            "records",
            "recall p50/p95 ms",
            "of it embedding",
            "without it",
            "remember p50/p95 ms",
            "found at once",
            "import/s",
            "ready/s",
            "B/record",
            "disk B/record",
            "RSS (peak) MB",
        ];
        let pair = |(p50, p95): (f64, f64)| format!("{p50:.1} / {p95:.1}");
        let cells = |row: &Row| {
            let resident = row.resident.map(|(now, peak)| format!("{} ({})", now >> 20, peak >> 20));
            vec![
                row.live.to_string(),
                pair(row.recall),
                pair(row.embed),
                pair(row.without),
                pair(row.remember),
                format!("{}/{}", row.written - row.lost, row.written),
                format!("{:.0}", row.import_rate),
                format!("{:.0}", row.ready_rate),
                format!("{:.0}", row.record_bytes),
                row.disk_bytes.map_or_else(|| "–".into(), |bytes| format!("{bytes:.0}")),
                resident.unwrap_or_else(|| "–".into()),
            ]
        };
        table(&mut out, &heads.map(str::to_owned), &self.rows.iter().map(cells).collect::<Vec<_>>());
        out
    }

    /// Everything.
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({"suite": "speed", "notes": self.notes, "embedder": self.embedder, "machine": machine(),
            "version": version(), "rows": rows})
    }

    /// The figure a need asks for: a field of the row's JSON.
    pub fn figure(&self, need: &Need) -> Option<f64> {
        let row = match &need.of {
            None => self.rows.last(),
            Some(size) => self.rows.iter().find(|row| row.size.to_string() == *size),
        };
        row?.json().get(&need.name)?.as_f64()
    }
}

impl Row {
    fn json(&self) -> Value {
        let (resident, peak) = self.resident.map_or((None, None), |(now, peak)| (Some(now), Some(peak)));
        json!({
            "size": self.size, "live": self.live, "overlay": self.overlay, "imported": self.imported,
            "import_per_s": self.import_rate, "ready_per_s": self.ready_rate,
            "recall_p50_ms": self.recall.0, "recall_p95_ms": self.recall.1,
            "embed_p50_ms": self.embed.0, "embed_p95_ms": self.embed.1,
            "without_embed_p50_ms": self.without.0, "without_embed_p95_ms": self.without.1,
            "remember_p50_ms": self.remember.0, "remember_p95_ms": self.remember.1,
            "written": self.written, "not_found_at_once": self.lost, "bytes_per_record": self.record_bytes,
            "disk_bytes_per_record": self.disk_bytes, "rss_bytes": resident, "peak_rss_bytes": peak,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_every_figure_and_needs_find_it() {
        let row = |size: usize, p95| Row {
            size,
            live: size as u64,
            recall: (1.0, p95),
            written: 5,
            lost: 1,
            resident: Some((3 << 20, 4 << 20)),
            ..Row::default()
        };
        let table =
            Table { rows: vec![row(10, 2.0), row(20, 3.0)], notes: vec!["Note.".into()], embedder: None };
        let text = table.text();
        assert!(text.contains("1.0 / 3.0") && text.contains("4/5") && text.contains("3 (4)"), "{text}");
        assert_eq!(table.json()["rows"][0]["not_found_at_once"], 1);
        let figure = |text: &str| table.figure(&text.parse().unwrap());
        assert_eq!(figure("recall_p95_ms<=5"), Some(3.0));
        assert_eq!(figure("10:recall_p95_ms<=5"), Some(2.0));
        assert_eq!((figure("x<=5"), figure("30:recall_p95_ms<=5")), (None, None));
    }
}
