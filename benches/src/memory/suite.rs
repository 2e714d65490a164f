//! Puts haystacks into a node and asks their questions.

use anyhow::Result;
use clap::ValueEnum;

use super::{
    layout::{Haystack, Question},
    metrics::Ranks,
    node::{Node, NodeArgs},
    random::Random,
    scope::Outcome,
    store::Store,
};

/// Items asked for: the deepest depth at which rankings are judged.
pub const LIMIT: usize = 50;

/// What keeps haystacks apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Apart {
    /// Each is a project of one node: the usual use.
    #[default]
    Project,
    /// Each has a fresh node: word statistics are of the haystack alone.
    Home,
}

/// Haystack after haystack on one node, or on one each.
#[derive(Debug)]
pub struct Runner {
    args: NodeArgs,
    apart: Apart,
    seed: u64,
    node: Node,
    store: Store,
    run: u32,
    haystacks: usize,
    embedder: Option<String>,
}

impl Runner {
    /// Opens the node.
    ///
    /// # Errors
    /// When it does not come up, or cannot be thrown away although every haystack needs a fresh one.
    pub fn new(args: &NodeArgs, apart: Apart, seed: u64) -> Result<Self> {
        let node = Node::open(args)?;
        anyhow::ensure!(
            apart == Apart::Project || node.is_ours(),
            "--apart home and --url exclude each other"
        );
        let store = Store::new(node.client()?, args.words_only);
        // Two runs on one node must not meet in a project.
        let run = std::process::id();
        Ok(Self { args: args.clone(), apart, seed, node, store, run, haystacks: 0, embedder: None })
    }

    /// The model that answered.
    pub fn embedder(&self) -> Option<String> {
        self.embedder.clone()
    }

    /// Puts a haystack in, waits until it is embedded, and asks its questions; `seed` marks the outcomes.
    ///
    /// # Errors
    /// The node's refusal.
    pub fn run(&mut self, haystack: &Haystack, seed: u64) -> Result<Vec<Outcome>> {
        if self.apart == Apart::Home && self.haystacks > 0 {
            self.node = Node::open(&self.args)?;
            self.store = Store::new(self.node.client()?, self.args.words_only);
        }
        self.haystacks += 1;
        let project = format!("bench-{}-{}", self.run, self.haystacks);
        let order = Random::of(self.seed, &self.haystacks.to_string());
        let labels = self.store.put(&project, &haystack.sessions, order)?;
        let stats = self.store.settle()?;
        self.embedder = stats.embedder;
        let mut outcomes = Vec::with_capacity(haystack.questions.len());
        for question in &haystack.questions {
            let answer = self.store.recall(Some(&project), question, LIMIT)?;
            let ranking = labels.ranking(&answer.items)?;
            let times = [answer.http_ms, answer.took_ms, answer.embed_ms];
            outcomes.push(outcome(question, &ranking, seed, times));
        }
        Ok(outcomes)
    }
}

fn outcome(question: &Question, ranking: &[String], seed: u64, times: [f64; 3]) -> Outcome {
    let [http_ms, took_ms, embed_ms] = times;
    Outcome {
        id: question.id.clone(),
        kind: question.kind.clone(),
        seed,
        abstention: question.abstention,
        stated: Ranks::new(ranking, &question.stated),
        gold: Ranks::new(ranking, &question.gold),
        http_ms,
        took_ms,
        embed_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_holds_both_golds() {
        let question = Question {
            id: "q".into(),
            stated: vec!["a".into(), "b".into()],
            gold: vec!["b".into()],
            ..Question::default()
        };
        let ranking = ["x".to_owned(), "b".to_owned(), "a".to_owned()];
        let outcome = outcome(&question, &ranking, 3, [3.0, 2.0, 1.0]);
        assert_eq!((outcome.stated.found, outcome.gold.found), (vec![2, 3], vec![2]));
        assert_eq!((outcome.seed, outcome.took_ms), (3, 2.0));
    }
}
