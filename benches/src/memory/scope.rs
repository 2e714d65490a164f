//! Which questions count, and what counts as found. Without that a figure means nothing.

use std::collections::BTreeMap;

use super::{
    bootstrap::{Estimate, estimates},
    metrics::{Ranks, names},
};

/// What became of one question in one haystack.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The question's name in the data set.
    pub id: String,
    /// What sort of question it is.
    pub kind: String,
    /// The seed of its haystack.
    pub seed: u64,
    /// Whether the right answer is that nothing is known.
    pub abstention: bool,
    /// Where the sessions stand that the data set names as evidence.
    pub stated: Ranks,
    /// Where those stand in which the user says it.
    pub gold: Ranks,
    /// End to end in milliseconds.
    pub http_ms: f64,
    /// The node's own time.
    pub took_ms: f64,
    /// Of that, for embedding the question.
    pub embed_ms: f64,
}

/// A way of counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Questions with an answer that the user gave (419 of LongMemEval's 500), as its retrieval run averages.
    Official,
    /// Questions with an answer (470), as its printing script averages: one whose answer only the assistant gave
    /// cannot be found, and still has "all" of nothing.
    Answerable,
    /// All questions (500), found when a session that is named as evidence is; what most published figures count.
    All,
}

/// The scopes of LongMemEval.
pub const LONGMEMEVAL: [Scope; 3] = [Scope::Official, Scope::Answerable, Scope::All];

impl Scope {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Official => "official",
            Self::Answerable => "answerable",
            Self::All => "all",
        }
    }

    /// What it counts, for the reader of a table.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Official => "no abstention; gold are sessions in which the user says it; at least one",
            Self::Answerable => {
                "no abstention; gold as in official; none found where there is none, but `all` holds"
            }
            Self::All => "abstention too; gold are all sessions named as evidence",
        }
    }

    /// Where the gold of a question stands; `None` when it does not count.
    pub const fn ranks(self, outcome: &Outcome) -> Option<&Ranks> {
        match self {
            Self::Official if outcome.abstention || outcome.gold.gold == 0 => None,
            Self::Answerable if outcome.abstention => None,
            Self::Official | Self::Answerable => Some(&outcome.gold),
            Self::All => Some(&outcome.stated),
        }
    }

    /// The scope of this name.
    pub fn named(name: &str) -> Option<Self> {
        LONGMEMEVAL.into_iter().find(|scope| scope.name() == name)
    }
}

/// The figures of one way of counting.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Which way.
    pub scope: Scope,
    /// How many questions; one asked in several haystacks is one.
    pub questions: usize,
    /// How many answers.
    pub answers: usize,
    /// One estimate per score, in the order of [`names`].
    pub scores: Vec<Estimate>,
    /// The mean scores of each sort of question, and how many questions that are.
    pub kinds: BTreeMap<String, (usize, Vec<f64>)>,
    /// The mean scores of each seed.
    pub seeds: BTreeMap<u64, Vec<f64>>,
}

impl Summary {
    /// Counts.
    pub fn new(scope: Scope, outcomes: &[Outcome], seed: u64) -> Self {
        let counted: Vec<(&Outcome, Vec<f64>)> =
            outcomes.iter().filter_map(|o| Some((o, scope.ranks(o)?.scores()))).collect();
        let by_question = means(counted.iter().map(|(o, scores)| (o.id.as_str(), scores)));
        let rows: Vec<Vec<f64>> = by_question.values().map(|(_, scores)| scores.clone()).collect();
        let kind_of: BTreeMap<&str, &str> =
            counted.iter().map(|(o, _)| (o.id.as_str(), o.kind.as_str())).collect();
        let by_kind = by_question
            .iter()
            .map(|(id, (_, scores))| (kind_of.get(id).copied().unwrap_or_default().to_owned(), scores));
        let seeds = means(counted.iter().map(|(o, scores)| (o.seed, scores)));
        Self {
            scope,
            questions: rows.len(),
            answers: counted.len(),
            scores: estimates(&rows, seed),
            kinds: means(by_kind),
            seeds: seeds.into_iter().map(|(seed, (_, scores))| (seed, scores)).collect(),
        }
    }

