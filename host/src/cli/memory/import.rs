//! `potluck memory import`

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::{Body, Method, header};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    super::{CliError, client::Client, print_line},
    markdown, page,
};
use crate::{
    api::memory::{
        formats::{self, Format, MAX_OBJECT, Object},
        split::{Piece, Splitter},
    },
    memory::{Draft, foreign::Importer},
};

mod foreign;

/// Most bytes of a note.
const NOTE: u64 = 4 << 20;
/// Most files of a folder, and how deep they may lie.
const FILES: usize = 200_000;
const DEPTH: usize = 32;
/// Bytes read at once, and bytes sent at once.
const CHUNK: usize = 64 << 10;
/// Chunks that wait to be sent.
const WAITING: usize = 8;
/// Refusals shown.
const SHOWN: usize = 20;

/// Take in memories: an export of Potluck or mem0, server-memory's file, or notes in Markdown.
///
/// What each file is shows in its contents: JSON Lines or JSON for exports, `.md` for notes of basic-memory,
/// CLAUDE.md and MEMORY.md (one record per observation and per section). Folders are walked; links are not
/// followed. What is known already is not written twice, so that an import can be repeated. With `--with`, an importer reads
/// the sources; it sees nothing else.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck memory import memory.jsonl\n  potluck memory import ~/basic-memory --project notes\n  potluck memory import --with chat-export.wasm ~/Downloads/chatgpt-export\n  potluck memory export - | potluck --url http://other:7685 memory import -"
)]
pub(super) struct Import {
    /// A file, a folder, or `-` for stdin.
    #[arg(required = true)]
    sources: Vec<PathBuf>,
    /// auto, records, export, server-memory or mem0.
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = |text: &str| text.parse::<Format>())]
    format: Format,
    /// An importer for a format that Potluck does not know: a component that reads each source.
    #[arg(long, value_name = "FILE.wasm", conflicts_with = "format")]
    with: Option<PathBuf>,
    /// The project of what names none.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// A tag for everything taken in (repeatable).
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
}

impl Import {
    pub(super) async fn run(self, client: &Client, as_json: bool) -> Result<(), CliError> {
        let importer = match self.with {
            Some(path) => Some(foreign::load(path).await?),
            None => None,
        };
        let files = if importer.is_some() { foreign::sources(&self.sources)? } else { files(&self.sources)? };
        let total = files.iter().map(|file| file.size).sum();
        let shared = Arc::new(Shared::default());
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let reader = Reader {
            format: self.format,
            project: self.project,
            tags: self.tags,
            shared: Arc::clone(&shared),
            sender,
            held: Vec::new(),
            importer,
        };
        let names: Vec<_> = files.iter().map(|file| file.name()).collect();
        let reading = tokio::task::spawn_blocking(move || reader.run(&files));
        let body = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
        let request = client
            .to(Method::POST, "/potluck/v1/memory/import")?
            .header(header::ACCEPT, "application/x-ndjson")
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .body(Body::wrap_stream(body));
        let bar = bar(total, as_json);
        let outcome = follow(client, request, &bar, &shared, as_json).await;
        bar.finish_and_clear();
        let done = outcome?;
        let read = reading.await.map_err(|error| CliError::Broken(error.to_string()))?;
        read.map_err(|source| CliError::Io { what: "a file to import cannot be read", source })?;
        report(&shared.merged(done, &names), as_json)?;
        let failures = std::mem::take(&mut shared.told().failures);
        if failures.is_empty() { Ok(()) } else { Err(CliError::Importer(failures.join("\n"))) }
    }
}

async fn follow(
    client: &Client,
    request: reqwest::RequestBuilder,
    bar: &ProgressBar,
    shared: &Shared,
    as_json: bool,
) -> Result<Value, CliError> {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let work = async {
        let mut lines = client.answer_lines(request).await?;
        while let Some(line) = lines.next().await? {
            if line.get("status").is_some_and(|status| status == "success") {
                return Ok(line);
            }
            if as_json {
                print_line(&line.to_string())?;
            }
            let added = line.get("added").and_then(Value::as_u64).unwrap_or_default();
            bar.set_message(format!("{added} added"));
        }
        Err(CliError::Broken("the import broke off without saying why".into()))
    };
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            outcome = &mut work => return outcome,
            _ = ticks.tick() => bar.set_position(shared.bytes.load(Relaxed)),
        }
    }
}

