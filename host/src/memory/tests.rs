//! The memory as a whole, with an embedder of words: a vector per text in which every word has its place.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::*;
use crate::dispatch::provider::BoxFuture;

mod sync;

/// Embeds texts by the words in them, so that the tests need no model file.
#[derive(Debug, Default)]
struct Words {
    there: AtomicBool,
    stalled: AtomicBool,
}

impl Words {
    fn ready() -> Arc<Self> {
        Arc::new(Self { there: AtomicBool::new(true), stalled: AtomicBool::new(false) })
    }

    fn vector(text: &str) -> Vec<f32> {
        let mut vector = vec![0.01_f32; engine::DIMS];
        text::Analyzer::default().terms(text, |term| vector[(term % engine::DIMS as u64) as usize] += 1.0);
        let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        vector.iter().map(|value| value / norm).collect()
    }
}

impl Embedder for Words {
    fn model(&self) -> Option<String> {
        self.there.load(Ordering::Relaxed).then(|| "words@1".into())
    }

    fn embed(&self, texts: Vec<String>, lane: Lane) -> BoxFuture<'_, Result<Vec<Vec<f32>>, String>> {
        Box::pin(async move {
            if lane == Lane::Background && self.stalled.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            Ok(texts.iter().map(|text| Self::vector(text)).collect())
        })
    }
}

fn key() -> Signer {
    Signer::from_seed([9; 32])
}

/// A memory whose key lies in its folder, so that no two have the same.
async fn open(folder: &Path) -> Memory {
    let signer = Signer::load_or_create(&folder.join("node.key")).unwrap();
    Memory::open(folder.to_owned(), signer, Words::ready()).await.unwrap()
}

fn draft(content: &str) -> Draft {
    Draft { content: content.into(), ..Draft::default() }
}

fn ask(query: &str) -> RecallRequest {
    RecallRequest { query: query.into(), ..RecallRequest::default() }
}

async fn found(memory: &Memory, request: RecallRequest) -> Vec<String> {
    memory.recall(request).await.unwrap().items.into_iter().map(|item| item.content).collect()
}

async fn settled(memory: &Memory) {
    for _ in 0..400 {
        let stats = memory.stats().await.unwrap();
        if stats.pending == 0 && stats.overlay == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the indexes did not catch up: {:?}", memory.stats().await.unwrap());
}

const TEXTS: [&str; 6] = [
    "The staging database runs on port 5433.",
    "We decided to ship releases on Thursdays, because support is at full strength on Fridays.",
    "Marta prefers tea over coffee in the morning.",
    "The invoice of the print shop is due next week.",
    "Kettle descaling: citric acid, half an hour, rinse twice.",
    "The garden needs water every second day in July.",
];

#[tokio::test]
async fn what_is_said_is_found_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let memory = open(folder.path()).await;
    for text in TEXTS {
        memory.remember(draft(text)).await.unwrap();
        assert_eq!(found(&memory, ask(text)).await[0], text, "right after the write");
    }
    let questions = [
        "which port has the staging database?",
        "when are releases shipped",
        "what does Marta drink",
        "ketle descalng",
    ];
    let mut answers = Vec::new();
    settled(&memory).await;
    for question in questions {
        answers.push(found(&memory, ask(question)).await[0].clone());
    }
    assert_eq!(answers, [TEXTS[0], TEXTS[1], TEXTS[2], TEXTS[4]]);
    memory.close().await;
    drop(memory);
    let memory = open(folder.path()).await;
    assert!(memory.stats().await.unwrap().repairs.is_empty());
    for (question, answer) in questions.iter().zip(&answers) {
        assert_eq!(&found(&memory, ask(question)).await[0], answer);
    }
    memory.close().await;
}

