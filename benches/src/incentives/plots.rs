//! The pictures of the document.

use std::collections::BTreeMap;

use super::{
    agent::Kind,
    career::{Alarm, LONGEST, Ring, Row, Throwaway, stakes},
    chart::{Frame, Picture, Scale},
    lot::whole,
    report::Report,
    world::{Day, Sums},
};

/// A line's colour, its name, and what it shows.
type Line<T> = (&'static str, &'static str, fn(&T) -> f64);

const COLOURS: [(&str, Kind); 5] = [
    ("a", Kind::Honest),
    ("c dash", Kind::Churning),
    ("e", Kind::Lazy),
    ("b", Kind::Cheating),
    ("d dash", Kind::Colluding),
];

/// All pictures with the names of their files.
pub fn all(report: &Report) -> Vec<(&'static str, String)> {
    vec![
        ("profit.svg", profit(report)),
        ("surface.svg", surface(report)),
        ("supply.svg", supply(report)),
        ("detection.svg", detection(report)),
        ("collusion.svg", collusion(report)),
        ("sybil.svg", sybil(report)),
        ("concentration.svg", concentration(report)),
    ]
}

fn day(place: usize) -> f64 {
    (place + 1) as f64
}

fn days(report: &Report) -> (&'static str, Scale) {
    ("days", Scale::linear(0.0, report.days.len() as f64))
}

fn credits(days: &[Day], of: impl Fn(&Day) -> f64) -> Vec<(f64, f64)> {
    days.iter().enumerate().map(|(place, it)| (day(place), of(it))).collect()
}

/// Profit by kind, seven days at a time, and bad answers.
fn profit(report: &Report) -> String {
    let mut picture = Picture::new(
        2,
        "Profit by kind over time",
        "Profit for an hour of the reference machine by kind of member, week by week, and the share of bad answers by day.",
    );
    let weeks = |kind: Kind| -> Vec<(f64, f64)> {
        let week = |(place, days): (usize, &[Day])| {
            let mut sums = Sums::default();
            for it in days.iter().filter_map(|day| day.kinds.get(&kind)) {
                sums.include(it).ok()?;
            }
            Some((day(place * 7 + days.len() - 1), sums.profit()))
        };
        report.days.chunks(7).enumerate().filter_map(week).collect()
    };
    let lines: Vec<_> = COLOURS.map(|(class, kind)| (class, kind, weeks(kind))).to_vec();
    let up = Scale::linear(-1.0, 1.0);
    let frame =
        picture.frame(0, "Profit, seven days at a time", days(report), ("credits for an hour of work", up));
    for (class, _, line) in &lines {
        picture.line(&frame, class, line.iter().copied());
    }
    picture.legend(&frame, &COLOURS.map(|(class, kind)| (class, kind.name())));
    let bad = credits(&report.days, |day| {
        let sum = |of: &dyn Fn(&Sums) -> u64| day.kinds.values().map(of).sum::<u64>() as f64;
        100.0 * sum(&|it| it.bad) / sum(&|it| it.jobs).max(1.0)
    });
    let frame = picture.frame(1, "Bad answers", days(report), ("% of all answers", Scale::linear(0.0, 12.0)));
    picture.line(&frame, "b", bad.into_iter());
    picture.finish()
}

/// Where cheating pays, beside the formulas.
fn surface(report: &Report) -> String {
    let mut picture = Picture::new(
        1,
        "Where cheating pays",
        "For each audit rate and stake whether a career of cheating gains or loses on average; lines: the formulas.",
    );
    let (across, up) = (Scale::logarithmic(0.5, 50.0), Scale::logarithmic(1.0, 10_000.0));
    let names = ("% of jobs audited", across);
    let frame =
        picture.frame(0, "Cheating pays (orange) or not (blue)", names, ("stake, in gains of one cheat", up));
    // Half a step each way: a twentieth of a power of ten across, a sixteenth up.
    let (wide, high) = (1.122_018_454, 1.154_781_985);
    let mut cells: BTreeMap<(&str, u64), Vec<[[f64; 2]; 2]>> = BTreeMap::new();
    for row in &report.surface {
        let rate = row.audit.unit() * 100.0;
        for (stake, profit) in stakes().into_iter().zip(&row.profits) {
            // Full colour where the stake or the gain is ten times the other.
            let strength = (profit.abs() / stake.max(profit.abs())).clamp(0.1, 1.0);
            let class = if *profit > 0.0 { "b" } else { "a" };
            let cell = [[rate / wide, rate * wide], [stake / high, stake * high]];
            cells.entry((class, whole(strength * 10.0))).or_default().push(cell);
        }
    }
    for ((class, tenths), cells) in &cells {
        picture.cells(&frame, class, *tenths as f64 * 0.07, cells);
    }
    let line = |of: &dyn Fn(&Row) -> f64| -> Vec<(f64, f64)> {
        report.surface.iter().map(|row| (row.audit.unit() * 100.0, of(row))).collect()
    };
    picture.line(&frame, "c dash", line(&|row| row.first_formula).into_iter());
    picture.line(&frame, "d", line(&|row| row.sequential_formula).into_iter());
    picture.points(&frame, "c", line(&|row| row.first).into_iter().step_by(2));
    picture.points(&frame, "d", line(&|row| row.sequential).into_iter().step_by(2));
    let name = format!("k(1−q)/q, k = {}", report.failures);
    picture.legend(&frame, &[("c dash", "(1−q)/q"), ("d", &name)]);
    picture.text("faint", 240.0, 66.0, "points: simulated");
    picture.finish()
}