/// One source.
#[derive(Clone, Debug)]
struct Source {
    /// `None`: stdin.
    path: Option<PathBuf>,
    size: u64,
}

impl Source {
    fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "stdin".to_owned(), |path| path.display().to_string())
    }

    fn is_note(&self) -> bool {
        self.path.as_deref().is_some_and(|path| has_ending(path, &["md", "markdown"]))
    }
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    endings.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// The files that are meant, those of folders sorted.
fn files(sources: &[PathBuf]) -> Result<Vec<Source>, CliError> {
    let mut files = Vec::new();
    for path in sources {
        if path.as_os_str() == "-" {
            files.push(Source { path: None, size: 0 });
            continue;
        }
        let failed = |source| CliError::Io { what: "a file or folder to import cannot be read", source };
        let metadata = fs::metadata(path).map_err(failed)?;
        if metadata.is_dir() {
            let before = files.len();
            walk(path, 0, &mut files).map_err(failed)?;
            if files.len() == before {
                let none = format!("{} has no .md or .jsonl files to import", path.display());
                return Err(CliError::Usage(none));
            }
        } else {
            files.push(Source { path: Some(path.clone()), size: metadata.len() });
        }
    }
    Ok(files)
}

/// Notes and JSON Lines below a folder. Links are not followed and hidden folders not entered: a folder of notes
/// must not lead anywhere else.
fn walk(folder: &Path, depth: usize, to: &mut Vec<Source>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if kind.is_dir() && !hidden && depth < DEPTH {
            walk(&path, depth + 1, to)?;
        } else if kind.is_file()
            && has_ending(&path, &["md", "markdown", "jsonl", "ndjson"])
            && to.len() < FILES
        {
            to.push(Source { size: entry.metadata()?.len(), path: Some(path) });
        }
    }
    Ok(())
}

/// What the thread that reads tells the rest.
#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// For each line sent, the file and the line it came from.
    lines: Vec<(u32, u64)>,
    /// Objects refused here.
    refused: u64,
    errors: Vec<(u32, u64, String)>,
    /// Importers that ended early, and why.
    failures: Vec<String>,
}

impl Shared {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, file: u32, line: u64, reason: String) {
        let mut told = self.told();
        told.refused += 1;
        if told.errors.len() < SHOWN {
            told.errors.push((file, line, reason));
        }
    }

    /// The node's counts with our own, and its lines as lines of the files.
    fn merged(&self, mut done: Value, names: &[String]) -> Value {
        let told = self.told();
        let name = |file: u32| names.get(file as usize).cloned().unwrap_or_default();
        let mut errors: Vec<Value> = told
            .errors
            .iter()
            .map(|(file, line, reason)| json!({"file": name(*file), "line": line, "reason": reason}))
            .collect();
        for error in done.get("errors").and_then(Value::as_array).into_iter().flatten() {
            let sent = error.get("line").and_then(Value::as_u64).unwrap_or_default();
            let index = usize::try_from(sent.saturating_sub(1)).unwrap_or(usize::MAX);
            let (file, line) = told.lines.get(index).copied().unwrap_or((u32::MAX, sent));
            errors.push(json!({"file": name(file), "line": line, "reason": error.get("reason")}));
        }
        for field in ["read", "refused"] {
            let count = done.get(field).and_then(Value::as_u64).unwrap_or_default();
            if let Some(map) = done.as_object_mut() {
                map.insert(field.into(), (count + told.refused).into());
            }
        }
        if let Some(map) = done.as_object_mut() {
            map.insert("errors".into(), errors.into());
            if !told.failures.is_empty() {
                map.insert("failed".into(), told.failures.clone().into());
            }
        }
        done
    }
}

/// Nobody takes what is read.
#[derive(Debug)]
struct Unwanted;

/// Reads the files and sends their records as lines.
struct Reader {
    format: Format,
    project: Option<String>,
    tags: Vec<String>,
    shared: Arc<Shared>,
    sender: mpsc::Sender<io::Result<Bytes>>,
    held: Vec<u8>,
    importer: Option<Importer>,
}

