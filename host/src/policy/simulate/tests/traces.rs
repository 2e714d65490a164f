use super::*;
use crate::policy::simulate::number::Random;

fn written(trace: &Trace) -> Vec<u8> {
    let mut bytes = Vec::new();
    trace.write(&mut bytes).unwrap();
    bytes
}

fn lines() -> Vec<String> {
    let mut trace = plain(2, 1);
    trace.jobs = vec![job(5, 3), job(9, 3)];
    String::from_utf8(written(&trace)).unwrap().lines().map(str::to_owned).collect()
}

fn refusal(lines: &[String]) -> String {
    Trace::read(lines.join("\n").as_bytes()).unwrap_err().to_string()
}

#[test]
fn what_is_written_is_read() {
    let trace = small();
    let bytes = written(&trace);
    let read = Trace::read(&*bytes).unwrap();
    assert_eq!(read, trace);
    assert_eq!(written(&read), bytes);
    trace.check().unwrap();
}

#[test]
fn a_made_up_trace_is_as_it_was_ordered() {
    let scenario = Scenario { machines: 200, jobs: 5000, seed: 4, load: 50 };
    let trace = scenario.trace();
    assert_eq!(trace, scenario.trace());
    assert_eq!((trace.machines.len(), trace.jobs.len()), (200, 5000));
    assert_ne!(trace.jobs, Scenario { seed: 5, ..scenario }.trace().jobs);
    let held = |model: u32| trace.machines.iter().any(|machine| machine.models.contains(&model));
    assert!((0..8).all(held));
    let median = |mut values: Vec<u32>| {
        values.sort_unstable();
        values[values.len() / 2]
    };
    let answers = median(trace.jobs.iter().map(|job| job.answer).collect());
    assert!((140..180).contains(&answers), "{answers}");
    let again = trace.jobs.iter().filter(|job| job.prefix.len() > 1).count();
    assert!(again > 2000, "{again}");
    // Twice the load is the same jobs in half the time, and busier machines.
    let twice = Scenario { load: 100, ..scenario }.trace();
    // The middle, since a burst at the end lasts as long as it lasts.
    let middle = |trace: &Trace| trace.jobs[trace.jobs.len() / 2].at_us;
    assert!(middle(&trace).abs_diff(2 * middle(&twice)) < middle(&trace) / 10);
    let used =
        |trace| quiet(trace, &[Contestant::native()], &Rules::default()).outcomes[0].load.utilisation.mean;
    assert!(1.3 * used(&trace) < used(&twice), "{} {}", used(&trace), used(&twice));
    // The smallest there can be.
    let one = Scenario { machines: 0, jobs: 0, seed: 0, load: 0 }.trace();
    assert_eq!((one.machines.len(), one.jobs.len()), (1, 1));
    one.check().unwrap();
}

