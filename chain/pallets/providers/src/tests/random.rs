//! Random sequences of calls against a model of what they should do.

use std::collections::{BTreeMap, BTreeSet};

use potluck_primitives::MILLION;
use proptest::prelude::*;

use super::*;
use crate::{Cases, Stage, Stakes};

/// What a test does next. Accounts are those of the mock with credits, and one without.
#[derive(Clone, Debug)]
enum Step {
    Wait(u32),
    Stake(u32, u128),
    Unstake(u32, u128),
    Withdraw(u32),
    Join(u32),
    Leave(u32),
    /// A verdict about an account for a job, of so many blocks ago, signed by so many of the drawn.
    Submit(u32, u8, u32, u32, usize),
    Appeal(u32, u8),
    Rule(u32, u8, bool),
    Execute(u32, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..11u32;
    let job = || 0..4u8;
    let amount = prop_oneof![0..5_000u128, Just(1_000), Just(START), Just(u128::MAX)];
    prop_oneof![
        3 => (1..7u32).prop_map(Step::Wait),
        3 => (who(), amount.clone()).prop_map(|(who, amount)| Step::Stake(who, amount)),
        2 => (who(), amount).prop_map(|(who, amount)| Step::Unstake(who, amount)),
        2 => who().prop_map(Step::Withdraw),
        2 => who().prop_map(Step::Join),
        1 => who().prop_map(Step::Leave),
        3 => (who(), job(), 0..25u32, prop_oneof![1..=MILLION, Just(0), Just(MILLION + 1)], 0..4usize)
            .prop_map(|(who, job, age, parts, by)| Step::Submit(who, job, age, parts, by)),
        1 => (who(), job()).prop_map(|(who, job)| Step::Appeal(who, job)),
        1 => (who(), job(), any::<bool>()).prop_map(|(who, job, upheld)| Step::Rule(who, job, upheld)),
        2 => (who(), job()).prop_map(|(who, job)| Step::Execute(who, job)),
    ]
}

/// How many sequences of 100 calls to try.
fn sequences() -> u32 {
    std::env::var("POTLUCK_CHAIN_SEQUENCES").ok().and_then(|it| it.parse().ok()).unwrap_or(32)
}

/// What the model knows of a verdict: the block from which it can be executed, if it waits.
type Waiting = BTreeMap<(u32, u8), Option<u32>>;

/// Everything that is at stake, in the pallet's books and in the ledger's.
fn at_stake() -> (u128, u128) {
    let books = Stakes::<Test>::iter_values().filter_map(|stake| stake.total()).sum();
    (books, (0..11).map(held).sum())
}

fn act(step: Step, waiting: &mut Waiting, judged: &mut BTreeSet<(u32, u8)>) -> Result<(), TestCaseError> {
    let now = System::block_number();
    match step {
        Step::Wait(blocks) => go_to(now + blocks),
        Step::Stake(who, amount) => {
            let (free_before, held_before) = (free(who), held(who));
            let outcome = Providers::stake(by(who), amount);
            // The fee is taken where it can be; the last micro-credit keeps the account.
            prop_assert_eq!(outcome.is_ok(), amount > 0 && amount < free_before);
            prop_assert_eq!(held(who), held_before + if outcome.is_ok() { amount } else { 0 });
        }
        Step::Unstake(who, amount) => {
            let stake = Stakes::<Test>::get(account(who));
            let verifier = Pallet::<Test>::is_verifier(&account(who));
            let merges = stake.unbonding.last().is_some_and(|it| it.at == now + 20);
            let fits = merges || stake.unbonding.len() < 16;
            let keeps = stake.active.checked_sub(amount).is_some_and(|left| !verifier || left >= 1_000);
            let held_before = held(who);
            let outcome = Providers::unstake(by(who), amount);
            prop_assert_eq!(outcome.is_ok(), amount > 0 && keeps && fits);
            prop_assert_eq!(held(who), held_before, "what is on its way out is still on hold");
        }
        Step::Withdraw(who) => {
            let stake = Stakes::<Test>::get(account(who));
            let due: u128 = stake.unbonding.iter().filter(|it| it.at <= now).map(|it| it.amount).sum();
            let stays = waiting.iter().any(|((of, _), since)| *of == who && since.is_some());
            let held_before = held(who);
            let outcome = Providers::withdraw_unstaked(by(who));
            prop_assert_eq!(outcome.is_ok(), due > 0 && !stays);
            prop_assert_eq!(held_before - held(who), if outcome.is_ok() { due } else { 0 });
        }
        Step::Join(who) => {
            let stake = Stakes::<Test>::get(account(who)).active;
            let verifier = Pallet::<Test>::is_verifier(&account(who));
            let outcome = Providers::register_verifier(by(who));
            prop_assert_eq!(outcome.is_ok(), stake >= 1_000 && !verifier);
        }
        Step::Leave(who) => {
            let verifier = Pallet::<Test>::is_verifier(&account(who));
            prop_assert_eq!(Providers::leave_verifiers(by(who)).is_ok(), verifier);
        }
        Step::Submit(who, job, age, parts, count) => {
            let at = now.saturating_sub(age);
            let drawn = Pallet::<Test>::draw(&raw(who), &[job; 16], at).unwrap_or_default();
            let signers = drawn.get(..count.min(drawn.len())).unwrap_or_default();
            let of = signed(verdict(who, job, POLICY, parts, at), signers, &GENESIS);
            let total = Stakes::<Test>::get(account(who)).total().unwrap_or(0);
            let outcome = Providers::submit_verdict(by(9), of);
            let counts = signers.len() >= 2 && (1..=MILLION).contains(&parts) && total > 0 && age > 0;
            prop_assert_eq!(outcome.is_ok(), counts && !judged.contains(&(who, job)));
            if outcome.is_ok() {
                judged.insert((who, job));
                waiting.insert((who, job), Some(now + 6));
            }
        }
        Step::Appeal(who, job) => {
            let open = matches!(
                Cases::<Test>::get(account(who), [job; 16]).map(|case| case.stage),
                Some(Stage::Open { until }) if now <= until
            );
            let affords = free(who) > 500;
            let outcome = Providers::appeal(by(who), [job; 16]);
            prop_assert_eq!(outcome.is_ok(), open && affords);
            if outcome.is_ok() {
                waiting.insert((who, job), Some(now + 9));
            }
        }
        Step::Rule(who, job, upheld) => {
            let appealed = matches!(
                Cases::<Test>::get(account(who), [job; 16]).map(|case| case.stage),
                Some(Stage::Appealed { .. })
            );
            let before = held(who);
            let outcome = Providers::rule(RuntimeOrigin::root(), account(who), [job; 16], upheld);
            prop_assert_eq!(outcome.is_ok(), appealed);
            prop_assert_eq!(held(who), before);
            if outcome.is_ok() {
                waiting.insert((who, job), upheld.then_some(0));
            }
        }
        Step::Execute(who, job) => {
            let due = waiting.get(&(who, job)).copied().flatten();
            let parts = Cases::<Test>::get(account(who), [job; 16]).map(|case| case.verdict.parts);
            let before = held(who);
            let outcome = Providers::execute(by(9), account(who), [job; 16]);
            prop_assert_eq!(outcome.is_ok(), due.is_some_and(|due| now >= due));
            if outcome.is_ok() {
                let slashed = before * u128::from(parts.unwrap_or(0)) / u128::from(MILLION);
                prop_assert_eq!(before - held(who), slashed);
                waiting.insert((who, job), None);
            } else {
                prop_assert_eq!(held(who), before);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(sequences()) })]

    /// Σ credits is constant; Σ holds is Σ stakes; each call succeeds exactly when the model says so.
    #[test]
    fn no_sequence_of_calls_makes_or_loses_credits(steps in prop::collection::vec(step(), 100)) {
        new_test_ext().execute_with(|| {
            let (mut waiting, mut judged) = (Waiting::new(), BTreeSet::new());
            // A sequence that begins with nobody to judge judges nobody.
            for number in 0..6 {
                prop_assert!(Providers::stake(by(number), 2_000).is_ok());
                prop_assert!(Providers::register_verifier(by(number)).is_ok());
            }
            go_to(6);
            for step in steps {
                act(step, &mut waiting, &mut judged)?;
                let (books, ledger) = at_stake();
                prop_assert_eq!(books, ledger);
                check();
            }
            Ok(())
        })?;
    }
}
