use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use potluck_primitives::{MicroCredits, Signed};

use super::*;
use crate::{
    dispatch::fixture::{self, Deed, Script, Scripted, whole},
    job::{Event, Spend},
    pool::public::{
        budget::Budget,
        fixture::{Booth, Mint, RATES, Wires, market, timers},
        market::Native,
        receipts::ReceiptBook,
    },
};

struct World {
    booths: Vec<Booth>,
    scripts: Vec<Arc<Script>>,
    mint: Arc<Mint>,
    wires: Arc<Wires>,
    parts: Arc<Parts>,
    provider: PublicProvider,
    _folder: tempfile::TempDir,
}

/// Providers 1 and further; the first is the fastest in what was seen of it.
fn world(count: u8, change: impl Fn(u8, &mut Script)) -> World {
    let mint = Arc::new(Mint::default());
    let script = |n: u8| {
        Script::new("p", |script| {
            script.pause = Duration::from_millis(2);
            change(n, script);
        })
    };
    let scripts: Vec<Arc<Script>> = (1..=count).map(script).collect();
    let booth = |(n, script): (u8, &Arc<Script>)| {
        Booth::new(n, Arc::new(Scripted(script.clone())), mint.clone(), RATES)
    };
    let booths: Vec<Booth> = (1..).zip(&scripts).map(booth).collect();
    let wires = Arc::new(Wires::default());
    booths.iter().for_each(|booth| wires.add(booth));
    let folder = tempfile::tempdir().unwrap();
    let health = Arc::new(Health::default());
    for (n, booth) in (1_u32..).zip(&booths) {
        let measured = crate::dispatch::health::Measured {
            first: Duration::from_millis(10),
            prompt_tokens: 100,
            tokens: 1_000 / (n * n * n),
            time: Duration::from_secs(1),
        };
        health.measured(booth.signer.node(), "m", measured);
    }
    let keys = BTreeMap::from([("guest".to_owned(), MicroCredits(500))]);
    let budget = Budget { job: MicroCredits(100_000), day: MicroCredits(10_000_000), keys };
    let parts = Arc::new(Parts {
        config: AskConfig { timers: timers(), ..AskConfig::default() },
        me: [0; 32],
        market: market(&booths.iter().collect::<Vec<_>>(), "m", RATES),
        chooser: Arc::new(Native),
        circuits: wires.clone(),
        purse: mint.clone(),
        budgets: Budgets::open(budget, folder.path().join("spent.json")),
        receipts: Arc::new(ReceiptBook::open(&folder.path().join("receipts")).unwrap()),
        health,
    });
    let provider = PublicProvider::new(Arc::new(Given(parts.clone())));
    World { booths, scripts, mint, wires, parts, provider, _folder: folder }
}

fn job(tokens: u32) -> Job {
    Job { mode: Mode::Public, max_tokens: Some(tokens), ..fixture::job(5) }
}

