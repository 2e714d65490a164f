//! A short run: few answers of a random model, which are told apart all the same.

use super::{
    attack::Attack,
    measure::{Cell, Settings, attacked, honest, honest_gpu},
    report::{Report, mean},
    subject::{Change, Subject},
};
use potluck_kernels::dtype::DType;

const SETTINGS: Settings = Settings { answers: 24, threads: 1, batch: 8 };

fn subject() -> Subject {
    // Random models need no file.
    let mut subject = Subject::load("llama-q8_0", std::path::Path::new("none")).unwrap();
    subject.limit = 96;
    subject
}

fn found(cell: &Cell, exact: bool) -> usize {
    cell.rows.iter().filter(|row| if exact { row.exact } else { row.float }.contains(&true)).count()
}

#[test]
fn honest_answers_of_every_cpu_path_pass_exactly() {
    let cell = honest(&subject(), &SETTINGS).unwrap();
    assert!(cell.rows.len() >= SETTINGS.answers && cell.made.len() >= 2, "{:?}", cell.made);
    assert!(cell.rows.iter().all(|row| row.largest == 0 && row.end.is_none_or(|end| end == 0)));
    assert_eq!(found(&cell, true), 0);
    assert_eq!(found(&cell, false), 0);
}

#[test]
fn cheats_are_told_from_the_honest() {
    let subject = subject();
    let lowest = Attack::Model(Change::Stored(DType::Q4_0.gguf_id()));
    let mut cells = vec![honest(&subject, &SETTINGS).unwrap()];
    for attack in [
        lowest,
        Attack::Model(Change::Dropped),
        Attack::Draft,
        Attack::PromptCut,
        Attack::Seed,
        Attack::Cached,
        Attack::Stop,
        Attack::Usage,
    ] {
        let cell = attacked(&subject, attack, &SETTINGS).unwrap();
        assert!(cell.rows.len() >= 16, "{}", cell.kind);
        assert_eq!(found(&cell, true), cell.rows.len(), "{} by exact limits", cell.kind);
        if attack == Attack::Draft {
            let by_states = cell.rows.iter().filter(|row| row.exact[2]).count();
            assert_eq!(by_states, 0, "a draft that the right model has read has the right states");
        }
        cells.push(cell);
    }
    let report = Report::make(&cells, Vec::new());
    for line in report.lines.iter().filter(|l| !["honest", "usage-inflated", "stop-half"].contains(&&*l.kind))
    {
        // Ninety tokens of a heavier quantisation differ from none in an answer now and then.
        let least = if line.kind == "q4_0" { 0.95 } else { 0.99 };
        assert!(line.area > least, "{}: {}", line.kind, line.area);
    }
}

#[test]
fn other_arithmetic_is_not_a_cheat() {
    let subject = subject();
    let cell = match honest_gpu(&subject, &Settings { answers: 12, ..SETTINGS }) {
        Ok(cell) => cell,
        Err(error) => return println!("SKIPPED: {error}"),
    };
    assert_eq!(found(&cell, false), 0, "{:?}", cell.rows);
    let lowest = attacked(&subject, Attack::Model(Change::Dropped), &SETTINGS).unwrap();
    let worst = cell.rows.iter().map(|row| mean(row, 7, 2)).fold(0.0, f64::max);
    let found = lowest.rows.iter().filter(|row| mean(row, 7, 2) > worst).count();
    assert!(found * 2 > lowest.rows.len(), "{found} of {} above {worst}", lowest.rows.len());
}
