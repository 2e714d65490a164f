//! Who can link whom with what: jobs of several persons go over real relays to real providers for real tokens; taps
//! write down what every party sees; and an attacker of our own tries to find the person behind each prompt.
//!
//! The long version, which prints a table and JSON:
//!
//! ```sh
//! POTLUCK_LINK_JOBS=1000 cargo test -p potluck --lib what_each_party_links -- --nocapture
//! ```
//!
//! `POTLUCK_LINK_OUT` names a file for the JSON, and `POTLUCK_LINK_RATE` says how many jobs come in a second (2.5): no more
//! than the machine can answer. With `TMPDIR` in memory the journals of 15 nodes do not wait for one disk.

mod attack;
mod taps;
mod town;
mod views;

use std::time::{Duration, Instant};

use serde_json::json;

use self::{
    attack::{ALPHA, Dice, Score},
    town::{Asked, Plan},
};
use super::super::{fixture::stories, purse};

/// So many seconds of a network in which each person asks once a minute are one second here.
fn pace(plan: &Plan) -> f64 {
    60.0 * plan.rate / plan.persons as f64
}

/// What is expected of a line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// One party alone: guessing.
    Nothing,
    /// The attacker must be able to find what is there.
    Found,
    /// Somewhat better than guessing; docs/src/protocol/public.md says why. Worse than this many percent.
    Little(u8),
    /// Measured, and said.
    Said,
}

struct Line {
    who: &'static str,
    what: &'static str,
    score: Score,
    expected: Expected,
}

fn plan(jobs: Option<usize>) -> Plan {
    let rate = std::env::var("POTLUCK_LINK_RATE").ok().and_then(|it| it.parse().ok());
    let rate = rate.unwrap_or(if jobs.is_some() { 2.5 } else { 4.0 });
    let mut plan = match jobs {
        Some(jobs) => Plan { persons: 6, jobs, habits: 60, rate, delay: 0.0 },
        None => Plan { persons: 4, jobs: 40, habits: 16, rate, delay: 0.0 },
    };
    // The product's delay, at the pace of this town.
    plan.delay = purse::DELAY.as_secs_f64() / pace(&plan);
    plan
}

fn lines(town: &views::Town, plan: &Plan, dice: &mut Dice) -> Vec<Line> {
    use Expected::{Found, Little, Nothing, Said};
    // Redeemed every ten minutes.
    let period = 600.0 / pace(plan);
    let topic: fn(&Asked) -> usize = |asked| asked.topic;
    let size: fn(&Asked) -> usize = |asked| asked.size;
    let mut all = Vec::new();
    let mut line = |who, what, score, expected| all.push(Line { who, what, score, expected });
    line("relay", "what was asked", town.relay(views::Town::TOPICS, topic, dice), Nothing);
    line("relay", "short or long", town.relay(views::Town::SIZES, size, dice), Said);
    line("provider", "who of its customers", town.provider_beyond_custom(dice), Little(60));
    line("provider", "who of all", town.provider(false, false, false, dice), Said);
    line("issuer", "who asked", town.issuer(dice), Little(40));
    line("chain", "who asked", town.chain(period, false, dice), Nothing);
    line("relay + provider", "who asked, by times", town.relay_and_provider(dice), Found);
    // A few jobs are too few to learn from.
    let enough = if plan.habits < 50 { Said } else { Found };
    line("provider, habits", "who asked", town.provider(true, true, false, dice), enough);
    line("relay + issuer", "which account", town.relay_and_issuer(), Said);
    line("provider + issuer", "who asked", town.issuer_and_providers(dice), Said);
    line("provider + chain", "who asked", town.chain(period, true, dice), Said);
    line("both providers", "who asked", town.provider(true, false, false, dice), Said);
    all
}

fn report(lines: &[Line], plan: &Plan, figures: serde_json::Value) {
    println!(
        "{:<18} {:<20} {:>6} {:>7} {:>7} {:>15} {:>9} {:>11}",
        "party", "question", "jobs", "right", "chance", "95 %", "p", "detectable"
    );
    let mut rows = Vec::new();
    for Line { who, what, score, .. } in lines {
        let ((low, high), p) = (score.interval(), score.p());
        println!(
            "{who:<18} {what:<20} {:>6} {:>6.1}% {:>6.1}% {:>6.1}%–{:>5.1}% {p:>9.2e} {:>10.1}%",
            score.tried,
            100.0 * score.accuracy(),
            100.0 * score.chance,
            100.0 * low,
            100.0 * high,
            100.0 * score.power(),
        );
        rows.push(json!({
            "party": who, "question": what, "jobs": score.tried, "right": score.right, "accuracy": score.accuracy(),
            "chance": score.chance, "low": low, "high": high, "p": p, "detectable": score.power(),
        }));
    }
    let all = json!({"plan": plan, "figures": figures, "alpha": ALPHA, "lines": rows});
    println!("{all}");
    if let Some(path) = std::env::var_os("POTLUCK_LINK_OUT") {
        std::fs::write(path, serde_json::to_vec_pretty(&all).unwrap()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_each_party_links_is_what_is_written_down() {
    let Some(inference) = stories().await else { return };
    let jobs = std::env::var("POTLUCK_LINK_JOBS").ok().and_then(|it| it.parse().ok());
    let plan = plan(jobs);
    let began = Instant::now();
    let town = town::Town::new(inference, &plan).await;
    println!("the town stands after {:?}", began.elapsed());
    let mut dice = Dice(7);
    let asked = town.live(&plan, &mut dice).await;
    // The last claims and purchases.
    tokio::time::sleep(Duration::from_secs_f64(plan.delay.min(1.0) + 0.5)).await;
    println!("{} jobs after {:?}", asked.len(), began.elapsed());
    let seen = views::Town::new(&town.seen, &asked, &town.accounts(), town.peers(), town.providers());
    let lines = lines(&seen, &plan, &mut dice);
    let mut figures = seen.figures();
    figures["both_providers_by_feature"] = json!(seen.provider_by_feature(&mut dice));
    report(&lines, &plan, figures);
    town.end().await;
    let answered = asked.iter().filter(|it| it.answered).count();
    assert!(answered * 20 >= asked.len() * 19, "{answered} of {} were answered", asked.len());
    assert!(seen.cases.len() * 20 >= asked.len() * 19, "{} of {} were seen", seen.cases.len(), asked.len());
    for Line { who, what, score, expected } in lines {
        let ((low, high), p) = (score.interval(), score.p());
        match expected {
            // Two such lines: once in 5,000 runs one of them fails by chance.
            Expected::Nothing => assert!(p > ALPHA / 100.0, "{who}, {what}: {low} to {high}, p {p}"),
            Expected::Found => {
                assert!(p < ALPHA / 10.0, "{who}, {what} is not found: {low} to {high}, p {p}")
            }
            Expected::Little(most) => {
                assert!(100.0 * low < f64::from(most), "{who}, {what}: {low} to {high}");
            }
            Expected::Said => {}
        }
    }
    println!("all of it took {:?}", began.elapsed());
}
