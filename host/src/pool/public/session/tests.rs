use std::{
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use potluck_primitives::{MicroCredits, Signed};
use tokio::io::AsyncWriteExt;

use super::ask::{Call, CallError, Request};
use crate::{
    dispatch::fixture::{self, Deed, Script, Scripted},
    job::{Event, FinishReason, Job, JobError},
    pool::public::{
        fixture::{Booth, Mint, RATES, stories, story, timers},
        meter::UNIT,
    },
};

struct Asked {
    mint: Arc<Mint>,
    spent: Arc<AtomicU64>,
    limit: MicroCredits,
}

impl Asked {
    fn new(mint: &Arc<Mint>) -> Self {
        Self { mint: mint.clone(), spent: Arc::default(), limit: MicroCredits(1_000_000) }
    }

    async fn begin(&self, booth: &Booth, job: &Job, model: &str) -> Result<Call, CallError> {
        let request = Request {
            job,
            provider: booth.signer.node(),
            model,
            rates: RATES,
            limit: self.limit,
            spent: self.spent.clone(),
            purse: self.mint.clone(),
            timers: timers(),
            audit: false,
        };
        Call::begin(Box::new(booth.stream().await), request).await
    }

    fn spent(&self) -> u128 {
        self.spent.load(Relaxed).into()
    }
}

/// All text and the end of an answer.
async fn rest(call: &mut Call) -> Result<(String, u32, FinishReason), CallError> {
    let (mut all, mut count) = (String::new(), 0);
    loop {
        match call.next().await? {
            Event::Text { text, tokens, .. } => {
                all += &text;
                count += tokens.len() as u32;
            }
            Event::Done { reason, .. } => return Ok((all, count, reason)),
        }
    }
}

async fn until(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(10), "it did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn script(change: impl FnOnce(&mut Script)) -> Arc<Script> {
    Script::new("p", |script| {
        script.pause = Duration::from_millis(1);
        change(script);
    })
}

fn booth(script: &Arc<Script>, mint: &Arc<Mint>) -> Booth {
    Booth::new(1, Arc::new(Scripted(script.clone())), mint.clone(), RATES)
}

fn long(tokens: u32) -> Job {
    Job { max_tokens: Some(tokens), ..fixture::job(5) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_the_real_model_is_paid_by_the_token_and_receipted_by_both() {
    let Some(inference) = stories().await else { return };
    let job = story(200);
    let local = inference.submit(job.clone()).await.unwrap().collect().await.unwrap();
    let mint = Arc::new(Mint::default());
    *mint.lag.lock().unwrap() = Duration::from_millis(3);
    let booth = Booth::new(1, Arc::new(inference), mint.clone(), RATES);
    let asked = Asked::new(&mint);
    let mut call = asked.begin(&booth, &job, "stories260K-f32").await.unwrap();
    let (text, count, reason) = rest(&mut call).await.unwrap();
    assert_eq!((text, reason), (local.text, local.reason));
    assert_eq!(count as usize, local.tokens.len());
    let owed = RATES.owed(local.usage.prompt_tokens, count);
    assert!(call.paid() >= owed && call.paid().0 < owed.0 + UNIT.0, "paid {} for {owed}", call.paid());
    let whole = call.receipt().await.expect("a receipt");
    let signed = Signed::open(&whole).unwrap();
    assert_eq!(signed.receipt.provider, booth.signer.node().0);
    assert_eq!(
        (signed.receipt.prompt_tokens.0, signed.receipt.completion_tokens.0),
        (local.usage.prompt_tokens, count)
    );
    until(|| booth.receipts.sums().0.jobs == 1).await;
    assert_eq!(booth.receipts.sums().0.amount.0, asked.spent(), "all that was paid was earned");
    assert_eq!(u128::from(booth.server.counters().earned), asked.spent());
    until(|| booth.guard.running() == 0).await;
}

#[tokio::test]
async fn who_stops_paying_gets_nothing_more_than_was_paid() {
    let (mint, script) = (Arc::new(Mint::default()), script(|_| {}));
    *mint.most.lock().unwrap() = Some(2);
    let (booth, asked) = (booth(&script, &mint), Asked::new(&mint));
    let mut call = asked.begin(&booth, &long(400), "m").await.unwrap();
    let mut count = 0;
    let error = loop {
        match call.next().await {
            Ok(Event::Text { tokens, .. }) => count += tokens.len() as u32,
            Ok(done) => panic!("{done:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CallError::Refused(JobError::Payment { .. })), "{error}");
    let served = RATES.owed(7, count).0;
    assert!(served <= asked.spent() && count > 60, "{count} tokens worth {served} for {}", asked.spent());
    until(|| booth.server.counters().unpaid == 1 && script.running.load(Relaxed) == 0).await;
}

#[tokio::test]
async fn a_token_that_was_spent_before_buys_one_chunk_at_most() {
    let (mint, script) = (Arc::new(Mint::default()), script(|_| {}));
    *mint.lag.lock().unwrap() = Duration::from_millis(30);
    mint.twice.store(true, Relaxed);
    let (booth, asked) = (booth(&script, &mint), Asked::new(&mint));
    let mut call = asked.begin(&booth, &long(400), "m").await.unwrap();
    let mut count = 0;
    let error = loop {
        match call.next().await {
            Ok(Event::Text { tokens, .. }) => count += tokens.len() as u32,
            Ok(done) => panic!("{done:?}"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("spent before"), "{error}");
    let lost = RATES.owed(7, count).0.saturating_sub(mint.issued.load(Relaxed).into());
    assert!(lost <= RATES.chunk().price.0, "{lost} served for nothing");
}

#[tokio::test]
async fn a_provider_that_takes_the_money_and_falls_silent_has_one_chunk() {
    let (mint, script) = (Arc::new(Mint::default()), script(|_| {}));
    script.on_event(|n| if n == 100 { Deed::Hang } else { Deed::GoOn });
    let (booth, asked) = (booth(&script, &mint), Asked::new(&mint));
    let mut call = asked.begin(&booth, &long(400), "m").await.unwrap();
    let hung = tokio::time::timeout(Duration::from_secs(3), rest(&mut call)).await;
    assert!(hung.is_err(), "it is there and says nothing");
    assert!(call.at_risk() <= RATES.chunk().price, "{} at risk", call.at_risk());
    drop(call);
    until(|| script.cancelled.load(Relaxed) == 1 && booth.server.counters().cancelled == 1).await;
}

#[tokio::test]
async fn switching_off_ends_a_job_at_once_and_typed() {
    let (mint, script) = (Arc::new(Mint::default()), script(|s| s.pause = Duration::from_millis(20)));
    let (booth, asked) = (booth(&script, &mint), Asked::new(&mint));
    let mut call = asked.begin(&booth, &long(400), "m").await.unwrap();
    call.next().await.unwrap();
    let began = Instant::now();
    booth.guard.switch(false);
    let error = rest(&mut call).await.unwrap_err();
    assert_eq!(error, CallError::Refused(JobError::ShuttingDown));
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    until(|| script.cancelled.load(Relaxed) == 1).await;
}

#[tokio::test]
async fn an_owner_who_comes_back_has_the_machine_at_the_next_word() {
    let (mint, script) = (Arc::new(Mint::default()), script(|s| s.pause = Duration::from_millis(5)));
    let (booth, asked) = (booth(&script, &mint), Asked::new(&mint));
    let mut call = asked.begin(&booth, &long(400), "m").await.unwrap();
    call.next().await.unwrap();
    booth.guard.owner_was_here();
    let error = rest(&mut call).await.unwrap_err();
    assert!(matches!(error, CallError::Refused(JobError::Busy { .. })), "{error}");
    until(|| booth.server.counters().yielded == 1 && script.running.load(Relaxed) == 0).await;
}

#[tokio::test]
async fn what_may_be_paid_ends_an_answer_with_its_receipt() {
    let (mint, script) = (Arc::new(Mint::default()), script(|_| {}));
    let booth = booth(&script, &mint);
    let asked = Asked { limit: MicroCredits(1_550), ..Asked::new(&mint) };
    let mut call = asked.begin(&booth, &long(400), "m").await.unwrap();
    let (_, count, reason) = rest(&mut call).await.unwrap();
    assert_eq!(reason, FinishReason::Length);
    assert!((100..=107).contains(&count), "{count}");
    assert!(asked.spent() <= 1_550 && call.receipt().await.is_some());
    let asked = Asked { limit: MicroCredits(10), ..Asked::new(&mint) };
    let dear = asked.begin(&booth, &long(400), "m").await.unwrap_err();
    assert!(matches!(dear, CallError::Dear { .. }), "{dear}");
    assert_eq!(asked.spent(), 0);
}

#[tokio::test]
async fn a_price_that_is_not_the_offered_one_is_not_paid() {
    let (mint, script) = (Arc::new(Mint::default()), script(|_| {}));
    let mut dear = RATES;
    dear.completion.0 += 1;
    let booth = Booth::new(1, Arc::new(Scripted(script)), mint.clone(), dear);
    let asked = Asked::new(&mint);
    let refused = asked.begin(&booth, &long(20), "m").await.unwrap_err();
    assert!(matches!(refused, CallError::Refused(JobError::ModelNotFound { .. })), "{refused}");
}

#[tokio::test]
async fn strangers_that_make_no_sense_are_dropped_and_hold_nothing() {
    let (mint, script) = (Arc::new(Mint::default()), script(|_| {}));
    let booth = booth(&script, &mint);
    for bytes in [&[0xff; 64][..], &[0, 0, 0, 2, 0x81, 0x01], b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 1, 0xff]]
    {
        let mut stream = booth.stream().await;
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
    }
    until(|| booth.guard.running() == 0).await;
    assert_eq!(booth.server.counters().nonsense, 4);
    assert!(script.jobs.lock().unwrap().is_empty());
}

/// Where log lines go.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whether a file below a folder holds some bytes.
fn on_disk(folder: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| match entry.file_type().unwrap().is_dir() {
        true => on_disk(&entry.path(), bytes),
        false => std::fs::read(entry.path()).unwrap().windows(bytes.len()).any(|window| window == bytes),
    })
}

#[tokio::test]
async fn neither_prompt_nor_answer_is_logged_or_written_down() {
    let lines = Lines::default();
    let log = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (mint, script) = (Arc::new(Mint::default()), script(|_| {}));
    let (booth, asked) = (booth(&script, &mint), Asked::new(&mint));
    let secret = "the-goat-in-my-cellar-sings";
    let mut job = long(100);
    job.input = crate::job::Input::Text { text: secret.into(), special: false };
    let mut call = asked.begin(&booth, &job, "m").await.unwrap();
    let (answer, _, _) = rest(&mut call).await.unwrap();
    call.receipt().await.unwrap();
    // And one that fails half way, which is when programs say too much.
    script.on_event(|n| {
        if n == 50 { Deed::Fail(JobError::Internal { reason: "broken".into() }) } else { Deed::GoOn }
    });
    let mut call = asked.begin(&booth, &job, "m").await.unwrap();
    rest(&mut call).await.unwrap_err();
    until(|| booth.receipts.sums().0.jobs == 1 && booth.server.counters().failed == 1).await;
    let said = answer.split(' ').find(|word| word.len() > 4).unwrap().to_owned();
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for words in [secret, said.as_str()] {
        assert!(!logged.contains(words), "{words} is in the log");
        assert!(!on_disk(booth.folder.path(), words.as_bytes()), "{words} is on the disk");
    }
    assert!(on_disk(booth.folder.path(), &booth.signer.node().0), "the receipt is there, and is found");
}
