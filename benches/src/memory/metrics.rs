//! What a ranking is worth, as the official evaluation of LongMemEval counts it.
//!
//! Its nDCG is not the usual one: a hit at rank 1 counts 1 and a hit at rank r ≥ 2 counts 1 / log2(r), so that the
//! first two ranks both count in full. That is kept here, because figures are compared with others made that way.

/// The depths at which rankings are judged.
pub const DEPTHS: [usize; 6] = [1, 3, 5, 10, 30, 50];

/// Where in a ranking the sessions with the answer stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranks {
    /// How many sessions hold the answer.
    pub gold: usize,
    /// The ranks of those that were found, from 1, ascending.
    pub found: Vec<usize>,
}

impl Ranks {
    /// The ranks of `gold` in a ranking, best first. What stands in the ranking twice counts where it stands first.
    pub fn new<S: AsRef<str>>(ranking: &[S], gold: &[String]) -> Self {
        let rank = |id: &String| ranking.iter().position(|ranked| ranked.as_ref() == id).map(|at| at + 1);
        let mut wanted: Vec<&String> = gold.iter().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut found: Vec<usize> = wanted.iter().filter_map(|id| rank(id)).collect();
        found.sort_unstable();
        Self { gold: wanted.len(), found }
    }

    /// How many are within the first `k`.
    fn within(&self, k: usize) -> usize {
        self.found.partition_point(|&rank| rank <= k)
    }

    /// 1 if any session with the answer is within the first `k`.
    pub fn any(&self, k: usize) -> f64 {
        if self.within(k) > 0 { 1.0 } else { 0.0 }
    }

    /// 1 if all are; also, as in the official evaluation, if there is none at all.
    pub fn all(&self, k: usize) -> f64 {
        if self.within(k) == self.gold { 1.0 } else { 0.0 }
    }

    /// The share that is; 0 if there is none.
    pub fn fraction(&self, k: usize) -> f64 {
        if self.gold == 0 { 0.0 } else { self.within(k) as f64 / self.gold as f64 }
    }

    /// The official nDCG; 0 if there is none.
    pub fn ndcg(&self, k: usize) -> f64 {
        let ideal: f64 = (1..=self.gold.min(k)).map(gain).sum();
        let actual: f64 = self.found.iter().filter(|&&rank| rank <= k).map(|&rank| gain(rank)).sum();
        if ideal > 0.0 { actual / ideal } else { 0.0 }
    }

    /// One over the rank of the first; 0 if none was found.
    pub fn reciprocal(&self) -> f64 {
        self.found.first().map_or(0.0, |&rank| 1.0 / rank as f64)
    }

    /// All of these, in the order of [`names`].
    pub fn scores(&self) -> Vec<f64> {
        let measures = [Self::any, Self::all, Self::fraction, Self::ndcg];
        let mut scores: Vec<f64> =
            measures.iter().flat_map(|measure| DEPTHS.map(|k| measure(self, k))).collect();
        scores.push(self.reciprocal());
        scores
    }
}

/// What a hit at this rank adds.
fn gain(rank: usize) -> f64 {
    if rank <= 1 { 1.0 } else { 1.0 / (rank as f64).log2() }
}

/// The names of the scores: `any@1` … `any@50`, `all@…`, `fraction@…`, `ndcg@…`, `mrr`.
pub fn names() -> Vec<String> {
    let measures = ["any", "all", "fraction", "ndcg"];
    let mut names: Vec<String> =
        measures.iter().flat_map(|measure| DEPTHS.map(|k| format!("{measure}@{k}"))).collect();
    names.push("mrr".into());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(gold: usize, found: &[usize]) -> Ranks {
        Ranks { gold, found: found.to_vec() }
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn ranks_are_read_off_a_ranking() {
        let gold = ["b".to_owned(), "d".to_owned(), "z".to_owned(), "b".to_owned()];
        assert_eq!(Ranks::new(&["a", "b", "c", "d", "b"], &gold), ranks(3, &[2, 4]));
        assert_eq!(Ranks::new::<&str>(&[], &gold), ranks(3, &[]));
        assert_eq!(Ranks::new(&["a"], &[]), ranks(0, &[]));
    }

    #[test]
    fn any_all_and_fraction_count_within_the_depth() {
        let r = ranks(3, &[2, 5]);
        assert_eq!((r.any(1), r.any(2), r.any(5)), (0.0, 1.0, 1.0));
        assert_eq!((r.all(5), ranks(2, &[2, 5]).all(5), ranks(2, &[2, 5]).all(4)), (0.0, 1.0, 0.0));
        near(r.fraction(4), 1.0 / 3.0);
        near(r.fraction(50), 2.0 / 3.0);
    }

    #[test]
    fn the_first_two_ranks_both_count_in_full() {
        near(ranks(1, &[1]).ndcg(10), 1.0);
        near(ranks(1, &[2]).ndcg(10), 1.0);
        // log2(3) = 1.584962500721156; the usual nDCG would say 0.5 here.
        near(ranks(1, &[3]).ndcg(10), 0.630_929_753_571_457_4);
        near(ranks(1, &[4]).ndcg(10), 0.5);
        near(ranks(1, &[11]).ndcg(10), 0.0);
    }

    #[test]
    fn the_ideal_is_cut_at_the_depth_and_holds_all_gold() {
        // Ideal for three: 1 + 1 + 0.63093 = 2.63093; found at 1 and 4: 1 + 0.5.
        near(ranks(3, &[1, 4]).ndcg(10), 1.5 / 2.630_929_753_571_457_4);
        // At depth 1 the ideal is 1 alone.
        near(ranks(3, &[1, 4]).ndcg(1), 1.0);
        near(ranks(3, &[2, 4]).ndcg(1), 0.0);
        // At depth 3: (1) / (1 + 1 + 0.63093).
        near(ranks(3, &[2, 4]).ndcg(3), 1.0 / 2.630_929_753_571_457_4);
    }

    #[test]
    fn without_gold_all_holds_and_nothing_else_does() {
        let none = ranks(0, &[]);
        assert_eq!((none.any(10), none.all(10), none.fraction(10), none.ndcg(10)), (0.0, 1.0, 0.0, 0.0));
        assert_eq!(none.reciprocal(), 0.0);
    }

    #[test]
    fn the_reciprocal_is_of_the_first() {
        near(ranks(2, &[3, 9]).reciprocal(), 1.0 / 3.0);
        near(ranks(2, &[]).reciprocal(), 0.0);
    }

    #[test]
    fn scores_and_names_belong_together() {
        let r = ranks(2, &[1, 7]);
        let scores: Vec<(String, f64)> = names().into_iter().zip(r.scores()).collect();
        assert_eq!(scores.len(), r.scores().len());
        assert_eq!(scores.len(), 25);
        let of = |name: &str| scores.iter().find(|(n, _)| n == name).unwrap().1;
        near(of("any@1"), 1.0);
        near(of("all@5"), 0.0);
        near(of("all@10"), 1.0);
        near(of("fraction@5"), 0.5);
        // 1/log2(7) = 0.3562071871080222.
        near(of("ndcg@10"), (1.0 + 0.356_207_187_108_022_2) / 2.0);
        near(of("mrr"), 1.0);
    }
}