/// Credits by place, and whether members can buy what they want.
fn supply(report: &Report) -> String {
    let mut picture = Picture::new(
        2,
        "Issuance and supply",
        "Credits granted, burnt, free, staked and withheld by day, and the share of wanted work that members could pay.",
    );
    let most = report.days.iter().map(|day| day.granted.credits()).fold(1.0, f64::max);
    let frame = picture.frame(0, "Credits", days(report), ("credits", Scale::linear(0.0, most)));
    let lines: [Line<Day>; 5] = [
        ("a", "granted", |day| day.granted.credits()),
        ("b", "burnt", |day| day.burnt.credits()),
        ("c", "free", |day| day.free.credits()),
        ("d", "staked", |day| day.staked.credits()),
        ("e", "treasury", |day| day.treasury.credits()),
    ];
    for (class, _, of) in lines {
        picture.line(&frame, class, credits(&report.days, of).into_iter());
    }
    picture.legend(&frame, &lines.map(|(class, name, _)| (class, name)));
    let frame = picture.frame(1, "Who can pay", days(report), ("%", Scale::linear(0.0, 100.0)));
    let served = |day: &Day| 100.0 * day.served as f64 / day.wanted.max(1) as f64;
    let rich = |day: &Day| 100.0 * day.top_tenth.credits() / day.free.credits().max(1e-6);
    picture.line(&frame, "a", credits(&report.days, served).into_iter());
    picture.line(&frame, "d dash", credits(&report.days, rich).into_iter());
    picture
        .legend(&frame, &[("a", "wanted work that is paid"), ("d dash", "of free credits: richest tenth")]);
    picture.finish()
}

/// How long cheats last, and how often the honest are convicted.
fn detection(report: &Report) -> String {
    let mut picture = Picture::new(
        2,
        "Time to convict",
        "Audits until a conviction by the part of the jobs that are cheated on, and wrong convictions by the audits' error.",
    );
    let most = LONGEST as f64;
    let frame = picture.frame(
        0,
        "Cheats",
        ("% of jobs on which the work is skipped", Scale::logarithmic(1.0, 100.0)),
        ("audits until the conviction", Scale::logarithmic(1.0, 100_000.0)),
    );
    for (place, class) in ["a dash", "a", "b dash"].into_iter().enumerate() {
        let points = report.skipping.iter().filter_map(|it| {
            let audits = it.audits.get(place).copied().flatten()?;
            Some((it.bad.unit() * 100.0, audits as f64))
        });
        picture.line(&frame, class, points);
    }
    picture.line(&frame, "e dash", [(1.0, most), (100.0, most)].into_iter());
    picture.legend(&frame, &[("a dash", "p10"), ("a", "p50"), ("b dash", "p90"), ("e dash", "broken off")]);
    let frame = picture.frame(
        1,
        "Honest providers",
        ("% of good answers that fail an audit", Scale::logarithmic(0.1, 10.0)),
        ("convictions in a million audits", Scale::logarithmic(1e-3, 1e5)),
    );
    let points = |of: &dyn Fn(&Alarm) -> f64| -> Vec<(f64, f64)> {
        report.alarms.iter().map(|it| (it.alarm.unit() * 100.0, of(it))).collect()
    };
    picture.line(&frame, "a", points(&|it| it.formula).into_iter());
    let seen = points(&|it| it.convicted).into_iter().filter(|(_, convicted)| *convicted > 0.0);
    picture.points(&frame, "b", seen);
    picture.legend(&frame, &[("a", "Wald's approximation"), ("b", "simulated (points)")]);
    picture.finish()
}

