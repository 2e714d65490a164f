//! Who may read and write what, and what happens when that changes.

use super::*;
use crate::memory::record::{Draft, Entry};

/// Whether any entry on a machine's disk holds these words.
fn holds(world: &World, place: usize, words: &str) -> bool {
    let entries = world.paper(place).entries();
    entries.values().any(|bytes| bytes.windows(words.len()).any(|window| window == words.as_bytes()))
}

/// Two full members and one that may only deal with project a.
fn scoped() -> World {
    let mut world = World::of(2);
    let place = world.add(7);
    world.club.admit(world.node(place), vec![grant(Some("a"), true, true)]);
    world.start(place);
    world
}

#[tokio::test]
async fn what_a_member_may_not_read_never_reaches_it() {
    let mut world = scoped();
    let mut ids = Vec::new();
    for n in 0..200 {
        let project = [Some("a"), Some("b"), None][n % 3];
        let id = world.paper(n % 2).say(&format!("{} number {n}", project.unwrap_or("none")), project);
        world.paper(n % 2).embed(id).unwrap();
        ids.push((id, project));
    }
    let allowed = |world: &World| ids.iter().filter(|(id, _)| world.paper(2).has(*id)).count();
    until("it has all of its project", || allowed(&world) == 67).await;
    sleep(Duration::from_millis(700)).await;
    assert_eq!(allowed(&world), 67);
    assert_eq!(world.paper(2).entries().len(), 2 * 67, "versions and vectors of its project, nothing else");
    assert!(!holds(&world, 2, "b number") && !holds(&world, 2, "none number"));
    let received = world.peer(2, 0).received + world.peer(2, 1).received;
    assert!(received <= 4 * 67, "nothing is sent again and again: {received}");
    // More than it had before: what was left out comes.
    world.club.admit(world.node(2), vec![grant(Some("a"), true, true), grant(Some("b"), true, false)]);
    until("it has both projects", || allowed(&world) == 67 + 67).await;
    world.club.admit_fully(world.node(2));
    world.converge().await;
    world.crash(2).await;
    world.converge().await;
    world.end().await;
}

#[tokio::test]
async fn what_a_member_may_not_write_is_refused_and_named() {
    let world = scoped();
    let (outsider, theirs) = (world.node(2), world.paper(0).say("belongs to b", Some("b")));
    let good = world.paper(2).say("in its own project", Some("a"));
    until("its own project is taken", || world.paper(0).has(good) && world.paper(1).has(good)).await;
    // Its own program would not even send it; a changed one would.
    let draft = |content: &str, project: &str, supersedes| Draft {
        content: content.into(),
        project: Some(project.into()),
        supersedes,
        ..Draft::default()
    };
    world.paper(2).say("smuggled into b", Some("b"));
    world.club.admit(outsider, vec![grant(Some("a"), true, true), grant(Some("b"), true, false)]);
    until("it can read b", || world.paper(2).has(theirs)).await;
    world.paper(2).write(draft("takes the place of what is not its own", "a", vec![theirs]));
    world.paper(2).forget(vec![theirs], true).unwrap();
    let after = world.paper(2).say("still in its own project", Some("a"));
    until("what is allowed goes on", || world.paper(1).has(after)).await;
    until("the rest is named", || {
        let refused = world.peer(0, 2).refused;
        refused.get("target").is_some_and(|count| *count >= 1)
    })
    .await;
    assert!(world.peer(0, 2).last_refusal.unwrap().contains("\"b\""));
    assert!(world.paper(0).text(theirs).is_some() && world.paper(0).live().contains(&theirs));
    assert!(!holds(&world, 0, "smuggled") && !holds(&world, 1, "smuggled"));
    world.end().await;
}

#[tokio::test]
async fn a_reader_gets_and_gives_nothing_else() {
    let mut world = World::of(1);
    let place = world.add(7);
    world.club.admit(world.node(place), vec![grant(None, true, false)]);
    world.start(place);
    let id = world.paper(0).say("to be read", None);
    until("it reads", || world.paper(1).has(id)).await;
    world.paper(1).say("not to be written", None);
    sleep(Duration::from_millis(400)).await;
    assert_eq!(world.paper(0).entries().len(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_revoked_member_is_cut_off_in_the_middle() {
    let mut world = World::new();
    for seed in [1, 2, 3] {
        let place = world.add(seed);
        world.club.admit_fully(world.node(place));
    }
    for n in 0..4_000 {
        world.paper(0).say(&format!("many facts, of which this is number {n}"), None);
    }
    world.options.window = 32 << 10;
    (0..3).for_each(|place| world.start(place));
    until("it is on its way", || world.paper(1).entries().len() > 100).await;
    let started = Instant::now();
    world.club.revoke(world.node(1), Millis::now());
    sleep(Duration::from_millis(20)).await;
    let had = world.paper(1).entries().len();
    assert!(had < 4_000 && started.elapsed() < Duration::from_secs(1));
    let late = world.paper(1).say("written after the end", None);
    let other = world.paper(0).say("of no concern to it", None);
    until("the others go on", || world.paper(2).has(other)).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(world.paper(1).entries().len(), had + 1);
    assert!(!world.paper(0).has(late) && !world.paper(2).has(late));
    assert!(
        world
            .status(1)
            .peers
            .iter()
            .all(|peer| peer.state == PeerState::Apart || peer.state == PeerState::Opening)
    );
    world.end().await;
}

#[tokio::test]
async fn what_a_former_member_wrote_stays_and_travels_and_no_more() {
    let mut world = World::of(2);
    let early = world.paper(1).say("written in time", None);
    world.converge().await;
    world.club.revoke(world.node(1), Millis::now());
    sleep(Duration::from_millis(5)).await;
    let late = world.paper(1).say("written too late", None);
    // Somebody who is still a member carries it all the same.
    let entries = world.paper(1).entries();
    let newcomer = world.add(9);
    world.club.admit_fully(world.node(newcomer));
    world.start(newcomer);
    until("the old entry travels", || world.paper(newcomer).has(early)).await;
    for bytes in entries.values() {
        let entry = Entry::decode(bytes).unwrap();
        if entry.version() == late {
            world.paper(newcomer).smuggle(entry);
        }
    }
    until("it is refused", || world.peer(0, newcomer).refused.get("late") == Some(&1)).await;
    assert!(!world.paper(0).has(late));
    world.end().await;
}
