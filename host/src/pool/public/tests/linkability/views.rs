//! What each party, and some pairs of them, can make of what they saw.

use std::collections::{BTreeSet, HashMap};

use super::{
    attack::{BINS, Dice, Features, Score, count, rank, share, sort, span},
    taps::{Bought, Circuit, Claimed, Flow, Seen, Served},
    town::{Asked, SIZES, TOPICS, number},
};
use crate::{
    identity::NodeId,
    pool::public::{relay::FRAME, token::Denomination},
};

/// A job with everything that anybody saw of it. The measurement joins this by numbers and ciphertext; attackers get
/// their own part only.
pub(super) struct Case {
    pub(super) asked: Asked,
    served: Served,
    circuit: Circuit,
    /// What was claimed for it: when, and how much.
    claims: Vec<(f64, u128)>,
}

/// All that was seen, by job.
pub(super) struct Town {
    pub(super) cases: Vec<Case>,
    persons: usize,
    bought: Vec<Vec<Bought>>,
    claimed: Vec<Claimed>,
    circuits: Vec<Circuit>,
    peers: Vec<NodeId>,
    providers: Vec<NodeId>,
}

/// When and for how much an account bought, or was seen to promise.
type Spending = Vec<(f64, u128)>;

fn begin(flow: &Flow) -> Option<f64> {
    flow.first().map(|it| it.0)
}

fn end(flow: &Flow) -> Option<f64> {
    flow.last().map(|it| it.0)
}

fn cells(flow: &Flow) -> usize {
    flow.iter().map(|it| it.1).sum::<usize>() / FRAME
}

impl Town {
    pub(super) fn new(
        seen: &Seen,
        asked: &[Asked],
        accounts: &[[u8; 32]],
        peers: Vec<NodeId>,
        providers: Vec<NodeId>,
    ) -> Self {
        let circuits = seen.circuits.lock().unwrap().clone();
        let hello = |circuit: &Circuit| circuit.head.get(FRAME + 1..FRAME + 65).map(<[u8]>::to_vec);
        let by_hello: HashMap<Vec<u8>, &Circuit> =
            circuits.iter().filter_map(|circuit| Some((hello(circuit)?, circuit))).collect();
        let claimed = seen.claimed.lock().unwrap().clone();
        let by_serial: HashMap<[u8; 32], usize> = (0..claimed.len())
            .flat_map(|at| claimed[at].serials.iter().map(move |it| (*it, at)).collect::<Vec<_>>())
            .collect();
        let mut cases: HashMap<usize, Case> = HashMap::new();
        for served in seen.served.lock().unwrap().iter() {
            let text = served.ask.as_ref().and_then(|ask| match &ask.input {
                crate::mesh::protocol::job::wire::Input::Text { text, .. } => number(text),
                _ => None,
            });
            let (Some(number), Some(circuit)) = (text, by_hello.get(&served.hello)) else { continue };
            let tokens = served.paid.iter().flat_map(|it| &it.1);
            let claims: BTreeSet<usize> =
                tokens.filter_map(|token| by_serial.get(&token.serial).copied()).collect();
            let claims = claims.into_iter().map(|at| (claimed[at].at, claimed[at].worth)).collect();
            let (served, circuit) = (served.clone(), (*circuit).clone());
            cases.insert(number, Case { asked: asked[number], served, circuit, claims });
        }
        let mut cases: Vec<(usize, Case)> = cases.into_iter().collect();
        cases.sort_by_key(|(number, _)| *number);
        let usable = |case: &Case| case.asked.answered && !case.claims.is_empty();
        let cases = cases.into_iter().map(|it| it.1).filter(usable).collect();
        let all = seen.bought.lock().unwrap();
        let of = |account: &[u8; 32]| all.iter().filter(|it| it.account == *account).cloned().collect();
        let bought = accounts.iter().map(of).collect();
        Self { cases, persons: accounts.len(), bought, claimed, circuits, peers, providers }
    }

    /// The jobs without habits, of which `keep` is true.
    fn some(&self, keep: impl Fn(&Case) -> bool) -> Vec<&Case> {
        self.cases.iter().filter(|case| !case.asked.habit && keep(case)).collect()
    }

