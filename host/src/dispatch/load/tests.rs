//! Reports between machines in memory.

use std::sync::Mutex;

use tokio::time::sleep;

use super::*;
use crate::{
    dispatch::fixture::{LinkState, Net, Roster, model},
    identity::Signer,
    mesh::protocol::link,
    pool::trusted::Scope,
};

#[derive(Debug, Default)]
struct Source(Mutex<Vec<ModelLoad>>);

impl LoadSource for Source {
    fn now(&self) -> BoxFuture<'_, Vec<ModelLoad>> {
        Box::pin(async { self.0.lock().unwrap().clone() })
    }
}

struct Machine {
    signer: Signer,
    source: Arc<Source>,
    table: Arc<LoadTable>,
    roster: Arc<Roster>,
    _exchange: Exchange,
}

/// Two machines with real keys that know each other.
fn machines(net: &Net) -> [Machine; 2] {
    let signers = [1u8, 2].map(|n| Signer::from_seed([n; 32]));
    let nodes = signers.clone().map(|signer| signer.node());
    signers.map(|signer| {
        let roster = Roster::of(signer.node(), &nodes);
        let source = Arc::new(Source::default());
        *source.0.lock().unwrap() = vec![model(512), ModelLoad { name: "secret".into(), ..model(9) }];
        let table = Arc::new(LoadTable::default());
        let exchange = Exchange::bind(
            ExchangeConfig::default(),
            signer.clone(),
            source.clone(),
            table.clone(),
            net.streams(signer.node()),
            roster.clone(),
            net.bind(signer.node(), PROTOCOL),
        );
        Machine { signer, source, table, roster, _exchange: exchange }
    })
}

fn names(machine: &Machine, of: &Machine) -> Vec<String> {
    let report = machine.table.get(of.signer.node(), Instant::now());
    report.map_or(Vec::new(), |(report, _)| report.models.iter().map(|m| m.name.clone()).collect())
}

#[tokio::test(start_paused = true)]
async fn reports_come_and_go() {
    let net = Net::default();
    let [a, b] = machines(&net);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(names(&a, &b), ["m", "secret"]);
    assert_eq!(names(&b, &a), ["m", "secret"]);
    // News travel at once, the rest every two seconds.
    b.source.0.lock().unwrap()[0].queued = 3;
    sleep(Duration::from_millis(600)).await;
    let (report, age) = a.table.get(b.signer.node(), Instant::now()).unwrap();
    assert!(report.models[0].queued == 3 && age < Duration::from_millis(700), "{age:?}");
    // What one may not use one does not see; the receiver looks too.
    b.roster.alter(a.signer.node(), |grants| grants.models = Scope::Only(vec!["m".into()]));
    sleep(Duration::from_secs(3)).await;
    assert_eq!(names(&a, &b), ["m"]);
    a.roster.alter(b.signer.node(), |grants| grants.models = Scope::Only(Vec::new()));
    sleep(Duration::from_secs(3)).await;
    assert!(names(&a, &b).is_empty());
    a.roster.alter(b.signer.node(), |grants| grants.models = Scope::All);
    // A link that carries nothing makes reports old; they come back with it.
    net.set(b.signer.node(), LinkState::Frozen);
    net.set(a.signer.node(), LinkState::Frozen);
    sleep(Duration::from_secs(11)).await;
    assert!(a.table.get(b.signer.node(), Instant::now()).is_none());
    net.set(b.signer.node(), LinkState::Open);
    net.set(a.signer.node(), LinkState::Open);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(names(&a, &b), ["m"]);
    // A broken stream is opened again.
    net.set(a.signer.node(), LinkState::Cut);
    sleep(Duration::from_secs(5)).await;
    net.set(a.signer.node(), LinkState::Open);
    sleep(Duration::from_secs(17)).await;
    assert_eq!(names(&a, &b), ["m"]);
    // Whoever may not use others is told nothing; whoever is revoked is forgotten.
    b.roster.alter(a.signer.node(), |grants| grants.uses = false);
    sleep(Duration::from_secs(11)).await;
    assert!(names(&a, &b).is_empty());
    b.roster.remove(a.signer.node());
    sleep(Duration::from_millis(10)).await;
    assert!(b.table.get(a.signer.node(), Instant::now()).is_none(), "at once");
}

#[tokio::test(start_paused = true)]
async fn forged_repeated_and_endless_reports_are_refused() {
    let net = Net::default();
    let [a, b] = machines(&net);
    sleep(Duration::from_secs(1)).await;
    let (me, peer) = (b.signer.node(), a.signer.node());
    // From here on the test speaks for it.
    b.roster.remove(peer);
    sleep(Duration::from_millis(10)).await;
    let report = |sequence, name: &str| Report {
        node: me,
        // The clock of this machine is years away.
        time_ms: -1 << 40,
        valid_ms: u32::MAX,
        sequence,
        version: "1".into(),
        models: vec![ModelLoad { name: name.into(), ..model(1) }],
    };
    let send = async |reports: Vec<SignedReport>| {
        let (_reader, mut writer) = link::split(net.dial(me, peer, PROTOCOL).await.unwrap(), MAX_REPORT);
        for report in reports {
            writer.send(&report).await.unwrap();
        }
        sleep(Duration::from_millis(300)).await;
        drop(writer);
    };
    send(vec![report(5, "five").sign(&b.signer)]).await;
    assert_eq!(names(&a, &b), ["five"], "the newest stream counts, whatever the clock says");
    send(vec![report(6, "six").sign(&b.signer), report(6, "again").sign(&b.signer)]).await;
    assert_eq!(names(&a, &b), ["six"]);
    send(vec![report(7, "forged").sign(&a.signer)]).await;
    assert_eq!(names(&a, &b), ["six"]);
    // It claims to hold for weeks.
    sleep(Duration::from_secs(10)).await;
    assert!(names(&a, &b) != ["six"]);
    // A flood is read at its reader's pace, and the rest waits with the sender.
    let (_reader, mut writer) = link::split(net.dial(me, peer, PROTOCOL).await.unwrap(), MAX_REPORT);
    let began = Instant::now();
    for sequence in 0..100 {
        writer.send(&report(sequence, "flood").sign(&b.signer)).await.unwrap();
    }
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
}