impl Reader {
    fn run(mut self, files: &[Source]) -> io::Result<()> {
        for (index, file) in files.iter().enumerate() {
            let number = u32::try_from(index).unwrap_or(u32::MAX);
            let outcome = match self.importer.clone() {
                Some(importer) => self.foreign(number, file, &importer),
                None if file.is_note() => self.note(number, file),
                None => self.objects(number, file),
            };
            match outcome {
                Ok(Ok(())) => {}
                // The node has ended the import, and has said why.
                Ok(Err(Unwanted)) => return Ok(()),
                // A body that breaks off is no end: nothing may look like a whole import.
                Err(error) => {
                    let error = io::Error::new(error.kind(), format!("{}: {error}", file.name()));
                    let told = io::Error::new(error.kind(), error.to_string());
                    let _ = self.sender.blocking_send(Err(told));
                    return Err(error);
                }
            }
        }
        let _ = self.send();
        Ok(())
    }

    fn note(&mut self, number: u32, file: &Source) -> io::Result<Result<(), Unwanted>> {
        let path = file.path.clone().unwrap_or_default();
        if file.size > NOTE {
            self.shared.refuse(number, 1, format!("is larger than the {NOTE} bytes a note may have"));
            return Ok(Ok(()));
        }
        let mut bytes = Vec::new();
        File::open(&path)?.take(NOTE).read_to_end(&mut bytes)?;
        self.shared.bytes.fetch_add(bytes.len() as u64, Relaxed);
        let Ok(text) = String::from_utf8(bytes) else {
            self.shared.refuse(number, 1, "is not UTF-8".into());
            return Ok(Ok(()));
        };
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        for draft in markdown::read(&text, &stem) {
            if self.draft(number, 1, draft).is_err() {
                return Ok(Err(Unwanted));
            }
        }
        Ok(Ok(()))
    }

    fn objects(&mut self, number: u32, file: &Source) -> io::Result<Result<(), Unwanted>> {
        let mut input: Box<dyn Read> = match &file.path {
            Some(path) => Box::new(File::open(path)?),
            None => Box::new(io::stdin().lock()),
        };
        let mut splitter = Splitter::new(MAX_OBJECT);
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match input.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            };
            self.shared.bytes.fetch_add(count as u64, Relaxed);
            splitter.feed(chunk.get(..count).unwrap_or_default());
            if count == 0 {
                splitter.end();
            }
            while let Some(piece) = splitter.next() {
                if self.piece(number, piece).is_err() {
                    return Ok(Err(Unwanted));
                }
            }
            if count == 0 {
                return Ok(Ok(()));
            }
        }
    }

    fn piece(&mut self, number: u32, piece: Piece) -> Result<(), Unwanted> {
        let line = piece.line;
        let object = match piece.bytes {
            Ok(bytes) => formats::read(&bytes, self.format),
            Err(reason) => Err(reason.to_owned()),
        };
        match object {
            Ok(Object::Own(value)) => self.line(number, line, &value),
            Ok(Object::Drafts(drafts)) => {
                drafts.into_iter().try_for_each(|draft| self.draft(number, line, draft))
            }
            Err(reason) => {
                self.shared.refuse(number, line, reason);
                Ok(())
            }
        }
    }

    fn draft(&mut self, number: u32, line: u64, draft: Draft) -> Result<(), Unwanted> {
        let mut draft = match formats::checked(draft) {
            Ok(draft) => draft,
            Err(reason) => {
                self.shared.refuse(number, line, reason);
                return Ok(());
            }
        };
        draft.project = draft.project.or_else(|| self.project.clone());
        draft.tags.extend(self.tags.iter().cloned());
        match serde_json::to_value(&draft) {
            Ok(value) => self.line(number, line, &value),
            Err(error) => {
                self.shared.refuse(number, line, error.to_string());
                Ok(())
            }
        }
    }

    fn line(&mut self, number: u32, line: u64, value: &Value) -> Result<(), Unwanted> {
        self.held.extend_from_slice(value.to_string().as_bytes());
        self.held.push(b'\n');
        self.shared.told().lines.push((number, line));
        if self.held.len() >= CHUNK { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Unwanted> {
        let bytes = Bytes::from(std::mem::take(&mut self.held));
        if bytes.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(Ok(bytes)).map_err(|_| Unwanted)
    }
}

fn bar(total: u64, json: bool) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if json || !io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {msg} {eta}") {
        bar.set_style(style);
    }
    bar
}