#[tokio::test]
async fn what_has_no_vector_yet_stands_beside_what_has() {
    let folder = tempfile::tempdir().unwrap();
    let words = Words::ready();
    let memory =
        Memory::open(folder.path().to_owned(), key(), Arc::clone(&words) as Arc<dyn Embedder>).await.unwrap();
    let fact = |name: &str| format!("{name} keeps the spare key of the boat house in the drawer.");
    for number in 0..40 {
        memory.remember(draft(&fact(&format!("Keeper{number}")))).await.unwrap();
    }
    settled(&memory).await;
    words.stalled.store(true, Ordering::Relaxed);
    for name in ["Ottoline", "Barnaby", "Perpetua"] {
        memory.remember(draft(&fact(name))).await.unwrap();
        let question = format!("Where does {name} keep the spare key?");
        assert_eq!(found(&memory, ask(&question)).await[0], fact(name));
    }
    memory.close().await;
}

#[tokio::test]
async fn the_same_twice_is_one_memory_and_nearly_the_same_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let memory = open(folder.path()).await;
    let first =
        memory.remember(draft("The kettle in the office kitchen is broken since Monday.")).await.unwrap();
    let same = memory
        .remember(draft("  The kettle in the   office kitchen is broken since Monday.\r\n"))
        .await
        .unwrap();
    assert_eq!((same.id, same.duplicate_of), (first.id, Some(first.id)));
    let other = Draft {
        project: Some("home".into()),
        ..draft("The kettle in the office kitchen is broken since Monday.")
    };
    assert_eq!(memory.remember(other).await.unwrap().duplicate_of, None, "another project is another memory");
    let near = memory
        .remember(draft("The kettle in the office kitchen is broken since Monday morning."))
        .await
        .unwrap();
    assert_eq!((near.duplicate_of, near.near_duplicates), (None, vec![first.id]));
    let both = memory.remember_all(vec![draft("one and the same"), draft("one and the same")]).await.unwrap();
    let both: Vec<_> = both.into_iter().map(Result::unwrap).collect();
    assert_eq!(both[1].duplicate_of, Some(both[0].id));
    memory.close().await;
}

#[tokio::test]
async fn an_update_replaces_and_history_stays() {
    let folder = tempfile::tempdir().unwrap();
    let memory = open(folder.path()).await;
    let old = memory.remember(draft("The meeting is on Tuesday.")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let between = Millis::now();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let change = Change { content: Some("The meeting is on Friday.".into()), ..Change::default() };
    let new = memory.update(old.id, change).await.unwrap();
    assert_eq!(found(&memory, ask("when is the meeting")).await, ["The meeting is on Friday."]);
    let then = RecallRequest { as_of: Some(between), ..ask("when is the meeting") };
    assert_eq!(found(&memory, then).await, ["The meeting is on Tuesday."]);
    let history = memory.get(new.id, true).await.unwrap().history;
    assert_eq!(
        history.iter().map(|item| item.state).collect::<Vec<_>>(),
        [ItemState::Superseded, ItemState::Live]
    );
    // Somebody who had not seen the update changes the old version: nothing is lost, and the conflict is shown.
    let change = Change { content: Some("The meeting is on Monday.".into()), ..Change::default() };
    let third = memory.update(old.id, change).await.unwrap();
    let items = memory.recall(ask("when is the meeting")).await.unwrap().items;
    assert_eq!(items.len(), 2);
    assert!(items.iter().all(|item| item.conflicts_with.len() == 1), "{items:?}");
    assert_eq!(memory.stats().await.unwrap().conflicts, 1);
    let change = Change { supersedes: vec![new.id], ..Change::default() };
    memory.update(third.id, change).await.unwrap();
    let items = memory.recall(ask("when is the meeting")).await.unwrap().items;
    assert_eq!((items.len(), items[0].conflicts_with.len()), (1, 0));
    memory.close().await;
}

#[tokio::test]
async fn forgetting_asks_first_and_can_be_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let memory = open(folder.path()).await;
    let soft = memory.remember(draft("The cellar door sticks.")).await.unwrap().id;
    let hard = memory.remember(draft("Zebulon's birthday is on the ninth of March.")).await.unwrap().id;
    settled(&memory).await;
    let request = ForgetRequest { ids: vec![soft], ..ForgetRequest::default() };
    assert!(memory.forget(request.clone()).await.unwrap().dry_run);
    assert_eq!(found(&memory, ask("cellar door")).await[0], "The cellar door sticks.");
    memory.forget(ForgetRequest { confirm: true, ..request }).await.unwrap();
    assert_eq!(memory.get(soft, false).await.unwrap().item.state, ItemState::Forgotten);
    let request = ForgetRequest { ids: vec![hard], hard: true, confirm: true, ..ForgetRequest::default() };
    memory.forget(request).await.unwrap();
    for query in ["cellar door", "Zebulon's birthday"] {
        assert_eq!(found(&memory, ask(query)).await, Vec::<String>::new());
    }
    let item = memory.get(hard, false).await.unwrap().item;
    assert_eq!((item.state, item.content.as_str()), (ItemState::Erased, ""));
    let traces = ["Zebulon", "zebulon"];
    let left = || traces.iter().any(|trace| holds(folder.path(), trace.as_bytes()));
    for _ in 0..400 {
        if !folder.path().join("index/stale").exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(!left(), "the text is gone from the log and from every index");
    memory.close().await;
    drop(memory);
    assert!(!left(), "and does not come back when the memory is closed");
    let memory = open(folder.path()).await;
    assert_eq!(memory.get(hard, false).await.unwrap().item.state, ItemState::Erased);
    assert_eq!(memory.stats().await.unwrap().live, 0);
    let everything =
        ForgetRequest { filter: Some(Filter::default()), confirm: true, ..ForgetRequest::default() };
    assert!(matches!(memory.forget(everything).await, Err(MemoryError::Invalid { field: "filter", .. })));
    memory.close().await;
}

fn holds(folder: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, needle);
        }
        std::fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle)
    })
}