#[tokio::test]
async fn an_answer_comes_with_its_bill_and_receipt() {
    let world = world(2, |_, _| {});
    assert_eq!(world.provider.offers().await[0].model, "m");
    let reply = world.provider.submit(job(150)).await.unwrap();
    let bill = reply.bill.clone().unwrap();
    assert_eq!(
        (reply.mode, reply.node.as_str()),
        (Mode::Public, world.booths[0].signer.node().to_string().as_str())
    );
    let answer = reply.collect().await.unwrap();
    assert_eq!(answer.text, whole(5, 150));
    let billed = bill.get().unwrap();
    let owed = RATES.owed(7, 150).0;
    assert!((owed..owed + 100).contains(&billed.cost.into()), "{} for {owed}", billed.cost);
    for _ in 0..400 {
        if world.booths[0].receipts.sums().0.jobs == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (served, asked) = (world.booths[0].receipts.sums().0, world.parts.receipts.sums().1);
    assert_eq!((asked.jobs, asked.amount), (1, MicroCredits(billed.cost.into())));
    assert_eq!(served, asked);
    let bytes: Vec<u8> = (0..billed.receipt.len() / 2)
        .map(|at| u8::from_str_radix(&billed.receipt[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let signed = Signed::open(&bytes).unwrap();
    let sent = world.scripts[0].jobs.lock().unwrap()[0].clone();
    assert_eq!(sent.id.as_bytes(), &signed.receipt.job);
    assert_ne!(sent.id, job(150).id, "the name of a job stays here");
    assert_eq!(sent.spend, Spend::default());
    assert_eq!(world.parts.budgets.today().0, MicroCredits(billed.cost.into()));
}

#[tokio::test]
async fn another_provider_goes_on_where_one_broke_off() {
    for fault in 0..3 {
        let world = world(3, |_, _| {});
        let (guard, script) = (world.booths[0].guard.clone(), world.scripts[0].clone());
        script.on_event(move |n| match (n, fault) {
            (90, 0) => Deed::Fail(JobError::Internal { reason: "broken".into() }),
            (90, 1) => {
                guard.switch(false);
                Deed::GoOn
            }
            (90, 2) => {
                guard.owner_was_here();
                Deed::GoOn
            }
            _ => Deed::GoOn,
        });
        let mut reply = world.provider.submit(job(200)).await.unwrap();
        let bill = reply.bill.clone().unwrap();
        let mut text = String::new();
        while let Some(event) = reply.next().await {
            if let Event::Text { text: more, .. } = event.unwrap() {
                text += &more;
            }
        }
        assert_eq!(text, whole(5, 200), "fault {fault}");
        let resumed = world.scripts[1].jobs.lock().unwrap()[0].resume.len();
        assert!(resumed >= 60, "{resumed}");
        // The prompt is paid twice and what was said once more as a prompt; of the first payment a chunk may be lost.
        let again = RATES.owed(7 + u32::try_from(resumed).unwrap(), 0).0;
        let most = RATES.owed(7, 200).0 + again + RATES.chunk().price.0 + 200;
        let cost = u128::from(bill.get().unwrap().cost);
        assert!(cost <= most, "{cost} of at most {most}");
        assert_eq!(world.mint.issued.load(Relaxed), bill.get().unwrap().cost);
    }
}

#[tokio::test]
async fn providers_that_cannot_be_reached_or_cheat_are_passed_over() {
    let world = world(3, |n, script| {
        if n == 2 {
            script.refuse(Some(JobError::Internal { reason: "no".into() }));
        }
    });
    world.wires.cut(&world.booths[0]);
    let reply = world.provider.submit(job(20)).await.unwrap();
    assert_eq!(reply.collect().await.unwrap().text, whole(5, 20));
    assert_eq!(world.scripts[2].jobs.lock().unwrap().len(), 1);
    assert_eq!(world.wires.dialled.lock().unwrap().len(), 3);
    // Both are paused now: the next job goes to the third at once.
    world.provider.submit(job(20)).await.unwrap().collect().await.unwrap();
    assert_eq!(world.wires.dialled.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn a_key_stays_within_its_budget_and_a_job_within_its_price() {
    let world = world(1, |_, _| {});
    let spend = |key: Option<&str>, max_price| Spend { key: key.map(Into::into), max_price };
    let ask = async |spend: Spend, tokens| {
        let job = Job { spend, ..job(tokens) };
        world.provider.submit(job).await?.collect().await.map(|answer| answer.tokens.len())
    };
    // 500 µcr are 34 tokens of an answer after a prompt of 7.
    let cut = ask(spend(Some("guest"), None), 400).await.unwrap();
    assert!((30..=34).contains(&cut), "{cut}");
    let refused = ask(spend(Some("guest"), None), 20).await.unwrap_err();
    assert!(matches!(&refused, JobError::Payment { reason } if reason.contains("guest")), "{refused}");
    let dear = ask(spend(None, Some(10)), 20).await.unwrap_err();
    assert!(matches!(&dear, JobError::Payment { reason } if reason.contains("max-price")), "{dear}");
    assert_eq!(ask(spend(None, None), 20).await.unwrap(), 20);
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_job_and_the_payments() {
    let world = world(1, |_, script| script.pause = Duration::from_millis(10));
    let mut reply = world.provider.submit(job(400)).await.unwrap();
    reply.next().await.unwrap().unwrap();
    drop(reply);
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if world.scripts[0].cancelled.load(Relaxed) == 1 {
            break;
        }
    }
    assert_eq!(world.scripts[0].cancelled.load(Relaxed), 1);
    assert!(world.mint.issued.load(Relaxed) <= 1_200);
    assert_eq!(world.parts.budgets.today().0.0, world.mint.issued.load(Relaxed).into());
}

#[tokio::test]
async fn nobody_offers_what_is_not_there() {
    let world = world(1, |_, _| {});
    let mut none = job(20);
    none.model = "other".into();
    assert!(matches!(world.provider.submit(none).await, Err(JobError::Unanswered { .. })));
    let mut large = job(20);
    large.input = crate::job::Input::Tokens(vec![1; 600]);
    assert!(matches!(world.provider.submit(large).await, Err(JobError::ContextLengthExceeded { .. })));
    assert_eq!(world.mint.issued.load(Relaxed), 0);
}
