use super::*;

fn routing() -> Input {
    Input::Routing {
        job: Job { model: "m".into(), prefix: vec![1, 2], max_price: Some(u64::MAX), ..Job::default() },
        candidates: vec![Candidate { machine: u64::MAX, round_trip: Some(7), ..Candidate::default() }],
        now: 1,
        seed: u64::MAX,
    }
}

#[test]
fn words_survive_json_and_scale() {
    let slashing = Input::Slashing {
        evidence: Evidence {
            audits: vec![Audit {
                verifier: 1,
                method: Method::Canary,
                outcome: Outcome::Unclear,
                distance: 2,
                tokens: 3,
                time: 4,
            }],
            ..Evidence::default()
        },
        now: 9,
    };
    let pricing = Input::Pricing {
        job: Job::default(),
        hardware: Hardware::default(),
        market: Market { last: Some(3), ..Market::default() },
        now: 0,
    };
    for input in [routing(), pricing, slashing] {
        let json = serde_json::to_string(&input).unwrap();
        assert_eq!(serde_json::from_str::<Input>(&json).unwrap(), input, "{json}");
        assert_eq!(Input::from_scale(&input.encode()).unwrap(), input);
    }
    let answers = [
        Output::Routing(Ok(Ranking {
            order: vec![Choice { candidate: 3, score: i64::MIN }],
            note: "near".into(),
        })),
        Output::Pricing(Err("no".into())),
        Output::Slashing(Ok(Verdict { judgement: Judgement::Convict(5), reason: "r".into() })),
    ];
    for output in answers {
        let json = serde_json::to_string(&output).unwrap();
        assert_eq!(serde_json::from_str::<Output>(&json).unwrap(), output, "{json}");
        assert_eq!(Output::from_scale(&output.encode()).unwrap(), output);
    }
}

/// These bytes are stored and compared by other machines: if this fails, stored decisions can no longer be read.
#[test]
fn the_stored_form_does_not_change() {
    let text = crate::policy::hash::hex(&routing().encode());
    assert_eq!(
        PolicyHashOfInput::of(&routing()),
        "af9478480aa4a1389f2f9fa84eb3083cabf9ae7d78be081e74b0f91fe5e55297",
        "{text}"
    );
}

struct PolicyHashOfInput;

impl PolicyHashOfInput {
    fn of(input: &Input) -> String {
        crate::policy::PolicyHash::of(&input.encode()).to_string()
    }
}

#[test]
fn bytes_left_over_are_refused() {
    let mut bytes = routing().encode();
    bytes.push(0);
    assert!(Input::from_scale(&bytes).is_err());
    assert!(Input::from_scale(&[]).is_err());
    assert!(Output::from_scale(&[9]).is_err());
    // A list that claims to be 2^30 - 1 long does not get memory for it.
    assert!(Input::from_scale(&[0, 0xfe, 0xff, 0xff, 0xff]).is_err());
}

#[test]
fn a_misspelt_field_is_told() {
    let mut json = serde_json::to_value(routing()).unwrap();
    json["job"]["modle"] = "m".into();
    assert!(serde_json::from_value::<Input>(json).unwrap_err().to_string().contains("modle"));
}

#[test]
fn a_total_is_rounded_up_once() {
    let price = Price { start: 5, per_thousand_prompt: 1, per_thousand_answer: 1, ..Price::default() };
    assert_eq!(price.total(0, 0), Some(5));
    assert_eq!(price.total(1, 1), Some(6), "two thousandths are rounded up together");
    assert_eq!(price.total(1000, 1001), Some(8));
    let dear = Price { per_thousand_answer: u64::MAX, ..Price::default() };
    assert_eq!(dear.total(0, 1000), Some(u64::MAX));
    assert_eq!(dear.total(0, 1001), None);
}