#[tokio::test]
async fn filters_hold_in_the_index_and_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let memory = open(folder.path()).await;
    let full = |content: &str, project: &str, kind, tag: &str, at: &str| Draft {
        kind,
        project: Some(project.into()),
        tags: vec![tag.into()],
        occurred_at: Some(Millis::parse(at).unwrap()),
        ..draft(content)
    };
    let some = [
        full("The kettle whistles in red.", "a", Kind::Fact, "x", "2023-01-01"),
        full("The kettle whistles in blue.", "b", Kind::Fact, "y", "2023-02-01"),
        full("The kettle whistles in green.", "a", Kind::Task, "y", "2023-03-01"),
    ];
    for round in 0..2 {
        if round == 0 {
            for draft in &some {
                memory.remember(draft.clone()).await.unwrap();
            }
        } else {
            settled(&memory).await;
        }
        let colours = async |filter: Filter| {
            let mut all = found(&memory, RecallRequest { filter, ..ask("kettle whistles") }).await;
            all.sort();
            all.iter()
                .map(|text| text.rsplit(' ').next().unwrap().trim_end_matches('.').to_owned())
                .collect::<Vec<_>>()
        };
        let day = |text: &str| Some(Millis::parse(text).unwrap());
        assert_eq!(
            colours(Filter { project: Some("a".into()), ..Filter::default() }).await,
            ["green", "red"]
        );
        assert_eq!(colours(Filter { kinds: vec![Kind::Task], ..Filter::default() }).await, ["green"]);
        assert_eq!(colours(Filter { tags: vec!["y".into()], ..Filter::default() }).await, ["blue", "green"]);
        assert_eq!(
            colours(Filter { since: day("2023-02-01"), until: day("2023-03-01"), ..Filter::default() }).await,
            ["blue"]
        );
        assert_eq!(
            colours(Filter { project: Some("unheard of".into()), ..Filter::default() }).await,
            Vec::<String>::new()
        );
    }
    memory.close().await;
}

