use super::*;
use crate::policy::types::{Choice, Price};

fn ranking(order: &[u32]) -> Ranking {
    let choice = |&candidate: &u32| Choice { candidate, score: 0 };
    Ranking { order: order.iter().map(choice).collect(), note: String::new() }
}

#[test]
fn only_candidates_of_the_list_are_ranked_and_each_once() {
    assert_eq!(check_ranking(3, &ranking(&[2, 0, 1])), Ok(()));
    assert_eq!(check_ranking(3, &ranking(&[])), Ok(()));
    assert_eq!(check_ranking(0, &ranking(&[])), Ok(()));
    assert_eq!(check_ranking(3, &ranking(&[0, 3])), Err(Fault::Unknown { index: 3, len: 3 }));
    assert_eq!(check_ranking(3, &ranking(&[u32::MAX])), Err(Fault::Unknown { index: u32::MAX, len: 3 }));
    assert_eq!(check_ranking(3, &ranking(&[1, 2, 1])), Err(Fault::Twice { index: 1 }));
    assert_eq!(check_ranking(70, &ranking(&[65, 1, 65])), Err(Fault::Twice { index: 65 }));
    assert!(matches!(check_ranking(1, &ranking(&[0, 0])), Err(Fault::Long { len: 2, most: 1, .. })));
    let all: Vec<u32> = (0..1024).rev().collect();
    assert_eq!(check_ranking(1024, &ranking(&all)), Ok(()));
    let long = Ranking { note: "n".repeat(1025), ..Ranking::default() };
    assert!(matches!(check_ranking(1, &long), Err(Fault::Long { len: 1025, most: 1024, .. })));
}

fn quoted(price: Price) -> Result<(), Fault> {
    let market = Market { floor: 10, ceiling: 100, ..Market::default() };
    let job = Job { prompt_most: 1000, answer_room: 1000, ..Job::default() };
    check_price(&job, &market, &price)
}

#[test]
fn a_price_lies_within_the_market() {
    let fine = Price { start: 100, per_thousand_prompt: 0, per_thousand_answer: 10, ..Price::default() };
    assert_eq!(quoted(fine.clone()), Ok(()));
    let below = quoted(Price { per_thousand_answer: 9, ..fine.clone() });
    assert_eq!(below, Err(Fault::BelowFloor { asked: 9, floor: 10 }));
    for dear in [
        Price { start: 101, ..fine.clone() },
        Price { per_thousand_prompt: 101, ..fine.clone() },
        Price { per_thousand_answer: 101, ..fine.clone() },
        Price { per_thousand_answer: u64::MAX, ..fine.clone() },
    ] {
        assert!(matches!(quoted(dear), Err(Fault::AboveCeiling { ceiling: 100, .. })));
    }
    let note = quoted(Price { note: "ü".repeat(513), ..fine });
    assert!(matches!(note, Err(Fault::Long { len: 1026, .. })), "bytes are counted, not letters");
}

#[test]
fn a_price_that_cannot_be_counted_is_none() {
    let market = Market { ceiling: u64::MAX, ..Market::default() };
    let job = Job { answer_room: 2000, ..Job::default() };
    let price = Price { per_thousand_answer: u64::MAX, ..Price::default() };
    assert_eq!(check_price(&job, &market, &price), Err(Fault::Overflow));
}

#[test]
fn a_share_of_the_stake_is_a_share() {
    let of = |judgement| check_verdict(&Verdict { judgement, reason: "r".into() });
    assert_eq!(of(Judgement::Acquit), Ok(()));
    assert_eq!(of(Judgement::Convict(1)), Ok(()));
    assert_eq!(of(Judgement::Convict(1_000_000)), Ok(()));
    for share in [0, 1_000_001, u32::MAX] {
        assert!(matches!(of(Judgement::Convict(share)), Err(Fault::Share { .. })), "{share}");
    }
}

#[test]
fn a_question_has_its_bounds_too() {
    let routing = |job: Job, count: usize| Input::Routing {
        job,
        candidates: vec![Candidate::default(); count],
        now: 0,
        seed: 0,
    };
    assert_eq!(check_input(&routing(Job::default(), 1024)), Ok(()));
    assert!(check_input(&routing(Job::default(), 1025)).is_err());
    assert!(check_input(&routing(Job { model: "m".repeat(257), ..Job::default() }, 1)).is_err());
    assert!(check_input(&routing(Job { prefix: vec![0; 65], ..Job::default() }, 1)).is_err());
    let upside_down = Input::Pricing {
        job: Job::default(),
        hardware: Hardware::default(),
        market: Market { floor: 2, ceiling: 1, ..Market::default() },
        now: 0,
    };
    assert_eq!(check_input(&upside_down), Err(Fault::Market { floor: 2, ceiling: 1 }));
}

#[test]
fn an_answer_to_another_question_is_none() {
    let question = Input::Slashing { evidence: Evidence::default(), now: 0 };
    let refusal = Output::Pricing(Err("no".into()));
    assert!(matches!(check_output(&question, &refusal), Err(Fault::Kind { .. })));
    let long = Output::Slashing(Err("n".repeat(2000)));
    assert!(matches!(check_output(&question, &long), Err(Fault::Long { .. })));
}

#[test]
fn a_label_can_be_shown() {
    let label = |name: &str| Description { name: name.into(), ..Description::default() };
    assert_eq!(check_description(&label("near-first-2")), Ok(()));
    for name in ["", "Near", "a b", "a\u{1b}[31m", "ü"] {
        assert!(check_description(&label(name)).is_err(), "{name}");
    }
}
