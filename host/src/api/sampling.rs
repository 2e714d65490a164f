//! Sampling as the surfaces ask for it, before the kernels' words for it.

use potluck_kernels::sample::SamplingParams;

use super::{ApiError, fields::Fields};
use crate::job::random_seed;

/// Most entries of `logit_bias`.
const BIASES: usize = 1024;

/// How tokens are to be drawn. `None`: the surface's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sampling {
    pub(crate) temperature: Option<f32>,
    pub(crate) top_k: Option<u32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) min_p: Option<f32>,
    pub(crate) repeat_penalty: Option<f32>,
    pub(crate) repeat_last_n: Option<u32>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    pub(crate) seed: Option<u64>,
    pub(crate) logit_bias: Vec<(u32, f32)>,
}

impl Sampling {
    /// Takes the fields that OpenAI's and Ollama's requests share.
    ///
    /// # Errors
    /// A wrong type or a number out of range.
    pub(crate) fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let top_k = fields.integer("top_k", -1..=1_000_000)?;
        let last_n = fields.integer("repeat_last_n", -1..=1_000_000)?;
        Ok(Self {
            temperature: fields.number("temperature", 0.0..=2.0)?,
            top_k: top_k.map(|k| u32::try_from(k).unwrap_or(0)),
            top_p: fields.number("top_p", 0.0..=1.0)?,
            min_p: fields.number("min_p", 0.0..=1.0)?,
            repeat_penalty: fields.number("repeat_penalty", 0.01..=10.0)?,
            repeat_last_n: last_n.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?,
            frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?,
            seed: fields.integer("seed", i64::MIN..=i64::MAX)?.map(i64::cast_unsigned),
            logit_bias: Vec::new(),
        })
    }

    /// Takes OpenAI's `logit_bias`: token ids as keys, -100 to 100.
    ///
    /// # Errors
    /// A wrong key or value, or too many of them.
    pub(crate) fn take_bias(&mut self, fields: &mut Fields) -> Result<(), ApiError> {
        let Some(mut bias) = fields.object("logit_bias")? else { return Ok(()) };
        let names: Vec<String> = bias.keys();
        if names.len() > BIASES {
            return Err(ApiError::invalid("logit_bias", format!("at most {BIASES} tokens are possible")));
        }
        for name in names {
            let token: u32 = name
                .parse()
                .map_err(|_| ApiError::invalid("logit_bias", format!("`{name}` is not a token id")))?;
            if let Some(value) = bias.number(&name, -100.0..=100.0)? {
                self.logit_bias.push((token, value));
            }
        }
        Ok(())
    }

    /// The kernels' parameters. `choice` moves a given seed on, so that several choices differ; without a
    /// seed each job draws its own.
    pub(crate) fn params(&self, choice: u64) -> SamplingParams {
        let default = SamplingParams::default();
        SamplingParams {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(default.repeat_penalty),
            repeat_last_n: self.repeat_last_n.unwrap_or(default.repeat_last_n),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            seed: self.seed.map_or_else(random_seed, |seed| seed.wrapping_add(choice)),
            logit_bias: self.logit_bias.clone(),
            ..default
        }
    }
}
