//! Which way two machines take to each other, each behind a router of its own, and how soon; and how a relay's restart
//! is survived.
//!
//! A third machine on the internet founded the pool and carries what cannot go directly.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::tell;
use crate::{
    gguf::Tiny,
    member::Member,
    netlab::{Lab, NatKind, Net},
    process,
};

/// How a machine reaches the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Through a router of this kind, with IPv4 alone.
    V4(NatKind),
    /// On the internet itself, with both kinds of addresses.
    PublicV6,
    /// Behind a symmetric router for IPv4, with public IPv6 that the router lets everybody send to.
    OpenV6,
    /// The same, but the router lets in over IPv6 only what answers.
    GuardedV6,
}

impl Home {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::V4(NatKind::None),
        Self::V4(NatKind::FullCone),
        Self::V4(NatKind::Restricted),
        Self::V4(NatKind::PortRestricted),
        Self::V4(NatKind::Symmetric),
        Self::PublicV6,
        Self::OpenV6,
        Self::GuardedV6,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4(NatKind::None) => "none",
            Self::V4(NatKind::FullCone) => "full cone",
            Self::V4(NatKind::Restricted) => "restricted",
            Self::V4(NatKind::PortRestricted) => "port restricted",
            Self::V4(NatKind::Symmetric) => "symmetric",
            Self::PublicV6 => "public IPv6",
            Self::OpenV6 => "symmetric, open IPv6",
            Self::GuardedV6 => "symmetric, guarded IPv6",
        }
    }

    fn has_v6(self) -> bool {
        !matches!(self, Self::V4(_))
    }

    fn v4(self) -> NatKind {
        match self {
            Self::V4(kind) => kind,
            Self::PublicV6 => NatKind::None,
            Self::OpenV6 | Self::GuardedV6 => NatKind::Symmetric,
        }
    }

    /// The machine of this name there.
    fn member(self, lab: &Lab, internet: &Net, name: &str, model: Option<&str>) -> Member {
        if matches!(self, Self::V4(NatKind::None) | Self::PublicV6) {
            return Member::on(lab.host(name, internet), name, model);
        }
        let home = lab.net(name);
        let home = if self.has_v6() { home.with_public_v6() } else { home };
        let router = lab.nat(&format!("{name}-router"), self.v4(), &home, internet);
        if self == Self::OpenV6 {
            router.open_v6();
        }
        Member::on(lab.host(name, &home), name, model).behind(router)
    }
}

/// What theory allows between two machines: the words that the path must contain.
pub fn theory(a: Home, b: Home) -> &'static str {
    use NatKind::{FullCone, None, PortRestricted, Symmetric};
    if a.has_v6() && b.has_v6() {
        // Two that let in only answers are punched through; one that lets everybody in is enough else.
        let guarded = a == Home::GuardedV6 && b == Home::GuardedV6;
        return if guarded { "punched" } else { "direct" };
    }
    if a.has_v6() != b.has_v6() && (a.v4(), b.v4()) != (None, None) {
        // Who meets the others over IPv6 is not seen by them with its IPv4 address, so nobody can send there first.
        let open = matches!(a.v4(), None | FullCone) || matches!(b.v4(), None | FullCone);
        return if open { "direct" } else { "relayed" };
    }
    match (a.v4(), b.v4()) {
        (None | FullCone, _) | (_, None | FullCone) => "direct",
        (Symmetric, Symmetric | PortRestricted) | (PortRestricted, Symmetric) => "relayed",
        _ => "punched",
    }
}

/// How two met.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// Where they were.
    pub homes: (Home, Home),
    /// The path in the end, as the first one names it.
    pub path: String,
    /// Whether it is what theory allows.
    pub as_in_theory: bool,
    /// From the beginning of the second one's joining to any connection.
    pub connected: Option<Duration>,
    /// The same to the path in the end.
    pub settled: Duration,
    /// Whether a job went that way.
    pub answered: bool,
}