    /// A relay alone: it sees persons. From all it sees of a circuit it guesses what was asked, of so many classes.
    pub(super) fn relay(&self, classes: usize, class: fn(&Asked) -> usize, dice: &mut Dice) -> Score {
        let mut all = Score::default();
        for relay in 0..2 {
            let cases = self.some(|case| case.circuit.relay == relay);
            let truth: Vec<usize> = cases.iter().map(|case| class(&case.asked)).collect();
            let features: Vec<Features> = cases.iter().map(|case| self.carried(&case.circuit)).collect();
            all.add(sort(&truth, classes, &features, dice));
        }
        all
    }

    fn carried(&self, circuit: &Circuit) -> Features {
        let Circuit { opened, up, down, .. } = circuit;
        let peer = self.peers.iter().position(|peer| Some(*peer) == circuit.peer).unwrap_or_default();
        let to = self.providers.iter().position(|it| circuit.head.windows(32).any(|bytes| bytes == it.0));
        let gaps: Vec<f64> = down.windows(2).map(|two| two[1].0 - two[0].0).collect();
        let longest = gaps.iter().copied().fold(0.0, f64::max);
        // The relay's own answer comes first.
        let first = down.get(1).map(|it| it.0 - opened);
        let lasted = end(down).map(|at| at - opened);
        vec![
            count(peer),
            count(to.map_or(BINS, |it| it)),
            count(cells(up)),
            count(cells(down)),
            count(down.len()),
            count((lasted.unwrap_or(0.0) / 0.1) as usize),
            span(first),
            span(Some(longest)),
            span(begin(up).zip(end(up)).map(|(from, to)| to - from)),
            span(Some(gaps.iter().sum::<f64>() / gaps.len().max(1) as f64)),
        ]
    }

    /// Providers: they see prompts, and are told of half of the jobs whose they were. Each alone, or both together.
    pub(super) fn provider(&self, together: bool, habit: bool, dice: &mut Dice) -> Score {
        let mut all = Score::default();
        for provider in 0..if together { 1 } else { 2 } {
            let mine =
                |case: &&Case| case.asked.habit == habit && (together || case.served.provider == provider);
            let cases: Vec<&Case> = self.cases.iter().filter(mine).collect();
            let truth: Vec<usize> = cases.iter().map(|case| case.asked.person).collect();
            let pairs = |known: &dyn Fn(usize) -> bool, job: usize| {
                let of = |person: usize| -> Vec<&Case> {
                    let all = (0..cases.len()).filter(|other| truth[*other] == person && known(*other));
                    all.map(|other| cases[other]).collect()
                };
                (0..self.persons).map(|person| likeness(cases[job], &of(person))).collect()
            };
            all.add(rank(&truth, self.persons, &pairs, dice));
        }
        all
    }

    /// Which account bought the tokens that were claimed for a job, by when and what accounts buy. `during` says when a
    /// job began and ended as far as the attacker knows, and what was claimed for it.
    fn buyer(
        &self,
        spending: &[Spending],
        during: impl Fn(&Case) -> (f64, f64, u128),
        dice: &mut Dice,
    ) -> Score {
        let cases = self.some(|_| true);
        let truth: Vec<usize> = cases.iter().map(|case| case.asked.person).collect();
        let features: Vec<Vec<Features>> = cases
            .iter()
            .map(|case| spending.iter().map(|account| bought(account, during(case))).collect())
            .collect();
        rank(&truth, self.persons, &|_, job| features[job].clone(), dice)
    }

    fn spending(&self) -> Vec<Spending> {
        let one = |bought: &Vec<Bought>| bought.iter().map(|it| (it.at, it.price)).collect();
        self.bought.iter().map(one).collect()
    }

    /// The issuer alone. That claims belong to one job it is told.
    pub(super) fn issuer(&self, dice: &mut Dice) -> Score {
        let during = |case: &Case| {
            let (from, to) = (case.claims.first().unwrap().0, case.claims.last().unwrap().0);
            (from, to, case.claims.iter().map(|it| it.1).sum())
        };
        self.buyer(&self.spending(), during, dice)
    }