#[tokio::test]
async fn an_export_comes_back_whole_elsewhere() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let memory = open(one.path()).await;
    let mut ids = Vec::new();
    for text in TEXTS {
        ids.push(memory.remember(draft(text)).await.unwrap().id);
    }
    memory
        .update(
            ids[0],
            Change { content: Some("The staging database moved to port 6000.".into()), ..Change::default() },
        )
        .await
        .unwrap();
    memory
        .forget(ForgetRequest { ids: vec![ids[3]], confirm: true, ..ForgetRequest::default() })
        .await
        .unwrap();
    settled(&memory).await;
    let mut lines = Vec::new();
    let mut export = memory.export(Filter::default(), true);
    while let Some(line) = export.recv().await {
        lines.push(line.unwrap());
    }
    let other = open(two.path()).await;
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    let parsed: Vec<Value> = text.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outcome = other.restore(parsed.clone()).await.unwrap();
    assert!(outcome.into_iter().all(|new| new.unwrap()));
    assert!(
        other.restore(parsed).await.unwrap().into_iter().all(|new| !new.unwrap()),
        "a second time adds nothing"
    );
    for question in ["staging database port", "what does Marta drink", "the invoice"] {
        assert_eq!(found(&memory, ask(question)).await, found(&other, ask(question)).await);
    }
    for id in ids {
        assert_eq!(memory.get(id, true).await.unwrap(), other.get(id, true).await.unwrap());
    }
    let mut forged = lines[0].clone();
    forged["version"]["body"] = "something else".into();
    assert!(other.restore(vec![forged, Value::Null]).await.unwrap().iter().all(Result::is_err));
    memory.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_rebuilt_index_gives_the_same_answers() {
    let folder = tempfile::tempdir().unwrap();
    let memory = open(folder.path()).await;
    for text in TEXTS {
        memory.remember(draft(text)).await.unwrap();
    }
    settled(&memory).await;
    let question = || RecallRequest { explain: true, ..ask("when does the garden need water") };
    let before = memory.recall(question()).await.unwrap().items;
    for _ in 0..2 {
        let mut progress = memory.reindex();
        let mut last = (0, 0);
        while let Some(step) = progress.recv().await {
            last = step.unwrap();
        }
        assert_eq!(last, (6, 6));
        assert_eq!(memory.recall(question()).await.unwrap().items, before);
    }
    memory.close().await;
    drop(memory);
    let memory = open(folder.path()).await;
    settled(&memory).await;
    assert!(memory.stats().await.unwrap().repairs.is_empty(), "the rebuilt indexes are those on disk");
    assert_eq!(memory.recall(question()).await.unwrap().items, before);
    memory.close().await;
    drop(memory);
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let memory = open(folder.path()).await;
    settled(&memory).await;
    assert_eq!(memory.recall(question()).await.unwrap().items, before);
    memory.close().await;
    drop(memory);
    // Indexes that know more than the log are thrown away.
    let arrivals = folder.path().join("index/arrivals");
    let mut bytes = std::fs::read(&arrivals).unwrap();
    let first = bytes[..24].to_vec();
    bytes.extend_from_slice(&first);
    std::fs::write(&arrivals, bytes).unwrap();
    let memory = open(folder.path()).await;
    settled(&memory).await;
    assert_eq!(memory.recall(question()).await.unwrap().items, before);
    memory.close().await;
}

#[tokio::test]
async fn a_question_that_counts_back_finds_what_was_told_on_its_day() {
    let folder = tempfile::tempdir().unwrap();
    let memory = open(folder.path()).await;
    let plain = "We bought lamps, chairs, tables, shelves and curtains.";
    let told = "We bought lamps, chairs, tables, shelves and curtains today.";
    for text in [told, plain] {
        memory.remember(draft(text)).await.unwrap();
    }
    settled(&memory).await;
    // The longer one is a little further away.
    assert_eq!(found(&memory, ask("which lamps were bought")).await, [plain, told]);
    let back = ask("which lamps were bought ten days ago");
    assert_eq!(found(&memory, back.clone()).await, [told, plain]);
    memory.close().await;
    drop(memory);
    let memory = open(folder.path()).await;
    assert_eq!(found(&memory, back).await, [told, plain]);
    memory.close().await;
}