/// Lets two machines meet and waits until they have the path that theory allows, at most so long.
pub fn meet(homes: (Home, Home), patience: Duration) -> Meeting {
    let lab = Lab::new("meeting");
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let model = Tiny::default().write(&scratch.path().join("tiny.gguf"));
    // Where neither has IPv6, the hub has none either: such are most networks.
    let internet = lab.internet();
    let internet = if homes.0.has_v6() || homes.1.has_v6() { internet.with_v6() } else { internet };
    let hub = Member::on(lab.host("hub", &internet), "hub", None);
    hub.found();
    let left = homes.0.member(&lab, &internet, "left", None);
    let right = homes.1.member(&lab, &internet, "right", Some(&model));
    left.join(&hub);
    let wanted = theory(homes.0, homes.1);
    let invite = hub.invite();
    let began = Instant::now();
    right.take(&invite);
    let (mut path, mut connected) = (String::new(), None);
    let as_in_theory = process::eventually(patience, || {
        path = described(&left);
        if !path.is_empty() {
            connected.get_or_insert_with(|| began.elapsed());
        }
        path.contains(wanted)
    });
    let settled = began.elapsed();
    let answer = left.answered("tiny", Duration::from_secs(20));
    let answered = answer.status == 200 && answer.header("x-potluck-node") == Some(right.id().as_str());
    let meeting = Meeting { homes, path, as_in_theory, connected, settled, answered };
    if !as_in_theory || !answered {
        tell(&format!("{meeting:?}: {wanted} was expected\n{}", left.node().stderr()));
    }
    meeting
}

/// How the first one is connected with the second, with the kind of address.
fn described(left: &Member) -> String {
    let Some(row) = left.sees("right") else { return String::new() };
    let path = row["path"].as_str().unwrap_or_default();
    let v6 = row["address"].as_str().is_some_and(|address| address.starts_with("/ip6/"));
    let punched = path.contains("punched") && v6;
    path.to_owned() + if punched { ", IPv6" } else { "" }
}

/// Every pair of homes, each once.
pub fn matrix(patience: Duration) -> Vec<Meeting> {
    let pairs =
        Home::ALL.into_iter().enumerate().flat_map(|(at, a)| Home::ALL[at..].iter().map(move |b| (a, *b)));
    pairs
        .map(|homes| {
            let meeting = meet(homes, patience);
            tell(&meeting.line());
            meeting
        })
        .collect()
}

impl Meeting {
    fn line(&self) -> String {
        let first =
            self.connected.map_or_else(|| "never".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
        format!(
            "| {} | {} | {} | {first} | {:.1} s | {} |",
            self.homes.0.name(),
            self.homes.1.name(),
            self.path,
            self.settled.as_secs_f64(),
            match (self.as_in_theory, self.answered) {
                (true, true) => "yes",
                (false, true) => "**no**",
                (_, false) => "**no job went through**",
            }
        )
    }

    /// Everything.
    pub fn json(&self) -> Value {
        json!({"left": self.homes.0.name(), "right": self.homes.1.name(), "path": self.path,
            "as_in_theory": self.as_in_theory, "answered": self.answered,
            "connected_s": self.connected.map(|took| took.as_secs_f64()), "settled_s": self.settled.as_secs_f64()})
    }
}

/// A table.
pub fn table(meetings: &[Meeting]) -> String {
    let lines: Vec<String> = meetings.iter().map(Meeting::line).collect();
    format!(
        "| one | other | path | connected after | on that path after | what theory allows |\n|---|---|---|---|---|---|\n{}\n",
        lines.join("\n")
    )
}

/// Two behind symmetric routers, whose relay is killed and started again two seconds later: the time from its being
/// ready again to the next answer, for as many restarts as asked for.
pub fn relay_restarts(times: usize) -> Vec<Duration> {
    let lab = Lab::new("relay");
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let model = Tiny::default().write(&scratch.path().join("tiny.gguf"));
    let internet = lab.internet();
    let mut hub = Member::on(lab.host("hub", &internet), "hub", None);
    hub.found();
    let home = Home::V4(NatKind::Symmetric);
    let left = home.member(&lab, &internet, "left", None);
    let right = home.member(&lab, &internet, "right", Some(&model));
    left.join(&hub);
    right.join(&hub);
    left.answered("tiny", Duration::from_secs(30)).expect(200);
    assert!(left.path("right").contains("relayed"), "{:?}", left.members());
    (0..times)
        .map(|_| {
            hub.kill();
            std::thread::sleep(Duration::from_secs(2));
            hub.start();
            let began = Instant::now();
            let answer = left.answered("tiny", Duration::from_secs(60));
            let took = began.elapsed();
            assert_eq!(answer.status, 200, "{}\n{}", answer.text(), left.node().stderr());
            tell(&format!("the relay was back, and an answer came after {:.1} s", took.as_secs_f64()));
            took
        })
        .collect()
}