    /// An issuer and the providers: they know exactly when a prompt came.
    pub(super) fn issuer_and_providers(&self, dice: &mut Dice) -> Score {
        let during = |case: &Case| {
            let last = case.served.paid.last().map_or(case.served.asked, |it| it.0);
            (case.served.asked, last, case.claims.iter().map(|it| it.1).sum())
        };
        self.buyer(&self.spending(), during, dice)
    }

    /// Whoever reads the chain, on which vouchers are redeemed every `period` seconds; with `prompts`, together with the
    /// providers.
    pub(super) fn chain(&self, period: f64, prompts: bool, dice: &mut Dice) -> Score {
        let block = |at: f64| (at / period).ceil() * period;
        let redeemed = |spending: &Spending| {
            let mut sums: Vec<(f64, u128)> = Vec::new();
            for (at, price) in spending {
                match sums.last_mut() {
                    Some((last, sum)) if *last == block(*at) => *sum += price,
                    _ => sums.push((block(*at), *price)),
                }
            }
            sums
        };
        let spending: Vec<Spending> = self.spending().iter().map(redeemed).collect();
        let during = |case: &Case| {
            let sum = case.claims.iter().map(|it| it.1).sum();
            let from = case.claims.first().unwrap().0;
            if prompts {
                (case.served.asked, case.served.asked, sum)
            } else {
                (block(from), block(from), sum)
            }
        };
        self.buyer(&spending, during, dice)
    }

    /// A relay and a provider, by times alone: the circuit of that provider whose cells went when the job's did.
    pub(super) fn relay_and_provider(&self, dice: &mut Dice) -> Score {
        let mut score = Score { tried: 0, right: 0, chance: 1.0 / self.persons as f64 };
        for case in self.some(|_| true) {
            let to = self.providers[case.served.provider].0;
            let away = |circuit: &Circuit| {
                let begin = begin(&circuit.up).unwrap_or(circuit.opened) - case.served.came;
                let ended = end(&circuit.down).unwrap_or(0.0) - end(&case.served.down).unwrap_or(0.0);
                begin.abs() + ended.abs()
            };
            let mine = self.circuits.iter().filter(|circuit| {
                let (same, named) = (circuit.relay == case.circuit.relay, circuit.head.get(..FRAME));
                same && named.is_some_and(|head| head.windows(32).any(|bytes| bytes == to))
            });
            let found = mine.min_by(|a, b| away(a).total_cmp(&away(b))).and_then(|circuit| circuit.peer);
            let guess = self.peers.iter().position(|peer| Some(*peer) == found);
            score.tried += 1;
            score.right +=
                usize::from(guess.unwrap_or_else(|| dice.below(self.persons)) == case.asked.person);
        }
        score
    }

    /// A relay and the issuer: whether the key that opened a circuit also asked the issuer for tokens, and for whom.
    pub(super) fn relay_and_issuer(&self) -> Score {
        let mut score = Score { tried: 0, right: 0, chance: 1.0 / self.persons as f64 };
        for case in self.some(|_| true) {
            let of = |all: &Vec<Bought>| all.iter().any(|it| Some(it.peer) == case.circuit.peer);
            score.tried += 1;
            score.right += usize::from(self.bought.iter().position(of) == Some(case.asked.person));
        }
        score
    }

    /// What went on, for the report.
    pub(super) fn figures(&self) -> serde_json::Value {
        let purchases: usize = self.bought.iter().map(Vec::len).sum();
        let claims: Vec<(f64, f64)> =
            self.cases.iter().map(|it| (it.claims[0].0, it.claims[it.claims.len() - 1].0)).collect();
        // So near to a purchase, before or after, is one that a job had to wait for.
        let near = |at: f64| claims.iter().any(|(from, to)| (from - 0.3..to + 0.3).contains(&at));
        let all: Vec<&Bought> = self.bought.iter().flatten().collect();
        let kinds: BTreeSet<[usize; 3]> = all.iter().map(|it| it.counts).collect();
        let payees: BTreeSet<[u8; 32]> = self.claimed.iter().map(|it| it.payee).collect();
        let denominations = Denomination::ALL.map(|value| value.worth().0.to_string());
        let tokens: usize = self.cases.iter().flat_map(|it| &it.served.paid).map(|it| it.1.len()).sum();
        serde_json::json!({
            "jobs": self.cases.len(),
            "circuits": self.circuits.len(),
            "purchases": purchases,
            "purchases_during_a_job": all.iter().filter(|it| near(it.at)).count(),
            "kinds_of_purchases": kinds.len(),
            "claims": self.claimed.len(),
            "payees": payees.len(),
            "tokens_per_job": tokens as f64 / self.cases.len().max(1) as f64,
            "denominations": denominations,
            "seconds": self.cases.iter().map(|it| it.served.came).fold(0.0, f64::max),
        })
    }