#[tokio::test]
async fn an_index_folder_without_marks_gets_them_from_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let memory = open(folder.path()).await;
    // So many that the end merges their postings, and the next start reads no text for those.
    for part in 0..3 {
        let text =
            |number| format!("Lamp {part}-{number} came today. Where should lamp {number} stand, I wonder?");
        memory.remember_all((0..700).map(|number| draft(&text(number))).collect()).await.unwrap();
    }
    memory.close().await;
    drop(memory);
    let marks = folder.path().join("index/marks");
    let whole = std::fs::read(&marks).unwrap();
    for old in [None, Some("PTLKMRK0 and what it had"), Some("")] {
        std::fs::remove_file(&marks).unwrap();
        old.iter().for_each(|old| std::fs::write(&marks, old).unwrap());
        let memory = open(folder.path()).await;
        let repairs = memory.stats().await.unwrap().repairs;
        assert_eq!(repairs.len(), usize::from(old.is_some()), "{repairs:?}");
        assert!(repairs.iter().all(|line| line.contains("marks")), "nothing else was made anew: {repairs:?}");
        memory.close().await;
        drop(memory);
        assert_eq!(std::fs::read(&marks).unwrap(), whole);
    }
}

#[tokio::test]
async fn secrets_never_enter() {
    let folder = tempfile::tempdir().unwrap();
    let memory = open(folder.path()).await;
    let secret = format!("ghp_{}", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8");
    let answer = memory.remember(draft(&format!("The deploy token is {secret}, keep it."))).await.unwrap();
    assert_eq!(answer.redactions.len(), 1);
    let item = memory.get(answer.id, false).await.unwrap().item;
    assert!(item.content.contains("[redacted: ") && !item.content.contains(&secret), "{}", item.content);
    settled(&memory).await;
    memory.close().await;
    drop(memory);
    assert!(!holds(folder.path(), secret.as_bytes()));
}

#[tokio::test]
async fn words_alone_answer_without_an_embedder_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let words = Arc::new(Words::default());
    let memory =
        Memory::open(folder.path().to_owned(), key(), Arc::clone(&words) as Arc<dyn Embedder>).await.unwrap();
    for text in TEXTS {
        memory.remember(draft(text)).await.unwrap();
    }
    let answer = memory.recall(ask("staging database")).await.unwrap();
    assert_eq!((answer.embedder, answer.items[0].content.as_str()), (None, TEXTS[0]));
    assert!(answer.note.unwrap().contains("potluck pull embedder"));
    words.there.store(true, Ordering::Relaxed);
    for _ in 0..200 {
        let stats = memory.stats().await.unwrap();
        if stats.embedder.is_some() && stats.pending == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let answer = memory.recall(ask("staging database")).await.unwrap();
    assert!(answer.embedder.is_some() && answer.note.is_none(), "{answer:?}");
    memory.close().await;
}

#[tokio::test]
async fn nobody_else_has_it_open_and_nonsense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let memory = open(folder.path()).await;
    let second = Memory::open(folder.path().to_owned(), key(), Words::ready()).await.unwrap_err();
    assert!(second.in_use(), "{second}");
    for bad in [
        draft(""),
        draft("a\0b"),
        draft(&"x".repeat((1 << 20) + 1)),
        Draft { tags: vec!["t".into(); 65], ..draft("x") },
    ] {
        assert!(matches!(memory.remember(bad).await, Err(MemoryError::Draft(_))));
    }
    let queries = ["", " ", "\"unclosed", "-minus -words", "🙂", "a AND b OR (c", &"long ".repeat(10_000)];
    memory.remember(draft("minus and words, unclosed")).await.unwrap();
    for (at, query) in queries.into_iter().enumerate() {
        assert_eq!(memory.recall(ask(query)).await.is_err(), at < 2, "{query:.20}");
    }
    assert_eq!(found(&memory, ask("-minus \"words")).await.len(), 1);
    assert_eq!(memory.stats().await.unwrap().live, 1);
    memory.close().await;
}
