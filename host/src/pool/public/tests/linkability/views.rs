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

/// How often persons are shuffled.
const SHUFFLES: usize = 20;

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

    /// Providers: they see prompts, and are told of half of the jobs whose they were. Each alone, or both together. With
    /// `shuffled`, the persons of each provider's jobs change places: what is still right then is known from how often
    /// each of them comes.
    pub(super) fn provider(&self, together: bool, habit: bool, shuffled: bool, dice: &mut Dice) -> Score {
        let mut all = Score::default();
        for provider in 0..if together { 1 } else { 2 } {
            let mine =
                |case: &&Case| case.asked.habit == habit && (together || case.served.provider == provider);
            let cases: Vec<&Case> = self.cases.iter().filter(mine).collect();
            let mut truth: Vec<usize> = cases.iter().map(|case| case.asked.person).collect();
            for last in (1..truth.len()).rev().filter(|_| shuffled) {
                truth.swap(last, dice.below(last + 1));
            }
            let looks: Vec<Look> = cases.iter().map(|case| Look::of(case)).collect();
            let pairs = |known: &dyn Fn(usize) -> bool, job: usize| {
                let mut of: Vec<Vec<&Look>> = vec![Vec::new(); self.persons];
                for other in (0..looks.len()).filter(|other| known(*other)) {
                    of[truth[other]].push(&looks[other]);
                }
                of.iter().map(|known| looks[job].beside(known)).collect()
            };
            all.add(rank(&truth, self.persons, &pairs, dice));
        }
        all
    }

    /// Which of the things that providers together compare tells how much by itself: accuracies, in the order of
    /// [`Look::beside`], and last which provider it is.
    pub(super) fn provider_by_feature(&self, dice: &mut Dice) -> Vec<f64> {
        let cases = self.some(|_| true);
        let truth: Vec<usize> = cases.iter().map(|case| case.asked.person).collect();
        let looks: Vec<Look> = cases.iter().map(|case| Look::of(case)).collect();
        let one = |feature: usize, dice: &mut Dice| {
            let pairs = |known: &dyn Fn(usize) -> bool, job: usize| {
                let beside = |person: usize| {
                    let theirs = |other: &usize| truth[*other] == person && known(*other);
                    let of: Vec<usize> = (0..looks.len()).filter(theirs).collect();
                    let mut all =
                        looks[job].beside(&of.iter().map(|other| &looks[*other]).collect::<Vec<_>>());
                    let at = cases[job].served.provider;
                    let same = of.iter().filter(|other| cases[**other].served.provider == at).count();
                    all.push(share(same, of.len()));
                    vec![all[feature]]
                };
                (0..self.persons).map(beside).collect()
            };
            rank(&truth, self.persons, &pairs, dice).accuracy()
        };
        (0..=16).map(|feature| one(feature, dice)).collect()
    }

    /// A provider alone, beside what the same attack gets when persons are shuffled among its jobs.
    pub(super) fn provider_beyond_custom(&self, dice: &mut Dice) -> Score {
        let real = self.provider(false, false, false, dice);
        let mut shuffled = Score::default();
        for _ in 0..SHUFFLES {
            shuffled.add(self.provider(false, false, true, dice));
        }
        Score { chance: shuffled.accuracy(), ..real }
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

/// What a provider sees of a job, as far as jobs can be compared by it.
struct Look {
    at: f64,
    relay: Option<NodeId>,
    /// The tokens by their worth, and in how many payments they came.
    kinds: Vec<Denomination>,
    payments: usize,
    /// How tokens are drawn.
    habits: [u32; 4],
    max_tokens: Option<u32>,
    names: [Vec<u8>; 2],
    padding: usize,
    lasted: f64,
    opening: f64,
    cells: usize,
    serial: Option<u8>,
}

impl Look {
    fn of(case: &Case) -> Self {
        let served = &case.served;
        let ask = served.ask.clone().unwrap();
        let sampling = &ask.sampling;
        let mut kinds: Vec<Denomination> =
            served.paid.iter().flat_map(|it| &it.1).map(|token| token.value).collect();
        kinds.sort();
        Self {
            at: served.asked,
            relay: served.relay,
            kinds,
            payments: served.paid.len(),
            habits: [sampling.temperature, sampling.top_p, sampling.min_p, sampling.repeat_penalty]
                .map(f32::to_bits),
            max_tokens: ask.max_tokens,
            names: [ask.receipt_key.to_vec(), ask.job.to_vec()],
            padding: ask.padding.len(),
            lasted: end(&served.down).unwrap_or(0.0) - served.came,
            opening: served.asked - served.came,
            cells: cells(&served.up),
            serial: served.paid.first().and_then(|it| it.1.first()).map(|it| it.serial[0]),
        }
    }

    /// Compared with jobs of a person that it knows.
    fn beside(&self, known: &[&Self]) -> Features {
        let before = known.iter().rev().find(|other| other.at <= self.at);
        let after = known.iter().find(|other| other.at > self.at);
        let near = before.or(after);
        let alike =
            |same: &dyn Fn(&Self) -> bool| share(known.iter().filter(|it| same(it)).count(), known.len());
        let yes = |same: Option<bool>| same.map_or(2, u8::from);
        vec![
            span(before.map(|other| self.at - other.at)),
            span(after.map(|other| other.at - self.at)),
            yes(near.map(|other| other.relay == self.relay)),
            alike(&|other| other.relay == self.relay),
            yes(before.map(|other| other.kinds == self.kinds)),
            alike(&|other| other.kinds == self.kinds),
            alike(&|other| other.payments == self.payments),
            alike(&|other| other.habits == self.habits),
            alike(&|other| other.max_tokens == self.max_tokens),
            alike(&|other| other.names.iter().zip(&self.names).any(|(theirs, ours)| theirs == ours)),
            alike(&|other| other.padding == self.padding),
            alike(&|other| (other.lasted - self.lasted).abs() < 0.1),
            alike(&|other| (other.opening - self.opening).abs() < 0.01),
            alike(&|other| other.cells == self.cells),
            yes(before.map(|other| other.serial < self.serial)),
            count(known.len() / 4),
        ]
    }
}
