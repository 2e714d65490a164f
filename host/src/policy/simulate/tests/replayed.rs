use super::*;

fn ends(outcome: &Outcome) -> u64 {
    outcome.totals.done + outcome.totals.lost()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let (balanced, thrift, demand) = (shipped("balanced"), shipped("thrift"), shipped("demand"));
    let run = || {
        let contestants =
            [Contestant::native(), Contestant::policy(balanced.clone()), Contestant::policy(thrift.clone())];
        let (report, _) =
            simulate(&small(), &contestants, Some(&demand), &Rules::default(), &mut |_| true).unwrap();
        (serde_json::to_string(&report).unwrap(), picture(&report), report)
    };
    let ((json, svg, report), (json_again, svg_again, _)) = (run(), run());
    assert_eq!(json, json_again);
    assert_eq!(svg, svg_again);
    for it in &report.outcomes {
        assert_eq!((ends(it), it.totals.failures), (1500, 0), "{it:?}");
        assert!(it.cost.paid.mean > 0.0);
    }
    let other = Scenario { seed: 8, ..Scenario { machines: 40, jobs: 1500, seed: 0, load: 60 } }.trace();
    let other = quiet(&other, &[Contestant::native()], &Rules::default());
    assert_ne!(other.outcomes[0].whole, report.outcomes[0].whole, "another seed is another trace");
}

#[test]
fn every_job_ends_once_whatever_goes_wrong() {
    let mut trace = small();
    for (number, machine) in (0_u64..).zip(&mut trace.machines) {
        machine.faults = 200_000;
        // Everybody is away for a third of the time, some from the start.
        let third = 20_000_000;
        machine.away = (0..20)
            .map(|n| [n * 3 * third + number % 3 * third, n * 3 * third + number % 3 * third + third])
            .collect();
    }
    let it = &quiet(&trace, &[Contestant::native()], &Rules::default()).outcomes[0];
    assert_eq!((ends(it), it.totals.jobs), (1500, 1500));
    assert!(it.totals.broken > 100 && it.totals.done > 500 && it.totals.resumed > 0, "{:?}", it.totals);
    let last = trace.jobs.last().unwrap().at_us;
    assert!(it.ended_us >= last && it.ended_us < last + 3_600_000_000);
}

#[test]
fn an_order_with_nobody_in_it_fails_every_job_and_ends() {
    let it = &quiet(&small(), &[built_in("nobody", Nobody)], &Rules::default()).outcomes[0];
    assert_eq!((it.totals.done, it.totals.tries), (0, 0));
    assert_eq!(it.totals.failed.get("left_out"), Some(&1500));
    assert_eq!((it.first.count, it.load.gini), (0, 0.0));
    // Nothing came out, and it can be drawn.
    let report = quiet(&small(), &[Contestant::native(), built_in("nobody", Nobody)], &Rules::default());
    assert!(picture(&report).ends_with("</svg>\n"));
}

#[test]
fn a_pool_without_a_machine_that_is_there_fails_every_job_and_ends() {
    let mut trace = plain(2, 1);
    for machine in &mut trace.machines {
        machine.away = vec![[0, 1_000_000_000]];
    }
    trace.jobs = (0..50).map(|n| job(n * 1_000_000, 10)).collect();
    let it = &quiet(&trace, &[Contestant::native()], &Rules::default()).outcomes[0];
    assert_eq!((it.totals.done, it.totals.lost()), (0, 50));
    assert!(
        it.totals.failed.contains_key("tries") && it.totals.failed.contains_key("nobody"),
        "{:?}",
        it.totals
    );
}

#[test]
fn an_answer_goes_on_where_another_machine_left_it() {
    let mut trace = plain(2, 1);
    trace.machines[1].away = vec![[5_000_000, 100_000_000]];
    trace.machines[2].away = vec![[0, 1], [50_000_000, 60_000_000]];
    // The second machine is slow, so that the first is asked first.
    trace.machines[2].decode = 500_000;
    trace.jobs = vec![job(1_000_000, 10_000)];
    let it = &quiet(&trace, &[Contestant::native()], &Rules::default()).outcomes[0];
    assert_eq!((it.totals.done, it.totals.resumed, it.totals.broken, it.totals.tries), (1, 1, 1, 2));
    // 4 s at 1,000 tokens per second, 0.7 s of silence, what was made is read again in 4 s, and the rest at 500.
    let rest = 10_000 - 4_000;
    let whole = 4_000_000 + 700_000 + 4_000_000 + rest * 2_000;
    assert!(it.whole.p50.abs_diff(whole) < 20_000, "{} instead of {whole}", it.whole.p50);
    assert_eq!(it.first.p50, 1000);
}

#[test]
fn whoever_sees_old_reports_waits_longer() {
    // Fifty who ask, none of whom sees what the others have asked for before the next report.
    let mut trace = plain(2, 1);
    let asker = trace.machines[0].clone();
    trace.machines.extend(std::iter::repeat_n(asker, 50));
    trace.jobs = laws::random_jobs(20_000, 1.4, 9);
    for (number, job) in (0_u32..).zip(&mut trace.jobs) {
        job.from = 3 + number % 50;
    }
    let mean = |report_us| {
        let rules = Rules { report_us, valid_us: 5 * report_us, ..unbounded() };
        quiet(&trace, &[Contestant::native()], &rules).outcomes[0].whole.mean
    };
    let [fresh, usual, stale] = [10_000, 2_000_000, 20_000_000].map(mean);
    assert!(1.2 * fresh < usual && 1.2 * usual < stale, "{fresh} {usual} {stale}");
}

#[test]
fn what_cannot_be_simulated_is_refused() {
    let (trace, rules) = (small(), Rules::default());
    let go = |contestants: &[Contestant], pricing: Option<&Arc<Policy>>, rules: &Rules| {
        simulate(&trace, contestants, pricing, rules, &mut |_| true).unwrap_err().to_string()
    };
    let native = [Contestant::native()];
    let linear = shipped("linear");
    assert!(go(&[], None, &rules).contains("1 to 12"));
    assert!(go(&[Contestant::policy(linear)], None, &rules).contains("`linear` is a pricing policy"));
    let routing = shipped("balanced");
    assert_eq!(routing.kind(), Kind::Routing);
    assert!(go(&native, Some(&routing), &rules).contains("and pricing is to be simulated"));
    assert!(go(&native, None, &Rules { candidates: 2000, ..rules.clone() }).contains("1 to 1024"));
    let mut calls = 0;
    let stopped = simulate(&trace, &native, None, &rules, &mut |progress| {
        calls += 1;
        progress.done < 700
    });
    assert!(matches!(stopped, Err(SimulateError::Stopped)));
    assert!((40..80).contains(&calls), "{calls}");
}

#[test]
fn the_picture_stands_alone_and_names_everybody() {
    let contestants = [Contestant::native(), built_in("a<b>&c", Same)];
    let svg = picture(&quiet(&small(), &contestants, &Rules::default()));
    assert!(svg.starts_with("<svg xmlns=") && svg.contains("prefers-color-scheme:dark"));
    assert!(svg.contains("a&lt;b&gt;&amp;c") && !svg.contains("a<b>"));
    assert!(
        !svg.contains("href") && !svg.contains("<script") && !svg.contains("NaN") && !svg.contains("inf")
    );
    assert_eq!(svg.matches("<path class=\"one\"").count(), 8, "four curves each");
    assert_eq!(svg.matches("<path class=\"other\"").count(), 4, "and what is compared with");
}