fn of_rings<'a>(
    report: &'a Report,
    confirmed: bool,
    of: &'a dyn Fn(&Ring) -> Option<f64>,
) -> impl Iterator<Item = (f64, f64)> + 'a {
    report
        .rings
        .iter()
        .filter(move |it| (it.confirm > 0) == confirmed)
        .filter_map(move |it| Some((it.seats.unit() * 100.0, of(it)?)))
}

/// What a ring of verifiers can do.
fn collusion(report: &Report) -> String {
    let mut picture = Picture::new(
        2,
        "Colluding verifiers",
        "Audits until a member of a ring is convicted, and wrong convictions of others, by the ring's part of the seats.",
    );
    let names = ("% of the verifiers' seats", Scale::linear(0.0, 60.0));
    let legend = [("b", "one verifier"), ("a", "failures confirmed")];
    let frame = picture.frame(
        0,
        "It vouches for its own",
        names,
        ("audits until the conviction, p50", Scale::logarithmic(1.0, 10_000.0)),
    );
    let own = |it: &Ring| it.audits.map(|audits| audits as f64);
    let wrong = |it: &Ring| (it.wrong > 0.0).then_some(it.wrong);
    picture.line(&frame, "b", of_rings(report, false, &own));
    picture.line(&frame, "a", of_rings(report, true, &own));
    picture.legend(&frame, &legend);
    let frame = picture.frame(
        1,
        "It accuses everybody",
        names,
        ("wrong convictions in a million audits", Scale::logarithmic(1.0, 1e6)),
    );
    picture.line(&frame, "b", of_rings(report, false, &wrong));
    picture.line(&frame, "a", of_rings(report, true, &wrong));
    picture.legend(&frame, &legend);
    picture.finish()
}

/// What many keys cost and bring.
fn sybil(report: &Report) -> String {
    let mut picture = Picture::new(
        2,
        "Sybil attacks",
        "Profit of a key that is made to cheat, by its stake, and the stake that seats of verifiers cost.",
    );
    let up = Scale::linear(-20.0, 60.0);
    let frame: Frame = picture.frame(
        0,
        "A key made to cheat with",
        ("its stake, credits", Scale::logarithmic(0.1, 200.0)),
        ("profit until its conviction, credits", up),
    );
    let lines: [Line<Throwaway>; 3] = [
        ("b", "paid at once, or patient", |it| it.at_once),
        ("a", "in the ramp", |it| it.in_ramp),
        ("d dash", "patient, fast, late", |it| it.patient_fast),
    ];
    for (class, _, of) in lines {
        let points = report.throwaways.iter().map(|it| (it.stake.credits(), of(it)));
        picture.line(&frame, class, points.filter(|(stake, _)| *stake > 0.0));
    }
    picture.legend(&frame, &lines.map(|(class, name, _)| (class, name)));
    let frame = picture.frame(
        1,
        "Seats for a ring",
        ("% of the verifiers' seats", Scale::linear(0.0, 60.0)),
        ("stake, credits, for 1,000 honest seats", Scale::linear(0.0, 16_000.0)),
    );
    let stake = |it: &Ring| Some(it.stake.credits());
    picture.line(&frame, "a", of_rings(report, true, &stake));
    picture.finish()
}

/// Who has how much.
fn concentration(report: &Report) -> String {
    let mut picture = Picture::new(
        1,
        "Concentration",
        "Lorenz curves of the speed, the earnings and the free credits of honest members.",
    );
    let hundred = Scale::linear(0.0, 100.0);
    let names = ("% of honest members, the poorest first", hundred);
    let frame = picture.frame(0, "Lorenz curves", names, ("% of all", hundred));
    picture.line(&frame, "e dash", [(0.0, 0.0), (100.0, 100.0)].into_iter());
    let classes = ["a", "c dash", "d"];
    for (class, it) in classes.into_iter().zip(&report.concentration) {
        picture.line(
            &frame,
            class,
            it.curve.iter().enumerate().map(|(place, part)| (place as f64, part * 100.0)),
        );
    }
    let [speed, earned, free] = &report.concentration;
    let names = [("speed", speed), ("earned", earned), ("free credits", free)]
        .map(|(name, it)| format!("{name} {:.2}", it.gini));
    let [one, two, three] = &names;
    picture.legend(&frame, &[("a", one), ("c dash", two), ("d", three)]);
    picture.finish()
}
