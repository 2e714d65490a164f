//! Vectors: questions that every policy is asked before it decides anything.
//!
//! The host's own cover the edges: nothing known, everything full, the largest numbers. A component can bring further
//! ones with the answers it expects, in a custom section, so that whoever loads it sees at once that it does on this
//! machine what it did on its author's. Each is asked twice in fresh instances and once in an instance that has
//! answered the others: the first two must agree, the third tells whether instances may be kept.

mod vectors;

use parity_scale_codec::Encode;
use serde::{Deserialize, Serialize};

pub use vectors::vectors;

use super::{
    LoadError, Policy,
    call::check_description,
    types::{Input, Output},
};

/// Largest section with vectors, in bytes.
pub const MAX_GOLDEN: usize = 256 << 10;
/// Most vectors that a component may bring.
pub const MAX_VECTORS: usize = 64;

/// A question, and the answer where it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    /// What it tries, in a few words.
    pub name: String,
    /// The question.
    pub input: Input,
    /// The answer; `None`: any that is within bounds, and a refusal, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
}

/// A vector that a policy has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// The vector's name.
    pub vector: String,
    /// Fuel it took.
    pub fuel: u64,
    /// Whether the policy refused in words.
    pub refused: bool,
    /// Whether the answer was known and is the same.
    pub expected: bool,
}

/// Reads the vectors that a component brings: JSON, a list of [`Vector`]s.
///
/// # Errors
/// [`LoadError::Golden`].
pub fn own_vectors(section: &[u8]) -> Result<Vec<Vector>, LoadError> {
    if section.len() > MAX_GOLDEN {
        let told = format!("the section has {} bytes, and at most {MAX_GOLDEN} are read", section.len());
        return Err(LoadError::Golden(told));
    }
    let read = serde_json::from_slice::<Vec<Vector>>(section);
    let mut vectors =
        read.map_err(|error| LoadError::Golden(error.to_string().chars().take(300).collect()))?;
    if vectors.len() > MAX_VECTORS {
        let told = format!("there are {}, and at most {MAX_VECTORS} are read", vectors.len());
        return Err(LoadError::Golden(told));
    }
    for vector in &mut vectors {
        vector.name = vector.name.chars().filter(|c| !c.is_control()).take(80).collect();
    }
    Ok(vectors)
}

/// Asks a policy for its label and all vectors, and writes down what was found.
pub(super) fn try_out(policy: &mut Policy, section: Option<&[u8]>) -> Result<(), LoadError> {
    let label = policy.fresh_label().map_err(LoadError::Describe)?;
    check_description(&label).map_err(LoadError::Label)?;
    policy.label = label;
    let mut vectors = vectors(policy.kind());
    vectors.extend(section.map(own_vectors).transpose()?.unwrap_or_default());
    let mut outputs = Vec::with_capacity(vectors.len());
    for vector in &vectors {
        let (tried, output) = try_one(policy, vector)?;
        policy.report.most_fuel = policy.report.most_fuel.max(tried.fuel);
        policy.report.vectors.push(tried);
        outputs.push(output);
    }
    // Twice over, so that what the last question leaves behind meets the first.
    let inputs: Vec<_> = vectors.iter().chain(&vectors).map(|vector| &vector.input).collect();
    let warm = policy.one_after_the_other(&inputs);
    policy.report.keeps_nothing = warm.is_ok_and(|warm| warm.iter().eq(outputs.iter().chain(&outputs)));
    Ok(())
}

fn try_one(policy: &Policy, vector: &Vector) -> Result<(Tried, Output), LoadError> {
    let ask = || {
        let asked = policy.decide(&vector.input);
        asked.map_err(|error| LoadError::Vector { vector: vector.name.clone(), error })
    };
    let (first, second) = (ask()?, ask()?);
    if first.output.encode() != second.output.encode() || first.fuel != second.fuel {
        return Err(LoadError::Unsteady { vector: vector.name.clone() });
    }
    let expected = vector.output.as_ref();
    if expected.is_some_and(|expected| *expected != first.output) {
        return Err(LoadError::Unexpected { vector: vector.name.clone() });
    }
    let tried = Tried {
        vector: vector.name.clone(),
        fuel: first.fuel,
        refused: first.output.refusal().is_some(),
        expected: expected.is_some(),
    };
    Ok((tried, first.output))
}
