//! The attacker's means: two classifiers that learn from jobs whose persons are known, and what chance would do.
//!
//! Both are naive Bayes over features in a few bins each, trained on one half of the jobs and tried on the other, then
//! the other way round. Knowing half of the answers is more than anybody is given in earnest.

/// Features of one thing, each in one of [`BINS`] bins.
pub(super) type Features = Vec<u8>;

/// Bins of a feature.
pub(super) const BINS: usize = 24;
/// How sure one has to be to call a result better than chance.
pub(super) const ALPHA: f64 = 0.01;

/// Numbers that look random and are the same every time (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }

    /// From 0 to 1, neither included.
    pub(super) fn part(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }
}

/// A length of time, in bins that double from 5 ms on; the last is for what never happened.
pub(super) fn span(seconds: Option<f64>) -> u8 {
    match seconds {
        Some(seconds) => (seconds.max(0.005) / 0.005).log2().floor().min((BINS - 2) as f64) as u8,
        None => (BINS - 1) as u8,
    }
}

/// A count, one bin each as long as there are any.
pub(super) fn count(count: usize) -> u8 {
    count.min(BINS - 1) as u8
}

/// A part of a whole.
pub(super) fn share(part: usize, whole: usize) -> u8 {
    (part * 8).checked_div(whole).unwrap_or(BINS - 1) as u8
}

/// What came of an attack.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub(super) struct Score {
    /// Jobs that were tried.
    pub(super) tried: usize,
    /// Of these, right.
    pub(super) right: usize,
    /// What guessing gets.
    pub(super) chance: f64,
}

impl Score {
    pub(super) fn accuracy(&self) -> f64 {
        self.right as f64 / self.tried.max(1) as f64
    }

    pub(super) fn add(&mut self, other: Self) {
        self.tried += other.tried;
        self.right += other.right;
        self.chance = other.chance;
    }

    /// How likely guessing is to be right so often: the binomial tail.
    pub(super) fn p(&self) -> f64 {
        tail(self.tried, self.right, self.chance)
    }

    /// Where the accuracy is with 95 % confidence (Wilson, 1927).
    pub(super) fn interval(&self) -> (f64, f64) {
        let (n, p, z) = (self.tried.max(1) as f64, self.accuracy(), 1.959_964);
        let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
        let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        ((middle - half).max(0.0), (middle + half).min(1.0))
    }

    /// The least accuracy that this many jobs show with a probability of 80 %, at [`ALPHA`].
    pub(super) fn power(&self) -> f64 {
        let enough = (0..=self.tried).find(|k| tail(self.tried, *k, self.chance) <= ALPHA);
        let Some(enough) = enough else { return 1.0 };
        let shown = |accuracy: &f64| tail(self.tried, enough, *accuracy) >= 0.8;
        (0..=1_000).map(|part| f64::from(part) / 1_000.0).find(shown).unwrap_or(1.0)
    }
}

/// The probability of `k` or more out of `n`.
fn tail(n: usize, k: usize, p: f64) -> f64 {
    if k == 0 {
        return 1.0;
    }
    if p <= 0.0 || p >= 1.0 {
        return if p >= 1.0 { 1.0 } else { 0.0 };
    }
    let (mut log, mut sum) = (n as f64 * (1.0 - p).ln(), 0.0);
    for i in 0..=n {
        if i >= k {
            sum += log.exp();
        }
        log += ((n - i) as f64).ln() - ((i + 1) as f64).ln() + (p / (1.0 - p)).ln();
    }
    sum.min(1.0)
}

/// The place of the largest; of several, one by lot.
fn best(scores: &[f64], dice: &mut Dice) -> usize {
    let most = scores.iter().copied().fold(f64::MIN, f64::max);
    let all: Vec<usize> = (0..scores.len()).filter(|at| scores[*at] >= most - 1e-9).collect();
    all[dice.below(all.len())]
}

/// Counts of bins, feature by feature.
struct Bins(Vec<[f64; BINS]>);

impl Bins {
    fn new(features: usize) -> Self {
        Self(vec![[1.0 / 4.0; BINS]; features])
    }

    fn learn(&mut self, features: &Features) {
        for (bins, bin) in self.0.iter_mut().zip(features) {
            bins[usize::from(*bin)] += 1.0;
        }
    }