    pub(super) const TOPICS: usize = TOPICS.len();
    pub(super) const SIZES: usize = SIZES.len();
}

/// What purchases of an account look like beside a job.
fn bought(spending: &Spending, (from, to, sum): (f64, f64, u128)) -> Features {
    let before = spending.iter().rev().find(|it| it.0 < from);
    let after = spending.iter().find(|it| it.0 >= from);
    let later = spending.iter().find(|it| it.0 > to);
    // What the job cost, the toll included.
    let sum = sum + 100;
    let fits = after.map_or(3, |it| if it.1 == sum { 2 } else { u8::from(it.1 > sum) });
    let during = spending.iter().filter(|it| (from - 0.3..=to + 0.3).contains(&it.0)).count();
    let so_far = spending.iter().filter(|it| it.0 < from).count();
    vec![
        span(before.map(|it| from - it.0)),
        span(after.map(|it| it.0 - from)),
        span(later.map(|it| it.0 - to)),
        fits,
        span(after.map(|it| it.1 as f64 / 20_000.0)),
        count(during),
        count(so_far),
        span(before.zip(after).map(|(before, after)| after.0 - before.0)),
        span(before.map(|it| it.1 as f64 / 20_000.0)),
    ]
}

/// What a provider compares a job with jobs of a person that it knows.
fn likeness(job: &Case, known: &[&Case]) -> Features {
    let at = |case: &Case| case.served.asked;
    let before = known.iter().rev().find(|other| at(other) <= at(job));
    let after = known.iter().find(|other| at(other) > at(job));
    let near = before.or(after);
    let ask = |case: &Case| case.served.ask.clone().unwrap();
    let mine = ask(job);
    let alike = |same: &dyn Fn(&Case) -> bool| share(known.iter().filter(|it| same(it)).count(), known.len());
    let kinds = |case: &Case| {
        let tokens = case.served.paid.iter().flat_map(|it| &it.1);
        let mut kinds: Vec<Denomination> = tokens.map(|token| token.value).collect();
        kinds.sort();
        kinds
    };
    let lasted = |case: &Case| end(&case.served.down).unwrap_or(0.0) - case.served.came;
    let opening = |case: &Case| at(case) - case.served.came;
    let habits = |case: &Case| {
        let sampling = ask(case).sampling;
        format!("{:?}", (sampling.temperature, sampling.top_k, sampling.top_p, sampling.repeat_penalty))
    };
    let yes = |same: Option<bool>| same.map_or(2, u8::from);
    let serial = |case: &Case| case.served.paid.first().and_then(|it| it.1.first()).map(|it| it.serial[0]);
    vec![
        span(before.map(|other| at(job) - at(other))),
        span(after.map(|other| at(other) - at(job))),
        yes(near.map(|other| other.served.relay == job.served.relay)),
        alike(&|other| other.served.relay == job.served.relay),
        yes(before.map(|other| kinds(other) == kinds(job))),
        alike(&|other| kinds(other) == kinds(job)),
        alike(&|other| other.served.paid.len() == job.served.paid.len()),
        alike(&|other| habits(other) == habits(job)),
        alike(&|other| ask(other).max_tokens == mine.max_tokens),
        alike(&|other| ask(other).receipt_key == mine.receipt_key || ask(other).job == mine.job),
        alike(&|other| ask(other).padding.len() == mine.padding.len()),
        alike(&|other| (lasted(other) - lasted(job)).abs() < 0.1),
        alike(&|other| (opening(other) - opening(job)).abs() < 0.01),
        alike(&|other| cells(&other.served.up) == cells(&job.served.up)),
        yes(before.map(|other| serial(other) < serial(job))),
        count(known.len() / 4),
    ]
}