    /// The estimate of the score of this name.
    pub fn score(&self, name: &str) -> Option<Estimate> {
        self.scores.get(place(name)?).copied()
    }
}

/// Where the score of this name stands among all.
pub fn place(name: &str) -> Option<usize> {
    names().iter().position(|known| known == name)
}

/// The mean of the rows that share a key, and how many they are.
fn means<'a, K: Ord>(rows: impl Iterator<Item = (K, &'a Vec<f64>)>) -> BTreeMap<K, (usize, Vec<f64>)> {
    let mut sums: BTreeMap<K, (usize, Vec<f64>)> = BTreeMap::new();
    for (key, row) in rows {
        let (count, sum) = sums.entry(key).or_insert_with(|| (0, vec![0.0; row.len()]));
        *count += 1;
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    for (count, sum) in sums.values_mut() {
        sum.iter_mut().for_each(|value| *value /= *count as f64);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(id: &str, seed: u64, stated: &[usize], gold: Option<&[usize]>) -> Outcome {
        let ranks = |found: &[usize], gold: usize| Ranks { gold, found: found.to_vec() };
        Outcome {
            id: id.into(),
            kind: id.get(..1).unwrap().into(),
            seed,
            abstention: id.ends_with("_abs"),
            stated: ranks(stated, 2),
            gold: gold.map_or_else(Ranks::default, |found| ranks(found, 1)),
            ..Outcome::default()
        }
    }

    fn outcomes() -> Vec<Outcome> {
        vec![
            outcome("a1", 0, &[1, 12], Some(&[1])),
            outcome("b1", 0, &[20], Some(&[20])),
            outcome("b2", 0, &[2, 3], None),
            outcome("c_abs", 0, &[4], None),
        ]
    }

    #[test]
    fn each_scope_counts_its_own_questions() {
        let of = |scope| Summary::new(scope, &outcomes(), 1);
        let [official, answerable, all] = LONGMEMEVAL.map(of);
        assert_eq!((official.questions, answerable.questions, all.questions), (2, 3, 4));
        let value = |summary: &Summary, name: &str| summary.score(name).unwrap().value;
        assert_eq!(value(&official, "any@10"), 0.5);
        // b2 has no gold: nothing of it is found, and all of nothing is.
        assert!((value(&answerable, "any@10") - 1.0 / 3.0).abs() < 1e-12);
        assert!((value(&answerable, "all@10") - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!((value(&all, "any@10"), value(&all, "all@10")), (0.75, 0.25));
        assert_eq!(official.kinds["b"].0, 1);
        assert_eq!(official.kinds["b"].1[place("any@30").unwrap()], 1.0);
        assert!(official.score("any@7").is_none());
    }

    #[test]
    fn a_question_of_several_haystacks_is_one() {
        let all = [
            outcome("a1", 1, &[], Some(&[1])),
            outcome("a1", 2, &[], Some(&[9])),
            outcome("a2", 1, &[], Some(&[9])),
        ];
        let summary = Summary::new(Scope::Official, &all, 1);
        assert_eq!((summary.questions, summary.answers), (2, 3));
        assert_eq!(summary.score("any@1").unwrap().value, 0.25);
        assert_eq!(summary.seeds[&1][0], 0.5);
        assert_eq!(summary.kinds["a"].0, 2);
    }

    #[test]
    fn nothing_counted_is_nothing() {
        let summary = Summary::new(Scope::Official, &[], 1);
        assert_eq!((summary.questions, summary.score("any@10")), (0, None));
        assert_eq!(Scope::named("answerable"), Some(Scope::Answerable));
        assert_eq!(Scope::named("x"), None);
    }
}