    fn log(&self, features: &Features) -> f64 {
        let each =
            |(bins, bin): (&[f64; BINS], &u8)| bins[usize::from(*bin)].ln() - bins.iter().sum::<f64>().ln();
        self.0.iter().zip(features).map(each).sum()
    }
}

/// Whether a job belongs to the first half.
pub(super) fn half(job: usize) -> bool {
    // Not every other one: neighbours in time should be in both halves, and in the same.
    Dice(job as u64).next() & 1 == 0
}

/// The features of a job beside each candidate; the first argument says of which other jobs the truth is known.
pub(super) type Pairs<'a> = dyn Fn(&dyn Fn(usize) -> bool, usize) -> Vec<Features> + 'a;

/// Which of the candidates it was.
pub(super) fn rank(truth: &[usize], candidates: usize, pairs: &Pairs<'_>, dice: &mut Dice) -> Score {
    let mut score = Score { tried: 0, right: 0, chance: 1.0 / candidates as f64 };
    for side in [true, false] {
        let known = |job: usize| half(job) == side;
        let mut models: Option<(Bins, Bins)> = None;
        for job in (0..truth.len()).filter(|job| known(*job)) {
            let others = |other: usize| other != job && known(other);
            for (candidate, features) in pairs(&others, job).iter().enumerate() {
                let (yes, no) =
                    models.get_or_insert_with(|| (Bins::new(features.len()), Bins::new(features.len())));
                if candidate == truth[job] { yes.learn(features) } else { no.learn(features) }
            }
        }
        let Some((yes, no)) = models else { continue };
        for job in (0..truth.len()).filter(|job| !known(*job)) {
            let ratio = |features: &Features| yes.log(features) - no.log(features);
            let scores: Vec<f64> = pairs(&known, job).iter().map(ratio).collect();
            score.tried += 1;
            score.right += usize::from(best(&scores, dice) == truth[job]);
        }
    }
    score
}

/// Which of some classes it was, from what a thing looks like by itself.
pub(super) fn sort(truth: &[usize], classes: usize, features: &[Features], dice: &mut Dice) -> Score {
    let mut score = Score { tried: 0, right: 0, chance: 1.0 / classes as f64 };
    for side in [true, false] {
        let length = features.first().map_or(0, Vec::len);
        let mut models: Vec<Bins> = (0..classes).map(|_| Bins::new(length)).collect();
        for job in (0..truth.len()).filter(|job| half(*job) == side) {
            models[truth[job]].learn(&features[job]);
        }
        for job in (0..truth.len()).filter(|job| half(*job) != side) {
            let scores: Vec<f64> = models.iter().map(|model| model.log(&features[job])).collect();
            score.tried += 1;
            score.right += usize::from(best(&scores, dice) == truth[job]);
        }
    }
    score
}

#[test]
fn the_attacker_finds_what_is_there_and_nothing_in_noise() {
    let mut dice = Dice(7);
    let truth: Vec<usize> = (0..600).map(|_| dice.below(5)).collect();
    let noise: Vec<Vec<Features>> =
        truth.iter().map(|_| (0..5).map(|_| vec![dice.below(9) as u8; 2]).collect()).collect();
    let blind = rank(&truth, 5, &|_, job| noise[job].clone(), &mut dice);
    assert!(blind.p() > ALPHA && blind.tried == 600, "{blind:?}");
    let hint =
        |job: usize| (0..5).map(|one| vec![u8::from(one == truth[job] && job.is_multiple_of(3))]).collect();
    let found = rank(&truth, 5, &|_, job| hint(job), &mut dice);
    assert!(found.p() < 1e-9 && found.accuracy() > 0.4, "{found:?}");
    let faces: Vec<Features> = truth.iter().map(|class| vec![*class as u8]).collect();
    assert_eq!(sort(&truth, 5, &faces, &mut dice).right, 600);
    // 12 heads or more of 20: 0.2517.
    assert!((tail(20, 12, 0.5) - 0.251_72).abs() < 1e-4);
    let score = Score { tried: 1_000, right: 167, chance: 1.0 / 6.0 };
    assert!((0.19..0.22).contains(&score.power()), "{}", score.power());
}
