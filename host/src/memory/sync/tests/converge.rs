//! Random writes, edits and forgets, cut links, crashes and wrong clocks; then everything heals.

use std::sync::atomic::Ordering;

use super::*;
use crate::memory::record::{Draft, RecordId};

/// A small generator, so that a seed is a whole story.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below as u64).unwrap()
    }
}

/// One story; what was acknowledged must be everywhere in the end.
async fn story(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let count = 3 + dice.roll(2);
    let mut world = World::of(u8::try_from(count).unwrap());
    let mut acknowledged: Vec<RecordId> = Vec::new();
    let mut hard: Vec<RecordId> = Vec::new();
    for step in 0..40 {
        let place = dice.roll(count);
        let paper = Arc::clone(world.paper(place));
        match dice.roll(14) {
            0..=4 => {
                let draft = Draft {
                    content: format!("{seed} {step} {}", dice.roll(30)),
                    project: [None, Some("a"), Some("b")][dice.roll(3)].map(str::to_owned),
                    ..Draft::default()
                };
                if let Ok(id) = paper.try_write(draft) {
                    acknowledged.push(id);
                    if dice.roll(2) == 0 {
                        let _ = paper.embed(id);
                    }
                }
            }
            5 | 6 => {
                let live = paper.live();
                if let Some(old) = live.get(dice.roll(live.len().max(1))).copied() {
                    let content = format!("{seed} {step} edited");
                    let draft = Draft { content, supersedes: vec![old], ..Draft::default() };
                    acknowledged.extend(paper.try_write(draft).ok());
                }
            }
            7 | 8 => {
                let live = paper.live();
                if let Some(old) = live.get(dice.roll(live.len().max(1))).copied() {
                    let for_good = dice.roll(2) == 0;
                    if let Ok(id) = paper.forget(vec![old], for_good) {
                        acknowledged.push(id);
                        hard.extend(for_good.then_some(old));
                    }
                }
            }
            9 => world.net.cut(world.node(place), world.node((place + 1) % count)),
            10 => world.net.heal(),
            11 => world.crash(place).await,
            12 => paper.skew.store([-7_200_000, -50_000, 0, 40_000][dice.roll(4)], Ordering::SeqCst),
            // Who is dead already stays so until it is started again.
            _ if paper.dies_after.load(Ordering::SeqCst) == 0 => {}
            _ => paper.dies_after.store(i64::try_from(dice.roll(6)).unwrap(), Ordering::SeqCst),
        }
        if dice.roll(3) == 0 {
            sleep(Duration::from_millis(dice.roll(15) as u64)).await;
        }
    }
    world.net.heal();
    for place in 0..count {
        world.paper(place).skew.store(0, Ordering::SeqCst);
        if world.paper(place).dies_after.load(Ordering::SeqCst) >= 0 {
            world.crash(place).await;
        }
    }
    world.converge().await;
    let first = world.paper(0);
    for machine in &world.machines {
        assert_eq!(machine.paper.live(), first.live(), "seed {seed}: living versions");
        assert_eq!(machine.paper.conflict_list(), first.conflict_list(), "seed {seed}: conflicts");
        assert!(
            acknowledged.iter().all(|id| machine.paper.has(*id)),
            "seed {seed}: nothing acknowledged is lost"
        );
        assert!(
            hard.iter().all(|id| machine.paper.text(*id).is_none()),
            "seed {seed}: what is erased stays so"
        );
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_that_were_apart_agree_again() {
    let seeds = std::env::var("POTLUCK_SYNC_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(50);
    let first = std::env::var("POTLUCK_SYNC_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + seeds {
        let told = tokio::spawn(story(seed)).await;
        assert!(told.is_ok(), "the story of seed {seed} ended badly");
    }
}

#[tokio::test]
async fn a_machine_that_dies_in_the_middle_of_taking_entries_takes_the_rest_later() {
    let mut world = World::new();
    for seed in [1, 2] {
        let place = world.add(seed);
        world.club.admit_fully(world.node(place));
    }
    for n in 0..500 {
        world.paper(0).say(&format!("fact {n}"), None);
    }
    world.start(0);
    for after in [0, 1, 100, 300] {
        world.paper(1).dies_after.store(after, Ordering::SeqCst);
        world.start(1);
        until("it died", || world.paper(1).dies_after.load(Ordering::SeqCst) == 0).await;
        world.stop(1).await;
        let machine = &mut world.machines[1];
        machine.paper = Paper::open(machine.seed, machine.disk.clone(), 0);
    }
    world.start(1);
    world.converge().await;
    world.end().await;
}

#[tokio::test]
async fn a_newcomer_gets_everything_and_goes_on_where_it_was_cut() {
    let mut world = World::of(2);
    for n in 0..3_000 {
        world.paper(n % 2).say(&format!("a fact with some words in it so that it has a length {n}"), None);
    }
    world.converge().await;
    let place = world.add(9);
    let newcomer = world.node(place);
    world.club.admit_fully(newcomer);
    world.options.window = 64 << 10;
    world.start(place);
    until("some came", || world.paper(place).entries().len() > 200).await;
    for other in 0..2 {
        world.net.cut(newcomer, world.node(other));
    }
    let had = world.paper(place).entries().len();
    world.net.heal();
    world.converge().await;
    let received: u64 = (0..2).map(|other| world.peer(place, other).received).sum();
    assert!(had > 200 && received < 3_000 + 2_500, "{received} received after {had}");
    world.end().await;
}

#[tokio::test]
async fn what_was_erased_does_not_come_back_from_a_machine_that_slept() {
    let mut world = World::of(3);
    let id = world.paper(0).say("the code of the safe is 1234", Some("home"));
    world.paper(0).embed(id).unwrap();
    world.converge().await;
    world.stop(2).await;
    world.paper(1).forget(vec![id], true).unwrap();
    until("it is erased where the order came", || world.paper(0).text(id).is_none()).await;
    assert!(world.paper(2).text(id).is_some(), "who slept knows nothing of it");
    // A newcomer meets only the one that slept, then the others.
    let place = world.add(8);
    world.club.admit_fully(world.node(place));
    for other in 0..2 {
        world.net.cut(world.node(place), world.node(other));
        world.net.cut(world.node(2), world.node(other));
    }
    world.start(2);
    world.start(place);
    until("it has it from the sleeper", || world.paper(place).text(id).is_some()).await;
    world.net.heal();
    world.converge().await;
    assert!(world.machines.iter().all(|machine| machine.paper.text(id).is_none()));
    // And who comes last gets the entry without its text, whatever comes first.
    let last = world.add(7);
    world.club.admit_fully(world.node(last));
    world.start(last);
    world.converge().await;
    assert!(world.paper(last).has(id) && world.paper(last).text(id).is_none());
    world.end().await;
}

#[tokio::test]
async fn entries_pass_through_a_machine_in_the_middle() {
    let world = World::of(3);
    world.net.cut(world.node(0), world.node(2));
    sleep(Duration::from_millis(50)).await;
    world.paper(0).say("from one end to the other", None);
    world.paper(2).say("and back", None);
    world.converge().await;
    world.end().await;
}

#[tokio::test]
async fn an_entry_from_the_future_waits_and_is_named() {
    let world = World::of(3);
    world.converge().await;
    world.paper(0).skew.store(3 * 3_600_000, Ordering::SeqCst);
    let early = world.paper(0).say("written by a clock that is hours ahead", None);
    until("it waits at the others", || (1..3).all(|place| world.status(place).held.len() == 1)).await;
    let held = world.status(1).held;
    assert_eq!((held[0].origin, held[0].count), (world.node(0), 1));
    assert!(held[0].reason.contains("ahead of this machine's clock"), "{held:?}");
    let after = world.paper(1).say("life goes on", None);
    until("others are not held up", || world.paper(2).has(after) && world.paper(0).has(after)).await;
    assert!(!world.paper(1).has(early));
    for place in 1..3 {
        world.paper(place).skew.store(3 * 3_600_000, Ordering::SeqCst);
    }
    world.converge().await;
    assert!(world.status(1).held.is_empty());
    world.end().await;
}
