mod hostile;
mod net;
mod random;

use std::sync::atomic::Ordering;

use net::*;

use super::super::{
    clock::{DAY, HOUR},
    grants::Grants,
    papers::Invite,
    roster::{JoinRefusal, Standing},
};
use super::*;

/// A pool of `count` machines, each connected with each.
async fn pool(net: &Net, count: u8) -> Vec<Machine> {
    let mut machines = Vec::new();
    for end in 1..=count {
        machines.push(net.machine(end).await);
    }
    machines[0].handle.create("home", None).await.unwrap();
    let options = InviteOptions { uses: u32::from(count), ..InviteOptions::default() };
    let invited = machines[0].handle.invite(options).await.unwrap();
    for machine in &machines[1..] {
        net.join(machine, &invited.invite, 1).await.unwrap();
    }
    for a in 1..=count {
        for b in a + 1..=count {
            net.connect(a, b).await;
        }
    }
    admitted(&machines).await;
    machines
}

async fn admitted(machines: &[Machine]) {
    for a in machines {
        for b in machines {
            if a.key != b.key {
                until("admitted", || async { a.admits(b.key) }).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn from_nothing_to_two_members() {
    let net = Net::new();
    let (a, b) = (net.machine(1).await, net.machine(2).await);
    assert!(matches!(a.handle.members().await, Err(PoolError::NoPool)));
    let pool = a.handle.create("home", None).await.unwrap();
    let invited = a.handle.invite(InviteOptions::default()).await.unwrap();
    assert_eq!(a.handle.gate().borrow().guests.len(), 1);
    let row = net.join(&b, &invited.invite, 1).await.unwrap();
    assert_eq!((row.name.as_str(), row.status, row.is_self), ("box2", Standing::Member, true));
    assert!(a.handle.gate().borrow().members.contains(&id(2)));
    assert!(b.handle.gate().borrow().members.contains(&id(1)));
    // Its holder is still answered, should the answer have been lost.
    assert_eq!(a.handle.gate().borrow().guests.len(), 1);
    assert!(b.handle.gate().borrow().guests.is_empty());
    assert!(!a.admits(2) && !b.admits(1));
    let mut watch = a.handle.watch();
    net.connect(1, 2).await;
    until("admitted", || async { a.admits(2) && b.admits(1) }).await;
    watch.changed().await.unwrap();
    assert_eq!(watch.borrow()[0].name, "box2");
    let discovery = |machine: &Machine| machine.handle.gate().borrow().discovery;
    assert!(discovery(&a).is_some() && discovery(&a) == discovery(&b));
    let status = b.handle.status().await.unwrap().pool.unwrap();
    assert_eq!((status.id, status.name.as_str(), status.online), (pool, "home", 1));
    net.disconnect(1, 2).await;
    until("gone", || async { !a.admits(2) && !b.admits(1) }).await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_in_one_pool() {
    let net = Net::new();
    let (a, b) = (net.machine(1).await, net.machine(2).await);
    a.handle.create("home", None).await.unwrap();
    b.handle.create("work", None).await.unwrap();
    assert!(matches!(a.handle.create("other", None).await, Err(PoolError::AlreadyIn { .. })));
    let invited = a.handle.invite(InviteOptions::default()).await.unwrap();
    let invite = Invite::parse(&invited.invite).unwrap();
    assert!(
        matches!(b.handle.may_join(&invite).await, Err(PoolError::AlreadyIn { name, .. }) if name == "work")
    );
    b.handle.leave().await.unwrap();
    assert!(b.handle.status().await.unwrap().pool.is_none());
    net.join(&b, &invited.invite, 1).await.unwrap();
    let roots = std::fs::read_dir(b.dir.path().join("pool/roots")).unwrap().count();
    assert_eq!(roots, 1);
}

#[tokio::test(start_paused = true)]
async fn an_invite_says_why_it_does_not_work() {
    let net = Net::new();
    let (a, b, c) = (net.machine(1).await, net.machine(2).await, net.machine(3).await);
    a.handle.create("home", None).await.unwrap();
    let invited = a.handle.invite(InviteOptions::default()).await.unwrap();
    net.join(&b, &invited.invite, 1).await.unwrap();
    let why = refusal(net.join(&c, &invited.invite, 1).await.unwrap_err());
    assert_eq!(why.to_string(), "this invite is used up (1 of 1); ask box1 for a new one");
    // The machine that has it already may ask again.
    net.join(&b, &invited.invite, 1).await.unwrap();
    let invited = a.handle.invite(InviteOptions::default()).await.unwrap();
    net.pass(DAY + 3 * HOUR);
    let why = refusal(net.join(&c, &invited.invite, 1).await.unwrap_err());
    assert_eq!(why.to_string(), "this invite expired 3 h ago; ask box1 for a new one");
    let invited = a.handle.invite(InviteOptions::default()).await.unwrap();
    c.clock.1.store(-5 * HOUR, Ordering::SeqCst);
    let why = refusal(net.join(&c, &invited.invite, 1).await.unwrap_err());
    assert!(why.to_string().contains("the clock of this machine is 5 h behind that of box1"), "{why}");
    c.clock.1.store(0, Ordering::SeqCst);
    a.handle.revoke(invited.id.to_string(), "").await.unwrap();
    let why = refusal(net.join(&c, &invited.invite, 1).await.unwrap_err());
    assert_eq!(why.to_string(), "this invite was revoked; ask box1 for a new one");
    assert!(a.problems().await.contains("did not join"));
    // Who holds an invite that ended hears so for a week; then the door is shut.
    assert!(a.handle.gate().borrow().guests.contains(&invited.id.0));
    net.pass(8 * DAY);
    until("shut", || async { !a.handle.gate().borrow().guests.contains(&invited.id.0) }).await;
    net.pass(-8 * DAY);
    // A member that may not issue papers admits nobody.
    let invited = a.handle.invite(InviteOptions::default()).await.unwrap();
    let why = refusal(net.join(&c, &invited.invite, 2).await.unwrap_err());
    assert!(matches!(why, JoinRefusal::NotIssuer { .. }));
    assert!(matches!(b.handle.invite(InviteOptions::default()).await, Err(PoolError::NotAdmin { .. })));
    assert!(matches!(b.handle.revoke("box1", "").await, Err(PoolError::NotOwner)));
}

#[tokio::test(start_paused = true)]
async fn a_revocation_ends_everything_at_once() {
    let net = Net::new();
    let machines = pool(&net, 3).await;
    let [a, b, c] = &machines[..] else { panic!() };
    let discovery = |machine: &Machine| machine.handle.gate().borrow().discovery;
    let before = discovery(a);
    let start = tokio::time::Instant::now();
    a.handle.revoke("box3", "sold").await.unwrap();
    assert!(!a.admits(3) && !a.handle.gate().borrow().members.contains(&id(3)));
    until("gone everywhere", || async { !b.admits(3) && !c.admits(1) && !c.admits(2) }).await;
    until("told", || async { discovery(b) == discovery(a) }).await;
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(!b.handle.gate().borrow().members.contains(&id(3)));
    assert_ne!(discovery(a), before);
    assert_eq!(discovery(c), None);
    assert_eq!(c.handle.status().await.unwrap().pool.unwrap().status, Some(Standing::Revoked));
    assert_eq!(a.handle.show("box3").await.unwrap().reason.as_deref(), Some("sold"));
    // It stays out, whatever it tries, and with a new invite too.
    net.disconnect(1, 3).await;
    net.disconnect(2, 3).await;
    net.connect(2, 3).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!b.admits(3) && !c.admits(2));
    let invited = a.handle.invite(InviteOptions::default()).await.unwrap();
    let why = refusal(net.join(c, &invited.invite, 1).await.unwrap_err());
    assert_eq!(why, JoinRefusal::NodeRevoked { reason: "sold".into() });
    assert!(a.admits(2) && b.admits(1));
}

#[tokio::test(start_paused = true)]
async fn a_revocation_waits_for_who_is_away() {
    let net = Net::new();
    let machines = pool(&net, 3).await;
    let [a, b, c] = &machines[..] else { panic!() };
    for other in [1, 3] {
        net.disconnect(2, other).await;
    }
    a.handle.revoke("box3", "").await.unwrap();
    net.connect(1, 2).await;
    until("back", || async { a.admits(2) && b.admits(1) }).await;
    assert_eq!(b.standing(3).await, Some(Standing::Revoked));
    net.connect(2, 3).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!b.admits(3) && !c.admits(2));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_machine_learns_it_before_it_is_served() {
    let net = Net::new();
    let machines = pool(&net, 2).await;
    let [a, b] = &machines[..] else { panic!() };
    net.disconnect(1, 2).await;
    a.handle.revoke("box2", "").await.unwrap();
    // The mesh would not let it connect; should it ever, nothing is said but that it is out.
    net.connect(1, 2).await;
    until("told", || async { b.problems().await.contains("this machine was revoked") }).await;
    assert!(!a.admits(2) && !b.admits(1));
}

#[tokio::test(start_paused = true)]
async fn names_and_leaving_reach_everybody() {
    let net = Net::new();
    let machines = pool(&net, 3).await;
    let [a, b, c] = &machines[..] else { panic!() };
    assert_eq!(b.handle.rename(None, "laptop").await.unwrap(), "laptop");
    until("renamed", || async { c.handle.show("laptop").await.is_ok() }).await;
    assert!(matches!(c.handle.rename(None, "laptop").await, Err(PoolError::NameTaken { .. })));
    assert!(matches!(c.handle.rename(Some("laptop".into()), "x").await, Err(PoolError::NotAdmin { .. })));
    a.handle.rename(Some("laptop".into()), "tower").await.unwrap();
    until("renamed", || async { b.handle.status().await.unwrap().name == "tower" }).await;
    let prefix = id(2).to_string()[..8].to_owned();
    assert_eq!(a.handle.show(prefix).await.unwrap().row.name, "tower");
    assert!(matches!(a.handle.show("nobody").await, Err(PoolError::Unknown { .. })));
    b.handle.leave().await.unwrap();
    until("left", || async {
        a.standing(2).await == Some(Standing::Left) && c.standing(2).await == Some(Standing::Left)
    })
    .await;
    assert!(!a.handle.gate().borrow().members.contains(&id(2)));
    let json = serde_json::to_value(a.handle.members().await.unwrap()).unwrap();
    assert_eq!(json[0]["self"], true);
    assert_eq!(json[2]["status"], "left");
}

#[tokio::test(start_paused = true)]
async fn everything_is_there_after_a_restart() {
    let net = Net::new();
    let mut machines = pool(&net, 2).await;
    let (b, a) = (machines.pop().unwrap(), machines.pop().unwrap());
    let before = a.handle.members().await.unwrap().len();
    let (a, b) = (net.restart(a).await, net.restart(b).await);
    assert_eq!(a.handle.members().await.unwrap().len(), before);
    assert_eq!(a.handle.status().await.unwrap().pool.unwrap().role, Role::Owner);
    net.connect(1, 2).await;
    until("admitted", || async { a.admits(2) && b.admits(1) }).await;
}

#[tokio::test(start_paused = true)]
async fn certificates_are_renewed_while_an_issuer_is_met() {
    let net = Net::new();
    let machines = pool(&net, 3).await;
    let [a, b, c] = &machines[..] else { panic!() };
    net.disconnect(1, 3).await;
    net.disconnect(2, 3).await;
    let serial = || async { a.handle.show("box2").await.unwrap().serial };
    assert_eq!(serial().await, 1);
    net.pass(10 * DAY);
    until("renewed", || async { serial().await == 2 }).await;
    until("known", || async { b.handle.show("box2").await.unwrap().serial == 2 }).await;
    assert!(a.admits(2));
    net.pass(5 * DAY);
    until("expired", || async { b.standing(3).await == Some(Standing::Expired) }).await;
    // A member turns away who slept too long; an issuer wakes it up.
    assert!(!b.handle.gate().borrow().members.contains(&id(3)));
    assert!(a.handle.gate().borrow().members.contains(&id(3)));
    net.connect(1, 3).await;
    until("renewed", || async { a.admits(3) && c.admits(1) }).await;
    until("known", || async { b.handle.gate().borrow().members.contains(&id(3)) }).await;
    // The founder slept longest of all: it renews itself, and then the others.
    net.pass(40 * DAY);
    until("awake", || async { a.admits(2) && a.admits(3) }).await;
}

#[tokio::test(start_paused = true)]
async fn administrators_invite_and_vouch() {
    let net = Net::new();
    let machines = pool(&net, 2).await;
    let (a, b) = (&machines[0], &machines[1]);
    let (c, d, e) = (net.machine(3).await, net.machine(4).await, net.machine(5).await);
    let grants = Grants { admin: true, ..Grants::default() };
    let invited =
        a.handle.invite(InviteOptions { grants: grants.clone(), ..InviteOptions::default() }).await.unwrap();
    net.join(&c, &invited.invite, 1).await.unwrap();
    net.connect(1, 3).await;
    net.connect(2, 3).await;
    until("admitted", || async { b.admits(3) && c.admits(1) }).await;
    assert!(b.handle.grants(id(3)).unwrap().admin);
    assert_eq!(c.handle.status().await.unwrap().pool.unwrap().role, Role::Admin);
    let more = InviteOptions { grants, ..InviteOptions::default() };
    assert!(matches!(c.handle.invite(more).await, Err(PoolError::NotOwner)));
    let invited = c.handle.invite(InviteOptions::default()).await.unwrap();
    net.join(&d, &invited.invite, 3).await.unwrap();
    until("known", || async { a.standing(4).await == Some(Standing::Member) }).await;
    // An issuer that has heard of the invite admits for another's.
    let invited = c.handle.invite(InviteOptions::default()).await.unwrap();
    until("heard", || async { a.handle.gate().borrow().guests.contains(&invited.id.0) }).await;
    net.join(&e, &invited.invite, 1).await.unwrap();
    a.handle.revoke("box3", "").await.unwrap();
    assert_eq!(a.standing(4).await, Some(Standing::Member));
    assert_eq!(a.handle.show("box4").await.unwrap().issuer, id(1));
    until("out", || async { !b.admits(3) && b.standing(4).await == Some(Standing::Member) }).await;
}

#[tokio::test(start_paused = true)]
async fn the_root_key_moves_to_another_machine() {
    let net = Net::new();
    let machines = pool(&net, 2).await;
    let (a, b) = (&machines[0], &machines[1]);
    assert!(matches!(b.handle.export_root("long enough words").await, Err(PoolError::NotOwner)));
    let sealed = a.handle.export_root("long enough words").await.unwrap();
    assert!(matches!(b.handle.import_root(&sealed, "other words here").await, Err(PoolError::Export(_))));
    b.handle.import_root(&sealed, "long enough words").await.unwrap();
    assert_eq!(b.handle.status().await.unwrap().pool.unwrap().role, Role::Owner);
    until("known", || async { a.handle.grants(id(2)).is_some_and(|grants| grants.admin) }).await;
    b.handle.revoke("box1", "lost").await.unwrap();
    until("out", || async { a.handle.status().await.unwrap().pool.unwrap().role == Role::Outside }).await;
    // A machine in no pool begins it again.
    let c = net.machine(3).await;
    let pool = c.handle.import_root(&sealed, "long enough words").await.unwrap();
    assert_eq!(c.handle.status().await.unwrap().pool.unwrap().id, pool);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_costs_no_use() {
    let net = Net::new();
    let (a, b) = (net.machine(1).await, net.machine(2).await);
    a.handle.create("home", None).await.unwrap();
    let invited = a.handle.invite(InviteOptions::default()).await.unwrap();
    // The issuer writes the certificate down, and the joiner never hears of it.
    let invite = Invite::parse(&invited.invite).unwrap();
    let mut stream = net.knock(&invite, 1);
    let handle = b.handle.clone();
    let lost = tokio::spawn(async move { handle.join(&invite, &mut stream, None).await });
    until("written", || async { a.standing(2).await.is_some() }).await;
    lost.abort();
    let _ = lost.await;
    let a = net.restart(a).await;
    assert_eq!(a.standing(2).await, Some(Standing::Member));
    assert_eq!(a.handle.gate().borrow().guests.len(), 1);
    net.join(&b, &invited.invite, 1).await.unwrap();
    assert_eq!(a.handle.show("box2").await.unwrap().serial, 1);
}
