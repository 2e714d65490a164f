//! Three machines, whatever happens between them: in the end they agree.

use proptest::prelude::*;

use super::*;

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Connect(u8, u8),
    Disconnect(u8, u8),
    Restart(u8),
    Rename(u8, u8, u8),
    Revoke(u8, u8),
    Invite(u8),
    Join(u8, u8),
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let end = || 1..4_u8;
    prop_oneof![
        4 => (end(), end()).prop_map(|(a, b)| Step::Connect(a, b)),
        3 => (end(), end()).prop_map(|(a, b)| Step::Disconnect(a, b)),
        1 => end().prop_map(Step::Restart),
        3 => (end(), end(), 0..4_u8).prop_map(|(by, of, name)| Step::Rename(by, of, name)),
        1 => (1..3_u8, 4..7_u8).prop_map(|(by, of)| Step::Revoke(by, of)),
        1 => (1..3_u8).prop_map(Step::Invite),
        3 => (1..3_u8, 4..7_u8).prop_map(|(at, who)| Step::Join(at, who)),
        2 => (0..200_i64).prop_map(Step::Pass),
    ]
}

async fn run(steps: Vec<Step>) {
    let net = Net::new();
    let mut machines = pool(&net, 3).await;
    // The second machine may issue papers as well.
    let sealed = machines[0].handle.export_root("four words or so").await.unwrap();
    machines[1].handle.import_root(sealed, "four words or so").await.unwrap();
    let mut invites: Vec<String> = Vec::new();
    for step in steps {
        let at = |end: u8| usize::from(end - 1);
        match step {
            Step::Connect(a, b) if a != b => net.connect(a, b).await,
            Step::Disconnect(a, b) if a != b => net.disconnect(a, b).await,
            Step::Connect(..) | Step::Disconnect(..) => {}
            Step::Restart(end) => {
                let machine = machines.remove(at(end));
                machines.insert(at(end), net.restart(machine).await);
            }
            Step::Rename(by, of, name) => {
                let wanted = (by != of).then(|| id(of).to_string());
                let _ = machines[at(by)].handle.rename(wanted, format!("name{name}")).await;
            }
            Step::Revoke(by, of) => {
                let _ = machines[at(by)].handle.revoke(id(of).to_string(), "").await;
            }
            Step::Invite(by) => {
                let options = InviteOptions { uses: 1, ..InviteOptions::default() };
                invites.push(machines[at(by)].handle.invite(options).await.unwrap().invite);
            }
            Step::Join(end, who) => {
                if let Some(text) = invites.last() {
                    let joiner = net.machine(who).await;
                    let _ = net.join(&joiner, text, end).await;
                    joiner.pool.shutdown().await;
                }
            }
            Step::Pass(ms) => tokio::time::sleep(Duration::from_millis(ms.unsigned_abs())).await,
        }
    }
    for (a, b) in [(1, 2), (2, 3), (1, 3)] {
        net.connect(a, b).await;
    }
    admitted(&machines).await;
    let picture = |machine: &Machine| {
        let (handle, gate) = (machine.handle.clone(), machine.handle.gate());
        async move {
            let rows = handle.members().await.unwrap();
            let rows: Vec<_> =
                rows.into_iter().map(|row| (row.id, row.name, row.status, row.expires)).collect();
            let status = handle.status().await.unwrap().pool.unwrap();
            let discovery = gate.borrow().discovery;
            (rows, status.papers, status.invites, status.revoked, status.epoch, discovery)
        }
    };
    until("agreed", || async {
        let first = picture(&machines[0]).await;
        first == picture(&machines[1]).await && first == picture(&machines[2]).await
    })
    .await;
}

/// 24, or what `PROPTEST_CASES` says.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn three_machines_agree_in_the_end(steps in proptest::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(steps));
    }
}
