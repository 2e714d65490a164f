//! The BERT encoder, one input at a time.

use super::{Matrix, add, dot, head_of, mean, softmax};
use crate::model::{
    EncoderConfig, EncoderFormat, ModelError,
    encoder::{Part, pool, positions_with_type},
    tensors::{TensorSource, vector},
};

type Linear = (Matrix, Vec<f32>);
type Norm = (Vec<f32>, Vec<f32>);

#[derive(Debug)]
struct Layer {
    q: Linear,
    k: Linear,
    v: Linear,
    output: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    output_norm: Norm,
}

/// An encoder in plain f32.
#[derive(Debug)]
pub struct ReferenceEncoder {
    config: EncoderConfig,
    tokens: Matrix,
    positions: Matrix,
    norm: Norm,
    layers: Vec<Layer>,
}

impl ReferenceEncoder {
    /// Decodes an encoder's weights.
    ///
    /// # Errors
    /// [`ModelError`] when a tensor is missing or misshapen.
    pub fn load(
        source: &dyn TensorSource,
        format: &EncoderFormat,
        config: EncoderConfig,
    ) -> Result<Self, ModelError> {
        let (width, ffn) = (config.width, config.ffn);
        let linear = |part: Part, rows: usize, cols: usize| {
            let weight = Matrix::load(source, &format.weight(part), rows, cols)?;
            Ok::<_, ModelError>((weight, vector(source, &format.bias(part), rows)?))
        };
        let norm = |part: Part| {
            let weight = vector(source, &format.weight(part), width)?;
            Ok::<_, ModelError>((weight, vector(source, &format.bias(part), width)?))
        };
        let mut layers = Vec::new();
        for i in 0..config.layers {
            layers.push(Layer {
                q: linear(Part::Query(i), width, width)?,
                k: linear(Part::Key(i), width, width)?,
                v: linear(Part::Value(i), width, width)?,
                output: linear(Part::Output(i), width, width)?,
                attention_norm: norm(Part::AttentionNorm(i))?,
                up: linear(Part::Up(i), ffn, width)?,
                down: linear(Part::Down(i), width, ffn)?,
                output_norm: norm(Part::OutputNorm(i))?,
            });
        }
        Ok(Self {
            tokens: Matrix::load(source, &format.weight(Part::Tokens), config.vocab, width)?,
            positions: Matrix { cols: width, data: positions_with_type(source, format, &config)? },
            norm: norm(Part::Norm)?,
            layers,
            config,
        })
    }

    /// The hidden states of an input's tokens, `[tokens, width]`.
    pub fn states(&self, input: &[u32]) -> Vec<Vec<f32>> {
        let mut x: Vec<Vec<f32>> = Vec::new();
        for (position, &token) in input.iter().enumerate() {
            let mut row = self.tokens.row(token as usize).to_vec();
            add(&mut row, self.positions.row(position));
            layer_norm(&mut row, &self.norm, self.config.eps);
            x.push(row);
        }
        for layer in &self.layers {
            let attention = self.attend(layer, &x);
            for (row, attended) in x.iter_mut().zip(&attention) {
                add(row, &times(&layer.output, attended));
                layer_norm(row, &layer.attention_norm, self.config.eps);
                let hidden: Vec<f32> = times(&layer.up, row).into_iter().map(gelu).collect();
                add(row, &times(&layer.down, &hidden));
                layer_norm(row, &layer.output_norm, self.config.eps);
            }
        }
        x
    }

    /// The unit vector of an input.
    pub fn embed(&self, input: &[u32]) -> Vec<f32> {
        pool(&self.states(input).concat(), self.config.width, self.config.pooling)
    }

    fn attend(&self, layer: &Layer, x: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let shape = &self.config.attention;
        let dim = shape.head_dim;
        let all = |linear: &Linear| x.iter().map(|row| times(linear, row)).collect::<Vec<_>>();
        let (q, k, v) = (all(&layer.q), all(&layer.k), all(&layer.v));
        q.iter()
            .map(|q| {
                let mut out = vec![0.0; shape.q_width()];
                for (head, out) in out.chunks_exact_mut(dim).enumerate() {
                    let q = head_of(q, head, dim);
                    let mut scores: Vec<f32> =
                        k.iter().map(|k| dot(q, head_of(k, head, dim)) * shape.scale).collect();
                    softmax(&mut scores);
                    for (v, score) in v.iter().zip(&scores) {
                        out.iter_mut().zip(head_of(v, head, dim)).for_each(|(o, v)| *o += score * v);
                    }
                }
                out
            })
            .collect()
    }
}

fn times(linear: &Linear, x: &[f32]) -> Vec<f32> {
    linear.0.times(x, Some(&linear.1))
}

fn layer_norm(x: &mut [f32], (weight, bias): &Norm, eps: f32) {
    let average = mean(x.iter().copied());
    let variance = mean(x.iter().map(|v| (v - average) * (v - average)));
    let scale = 1.0 / (variance + eps).sqrt();
    for ((x, w), b) in x.iter_mut().zip(weight).zip(bias) {
        *x = (*x - average) * scale * w + b;
    }
}

/// `x·Φ(x)`.
fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    #[allow(clippy::cast_possible_truncation, reason = "the result is f32")]
    let y = (0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))) as f32;
    y
}

/// The error function: its Taylor series where that converges fast, its continued fraction elsewhere
/// (Abramowitz and Stegun 7.1.5 and 7.1.14).
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a > 6.0 {
        return x.signum();
    }
    if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..60 {
            let n = f64::from(n);
            term *= -a * a / n;
            sum += term / (2.0 * n + 1.0);
        }
        return sum * 2.0 / std::f64::consts::PI.sqrt() * x.signum();
    }
    let mut fraction = a;
    for n in (1..60).rev() {
        fraction = a + f64::from(n) / 2.0 / fraction;
    }
    (1.0 - (-a * a).exp() / (fraction * std::f64::consts::PI.sqrt())) * x.signum()
}

#[cfg(test)]
mod tests {
    use super::erf;

    #[test]
    fn erf_has_its_tabulated_values() {
        for (x, expected) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.4, 0.999_311_486_103_354_9),
            (2.6, 0.999_763_965_583_470_7),
            (-1.0, -0.842_700_792_949_714_9),
            (3.5, 0.999_999_256_901_627_7),
        ] {
            assert!((erf(x) - expected).abs() < 1e-12, "erf({x}) = {}", erf(x));
        }
    }
}