fn report(done: &Value, as_json: bool) -> Result<(), CliError> {
    if as_json {
        return print_line(&done.to_string());
    }
    let number = |field: &str| done.get(field).and_then(Value::as_u64).unwrap_or_default();
    print_line(&format!(
        "{} added, {} known already, {} refused",
        number("added"),
        number("duplicates"),
        number("refused")
    ))?;
    page::redactions(done)?;
    let errors = done.get("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for error in errors.iter().take(SHOWN) {
        let text = |field: &str| page::clean(error.get(field).and_then(Value::as_str).unwrap_or_default());
        let line = error.get("line").and_then(Value::as_u64).unwrap_or_default();
        print_line(&format!("  {}:{line}: {}", text("file"), text("reason")))?;
    }
    if number("refused") > errors.len().min(SHOWN) as u64 {
        print_line("  … and more")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent for these files, and what is refused.
    fn sent(folder: &Path, format: Format) -> (Vec<Value>, Told) {
        let files = files(&[folder.to_owned()]).unwrap();
        let shared = Arc::new(Shared::default());
        let (sender, mut receiver) = mpsc::channel(1000);
        let reader = Reader {
            format,
            project: Some("p".into()),
            tags: vec!["t".into()],
            shared: Arc::clone(&shared),
            sender,
            held: Vec::new(),
            importer: None,
        };
        reader.run(&files).unwrap();
        let mut bytes = Vec::new();
        while let Ok(chunk) = receiver.try_recv() {
            bytes.extend_from_slice(&chunk.unwrap());
        }
        let text = String::from_utf8(bytes).unwrap();
        let values = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (values, std::mem::take(&mut shared.told()))
    }

    #[test]
    fn a_folder_is_walked_without_leaving_it() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = dir.path();
        fs::create_dir_all(root.join("b/c")).unwrap();
        fs::create_dir_all(root.join(".git")).unwrap();
        fs::write(root.join("a.md"), "# A\n- [decision] one\n").unwrap();
        fs::write(root.join("b/c/CLAUDE.md"), "words").unwrap();
        fs::write(root.join("b/m.jsonl"), "{\"type\":\"entity\",\"name\":\"N\",\"entityType\":\"e\",\"observations\":[\"o\",\"q\"]}\nbroken\n").unwrap();
        fs::write(root.join("package.json"), "{}").unwrap();
        fs::write(root.join(".git/x.md"), "hidden").unwrap();
        fs::write(root.join("latin.md"), [0xff, 0xfe, b'x']).unwrap();
        fs::write(root.join("big.md"), "x".repeat(5 << 20)).unwrap();
        fs::write(other.path().join("secret.md"), "elsewhere").unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(other.path(), root.join("link")).unwrap();
            std::os::unix::fs::symlink(other.path().join("secret.md"), root.join("link.md")).unwrap();
        }
        let (values, told) = sent(root, Format::Auto);
        let contents: Vec<_> = values.iter().map(|value| value["content"].as_str().unwrap()).collect();
        assert_eq!(contents, ["A: one", "CLAUDE\n\nwords", "N: o", "N: q"]);
        assert!(values.iter().all(|value| value["project"] == "p"));
        assert!(values.iter().all(|value| value["tags"].as_array().unwrap().contains(&json!("t"))));
        assert_eq!(told.refused, 3);
        let reasons: Vec<_> = told.errors.iter().map(|(_, line, reason)| (*line, reason.as_str())).collect();
        assert!(reasons.iter().any(|(line, reason)| *line == 2 && reason.contains("JSON")), "{reasons:?}");
        assert!(reasons.iter().any(|(_, reason)| reason.contains("UTF-8")), "{reasons:?}");
        assert!(reasons.iter().any(|(_, reason)| reason.contains("larger")), "{reasons:?}");
        assert_eq!(told.lines.iter().map(|(_, line)| *line).collect::<Vec<_>>(), [1, 1, 1, 1]);
        assert!(files(&[other.path().join("nothing")]).is_err());
    }

    #[test]
    fn errors_point_at_the_files() {
        let shared = Shared::default();
        shared.told().lines = vec![(0, 3), (1, 7)];
        shared.refuse(0, 9, "bad".into());
        let done = json!({"read": 2, "added": 1, "refused": 1, "errors": [{"line": 2, "reason": "worse"}]});
        let merged = shared.merged(done, &["a".into(), "b".into()]);
        assert_eq!((&merged["read"], &merged["refused"]), (&json!(3), &json!(2)));
        assert_eq!(merged["errors"][0], json!({"file": "a", "line": 9, "reason": "bad"}));
        assert_eq!(merged["errors"][1], json!({"file": "b", "line": 7, "reason": "worse"}));
    }
}