#[test]
fn a_line_that_is_wrong_is_named() {
    let good = lines();
    assert!(Trace::read(good.join("\n\n").as_bytes()).is_ok(), "empty lines do not matter");
    // The head is line 1, the model 2, three machines 3 to 5, two jobs 6 and 7.
    let cases = [
        (6, "\"from\":0", "\"from\":9", "line 7 of the trace: from names machine 9, and there are 3"),
        (6, "\"model\":0", "\"model\":1", "line 7 of the trace: model names model 1, and there are 1"),
        (6, "\"at_us\":9", "\"at_us\":4", "line 7 of the trace: at_us is 4 and must be from 5"),
        (6, "\"prompt\":1", "\"prompt\":0", "line 7 of the trace: prompt is 0"),
        (6, "\"prompt\":1", "\"prompt\":-1", "line 7 of the trace cannot be understood"),
        (6, "\"prompt\":1", "\"prompt\":1,\"x\":2", "unknown field `x`"),
        (6, "\"prompt\":1", "\"prompt\":1,\"prefix\":[[1,65]]", "line 7 of the trace: prefix is 65"),
        (6, "\"prompt\":1", "\"prompt\":1,\"max_tokens\":2", "line 7 of the trace: max_tokens is 2"),
        (5, "{", "[", "line 6 of the trace cannot be understood"),
        (3, "\"slots\":1", "\"slots\":0", "line 4 of the trace: slots is 0 and must be from 1 to 1024"),
        (3, "\"models\":[0]", "\"models\":[0,0]", "line 4 of the trace: models names model 0 twice"),
        (3, "\"models\":[0]", "\"models\":[0],\"away\":[[5,4]]", "line 4 of the trace: away has [5,4]"),
        (3, "\"decode\":1000000", "\"decode\":1e300", "line 4 of the trace cannot be understood"),
        (1, "\"parameters\":1000", "\"parameters\":0", "line 2 of the trace: parameters is 0"),
        (0, "\"version\":1", "\"version\":2", "line 1 of the trace: version is 2 and this program reads 1"),
    ];
    for (line, from, to, wanted) in cases {
        let mut bad = good.clone();
        bad[line] = bad[line].replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        let found = refusal(&bad);
        assert!(found.contains(wanted), "`{found}` instead of `{wanted}`");
    }
}

#[test]
fn lines_in_a_wrong_order_or_missing_are_named() {
    let good = lines();
    assert!(refusal(&good[1..]).contains("does not begin with"));
    assert!(refusal(&["potluck".into()]).contains("does not begin with"));
    assert!(refusal(&[]).contains("does not begin with"));
    assert!(refusal(&good[..1]).contains("has no models"));
    assert!(refusal(&good[..2]).contains("has no machines"));
    assert!(refusal(&good[..5]).contains("has no jobs"));
    let late = |line: usize| [&good[..], &good[line..=line]].concat();
    assert!(refusal(&late(0)).contains("line 8 of the trace is a head and comes too late"));
    assert!(refusal(&late(1)).contains("line 8 of the trace is a model"));
    assert!(refusal(&late(2)).contains("line 8 of the trace is a machine"));
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let good = lines();
    let mut long = good.clone();
    long[6] = format!("{}{}", " ".repeat(MAX_LINE), long[6]);
    assert!(refusal(&long).contains("line 7 of the trace has more than 65536 bytes"));
    // A file without any line end is not taken into memory as a whole.
    struct Endless;
    impl std::io::Read for Endless {
        fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
            bytes.fill(b' ');
            Ok(bytes.len())
        }
    }
    let endless = Trace::read(std::io::BufReader::new(Endless)).unwrap_err();
    assert!(matches!(endless, TraceError::Long { line: 1 }));
    let machines = std::iter::repeat_n(good[2].clone(), MAX_PEERS + 1);
    let many: Vec<_> = good[..2].iter().cloned().chain(machines).collect();
    assert!(refusal(&many).contains("line 10003 of the trace is one too many: at most 10000 machines"));
}

#[test]
fn no_damage_does_worse_than_an_error() {
    let trace = Scenario { machines: 5, jobs: 30, seed: 2, load: 50 }.trace();
    let bytes = written(&trace);
    let mut random = Random::new(11, 0);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..3000 {
        let mut bad = bytes.clone();
        for _ in 0..=random.below(3) {
            let at = usize::try_from(random.below(bad.len() as u64)).unwrap();
            match random.below(3) {
                0 => bad[at] = u8::try_from(random.below(256)).unwrap(),
                1 => bad[at] = b"0123456789"[usize::try_from(random.below(10)).unwrap()],
                _ => bad.truncate(at.max(1)),
            }
        }
        match Trace::read(&*bad) {
            Ok(trace) => {
                // Whatever can be read can be simulated to its end.
                let it = &quiet(&trace, &[Contestant::native()], &Rules::default()).outcomes[0];
                assert_eq!(it.totals.done + it.totals.lost(), trace.jobs.len() as u64);
                read += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(read > 50 && refused > 500, "{read} {refused}");
}
