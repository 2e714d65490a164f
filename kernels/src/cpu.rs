//! The CPU backend: native SIMD, and the same bits whatever the instruction set, threads and batching.
//!
//! Weights are packed at load so that one SIMD lane owns one output row; see `design/kernels.md`. Kernels are written
//! once over an abstract vector of 16 lanes and compiled for each instruction set.

#![allow(clippy::indexing_slicing, reason = "batches are checked in `begin`, before anything is indexed")]

mod attention;
mod buffer;
mod elementwise;
mod format;
mod isa;
mod math;
mod matmul;
mod pack;
mod pool;

pub use attention::CpuCache;
pub use isa::Simd;
pub use pack::CpuMatrix;

use attention::{Angles, Append, Operands, Run, View};
use buffer::{Buffer, Shared};
use elementwise::{Gelu, LayerNorm, RmsNorm, SwiGlu};
use isa::run;
use pool::Pool;

use crate::backend::{
    AttentionShape, Backend, BackendError, Batch, CacheShape, PAGE, PageId, RawMatrix, Rope,
};

/// Values below which an op is not worth waking the other threads.
const SMALL: usize = 16 << 10;

/// A buffer of activations `[tokens, width]`.
#[derive(Debug)]
pub struct CpuActivation {
    tokens: usize,
    width: usize,
    data: Buffer,
}

impl CpuActivation {
    fn ptr(&self) -> *const f32 {
        self.data.as_ptr().cast()
    }

    fn mut_ptr(&mut self) -> *mut f32 {
        self.data.as_mut_ptr().cast()
    }

    /// The address for kernels that only read.
    fn shared(&self) -> Shared<f32> {
        Shared::new(self.ptr().cast_mut())
    }

    fn shared_mut(&mut self) -> Shared<f32> {
        Shared::new(self.mut_ptr())
    }

    fn row(&self, row: usize) -> &[f32] {
        debug_assert!(row < self.tokens);
        // SAFETY: the buffer has `tokens` rows of `width` values; callers check the row.
        unsafe { std::slice::from_raw_parts(self.ptr().add(row * self.width), self.width) }
    }
}

/// Runs the ops on the processor's vector units.
#[derive(Debug)]
pub struct CpuBackend {
    simd: Simd,
    pool: Pool,
    products: matmul::Workspace,
    attention: attention::Workspace,
    angles: Angles,
    batch: Batch,
    runs: Vec<Run>,
    step: u64,
}

/// Refuses an op whose operands do not fit.
fn shape(
    ok: bool,
    op: &'static str,
    expected: impl FnOnce() -> String,
    got: impl FnOnce() -> String,
) -> Result<(), BackendError> {
    if ok { Ok(()) } else { Err(BackendError::Shape { op, expected: expected(), got: got() }) }
}

impl CpuBackend {
    /// A backend on `threads` threads (0: one per processor core the process may use) with the given instruction
    /// set, or the fastest this processor has.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] when the processor lacks the instruction set; [`BackendError::OutOfMemory`].
    pub fn new(threads: usize, simd: Option<Simd>) -> Result<Self, BackendError> {
        let simd = simd.unwrap_or_else(Simd::detect);
        if !simd.available() {
            return Err(BackendError::Unavailable {
                backend: "cpu",
                reason: format!("this processor has no {simd}"),
            });
        }
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let pool = Pool::new(threads);
        let products = matmul::Workspace::new(pool.threads())?;
        Ok(Self {
            simd,
            pool,
            products,
            attention: attention::Workspace::new()?,
            angles: Angles::default(),
            batch: Batch::default(),
            runs: Vec::new(),
            step: 0,
        })
    }

    /// The instruction set in use.
    pub const fn simd(&self) -> Simd {
        self.simd
    }

    /// Threads that work on an op.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    fn tokens(&self) -> usize {
        self.batch.tokens.len()
    }

    /// How many of `rows` rows of `width` values a thread should take at once.
    fn step(&self, rows: usize, width: usize) -> usize {
        if rows * width <= SMALL { rows } else { (SMALL / 4 / width.max(1)).max(1) }
    }

    /// Checks that the pages of every token's positions exist in the cache.
    fn check_tables(
        &self,
        op: &'static str,
        shape: &AttentionShape,
        layer: usize,
        cache: &CpuCache,
    ) -> Result<(), BackendError> {
        let of = &cache.shape;
        if layer >= of.layers || shape.kv_heads != of.kv_heads || shape.head_dim != of.head_dim {
            return Err(BackendError::Shape {
                op,
                expected: format!("{of:?}"),
                got: format!("layer {layer}, {} heads of {}", shape.kv_heads, shape.head_dim),
            });
        }
        for run in &self.runs {
            let last = self.batch.positions[run.tokens.end - 1] as usize;
            let used = self.batch.tables.get(run.sequence).and_then(|table| table.get(..=last / PAGE));
            if !used.is_some_and(|used| used.iter().all(|page| (*page as usize) < of.pages)) {
                return Err(BackendError::Shape {
                    op,
                    expected: format!("pages below {} up to position {last}", of.pages),
                    got: format!("the table of sequence {}", run.sequence),
                });
            }
        }
        Ok(())
    }

    /// Checks an attention's shape and buffers.
    fn check_attention(
        &self,
        op: &'static str,
        of: &AttentionShape,
        qkv: &CpuActivation,
    ) -> Result<(), BackendError> {
        let whole =
            of.kv_heads > 0 && of.heads > 0 && of.heads.is_multiple_of(of.kv_heads) && of.head_dim > 0;
        shape(
            whole && qkv.width == of.qkv_width() && qkv.tokens >= self.tokens(),
            op,
            || format!("[{}, {}] for {of:?}", self.tokens(), of.qkv_width()),
            || format!("[{}, {}]", qkv.tokens, qkv.width),
        )
    }

    fn embed_rows(
        &mut self,
        op: &'static str,
        table: &CpuMatrix,
        out: &mut CpuActivation,
        add: bool,
    ) -> Result<(), BackendError> {
        let tokens = self.tokens();
        shape(
            out.width == table.cols && out.tokens >= tokens,
            op,
            || format!("[{tokens}, {}]", table.cols),
            || format!("[{}, {}]", out.tokens, out.width),
        )?;
        let indices = if add { &self.batch.positions } else { &self.batch.tokens };
        if let Some(bad) = indices.iter().find(|index| **index as usize >= table.rows) {
            return Err(BackendError::Shape {
                op,
                expected: format!("rows below {}", table.rows),
                got: format!("{bad}"),
            });
        }
        let (width, target) = (table.cols, out.shared_mut());
        let step = self.step(tokens, width);
        self.pool.each(tokens, step, |_, range| {
            let mut added = if add { vec![0.0; width] } else { Vec::new() };
            for token in range {
                // SAFETY: out has `tokens` rows, and each is given to one thread.
                let row = unsafe { std::slice::from_raw_parts_mut(target.get().add(token * width), width) };
                if add {
                    table.row(indices[token] as usize, &mut added);
                    row.iter_mut().zip(&added).for_each(|(out, v)| *out += v);
                } else {
                    table.row(indices[token] as usize, row);
                }
            }
        });
        Ok(())
    }
}

impl Backend for CpuBackend {
    type Matrix = CpuMatrix;
    type Vector = Vec<f32>;
    type Act = CpuActivation;
    type Cache = CpuCache;

    fn describe(&self) -> String {
        let threads = self.threads();
        format!("cpu ({}, {threads} thread{})", self.simd, if threads == 1 { "" } else { "s" })
    }

    fn matrix(&mut self, parts: &[RawMatrix<'_>]) -> Result<CpuMatrix, BackendError> {
        CpuMatrix::pack(&mut self.pool, parts)
    }

    fn vector(&mut self, data: &[f32]) -> Result<Vec<f32>, BackendError> {
        Ok(data.to_vec())
    }

    fn activation(&mut self, tokens: usize, width: usize) -> Result<CpuActivation, BackendError> {
        let bytes = tokens.checked_mul(width).and_then(|n| n.checked_mul(4)).unwrap_or(usize::MAX / 2);
        Ok(CpuActivation { tokens, width, data: Buffer::zeroed(bytes, "activations")? })
    }

    fn cache(&mut self, shape: &CacheShape) -> Result<CpuCache, BackendError> {
        CpuCache::new(shape)
    }

    fn copy_page(&mut self, cache: &mut CpuCache, from: PageId, to: PageId) -> Result<(), BackendError> {
        cache.copy_page(from, to)
    }

    fn begin(&mut self, batch: &Batch) -> Result<(), BackendError> {
        let tokens = batch.tokens.len();
        let wrong = |expected: &str, got: String| {
            Err(BackendError::Shape { op: "begin", expected: expected.to_owned(), got })
        };
        if batch.positions.len() != tokens || batch.sequence.len() != tokens {
            return wrong(
                "a position and a sequence for each token",
                format!(
                    "{tokens} tokens, {} positions, {} sequences",
                    batch.positions.len(),
                    batch.sequence.len()
                ),
            );
        }
        if !batch.outputs.windows(2).all(|pair| pair[0] < pair[1])
            || batch.outputs.last().is_some_and(|last| *last as usize >= tokens)
        {
            return wrong("outputs that are ascending indices of tokens", format!("{:?}", batch.outputs));
        }
        self.runs.clear();
        for (token, sequence) in batch.sequence.iter().enumerate() {
            let sequence = *sequence as usize;
            match self.runs.last_mut() {
                Some(run) if run.sequence == sequence => {
                    if batch.positions[token] <= batch.positions[token - 1] {
                        return wrong(
                            "positions that ascend within a sequence",
                            format!("{} after {}", batch.positions[token], batch.positions[token - 1]),
                        );
                    }
                    run.tokens.end = token + 1;
                }
                _ => self.runs.push(Run { sequence, tokens: token..token + 1 }),
            }
        }
        self.batch.clone_from(batch);
        self.step += 1;
        Ok(())
    }

    fn embed(&mut self, table: &CpuMatrix, out: &mut CpuActivation) -> Result<(), BackendError> {
        self.embed_rows("embed", table, out, false)
    }

    fn embed_positions(&mut self, table: &CpuMatrix, out: &mut CpuActivation) -> Result<(), BackendError> {
        self.embed_rows("embed_positions", table, out, true)
    }

    fn rms_norm(
        &mut self,
        rows: usize,
        x: &CpuActivation,
        weight: &Vec<f32>,
        eps: f32,
        out: &mut CpuActivation,
    ) -> Result<(), BackendError> {
        let width = x.width;
        shape(
            weight.len() == width && out.width == width && x.tokens >= rows && out.tokens >= rows,
            "rms_norm",
            || format!("[{rows}, {width}] and {width} weights"),
            || format!("[{}, {}] and {} weights", out.tokens, out.width, weight.len()),
        )?;
        let (x, out, weight) = (x.shared(), out.shared_mut(), Shared::new(weight.as_ptr().cast_mut()));
        let (simd, step) = (self.simd, self.step(rows, width));
        self.pool.each(rows, step, |_, rows| {
            run(simd, RmsNorm { x, out, weight, steps: (width, width), width, eps, rows });
        });
        Ok(())
    }

    fn layer_norm(
        &mut self,
        x: &mut CpuActivation,
        weight: &Vec<f32>,
        bias: &Vec<f32>,
        eps: f32,
    ) -> Result<(), BackendError> {
        let (rows, width) = (self.tokens(), x.width);
        shape(
            weight.len() == width && bias.len() == width && x.tokens >= rows,
            "layer_norm",
            || format!("[{rows}, {width}], {width} weights and biases"),
            || format!("[{}, {width}], {} weights, {} biases", x.tokens, weight.len(), bias.len()),
        )?;
        let x = x.shared_mut();
        let (weight, bias) = (Shared::new(weight.as_ptr().cast_mut()), Shared::new(bias.as_ptr().cast_mut()));
        let (simd, step) = (self.simd, self.step(rows, width));
        self.pool.each(rows, step, |_, rows| run(simd, LayerNorm { x, weight, bias, width, eps, rows }));
        Ok(())
    }

    fn matmul(
        &mut self,
        rows: usize,
        w: &CpuMatrix,
        x: &CpuActivation,
        bias: Option<&Vec<f32>>,
        accumulate: bool,
        out: &mut CpuActivation,
    ) -> Result<(), BackendError> {
        let bias_fits = bias.is_none_or(|bias| bias.len() == w.rows);
        shape(
            x.width == w.cols && out.width == w.rows && bias_fits && x.tokens >= rows && out.tokens >= rows,
            "matmul",
            || format!("[{rows}, {}] to [{rows}, {}]", w.cols, w.rows),
            || {
                let bias = bias.map(Vec::len);
                format!("[{}, {}] to [{}, {}], bias {bias:?}", x.tokens, x.width, out.tokens, out.width)
            },
        )?;
        let operands = matmul::Operands {
            rows,
            weights: w,
            x: x.ptr(),
            out: out.mut_ptr(),
            bias: bias.map(|bias| bias.as_ptr()),
            accumulate,
        };
        matmul::product(self.simd, &mut self.pool, &mut self.products, &operands)
    }

    fn rope_append(
        &mut self,
        layer: usize,
        of: &AttentionShape,
        rope: &Rope,
        head_norms: Option<(&Vec<f32>, &Vec<f32>, f32)>,
        qkv: &mut CpuActivation,
        cache: &mut CpuCache,
    ) -> Result<(), BackendError> {
        self.check_attention("rope_append", of, qkv)?;
        self.check_tables("rope_append", of, layer, cache)?;
        let pairs = rope.inv_freq.len();
        let norms_fit = head_norms.is_none_or(|(q, k, _)| q.len() == of.head_dim && k.len() == of.head_dim);
        shape(
            2 * pairs <= of.head_dim && norms_fit,
            "rope_append",
            || format!("at most {} frequencies, norms of {}", of.head_dim / 2, of.head_dim),
            || format!("{pairs} frequencies, norms {:?}", head_norms.map(|(q, k, _)| (q.len(), k.len()))),
        )?;
        self.angles.prepare(self.step, &self.batch.positions, rope);
        let tokens = self.tokens();
        let (simd, step) = (self.simd, self.step(tokens, of.qkv_width()));
        let (angles, batch) = (&self.angles, &self.batch);
        let weights = |v: &Vec<f32>| Shared::new(v.as_ptr().cast_mut());
        let norms = head_norms.map(|(q, k, eps)| (weights(q), weights(k), eps));
        let (qkv, pages) = (qkv.shared_mut(), cache.layer(layer));
        self.pool.each(tokens, step, |_, tokens| {
            let append = Append {
                shape: of,
                style: rope.style,
                pairs,
                angles,
                norms,
                qkv,
                positions: &batch.positions,
                sequence: &batch.sequence,
                tables: &batch.tables,
                pages,
                tokens,
            };
            run(simd, append);
        });
        Ok(())
    }

    fn attention(
        &mut self,
        layer: usize,
        of: &AttentionShape,
        qkv: &CpuActivation,
        cache: &CpuCache,
        out: &mut CpuActivation,
    ) -> Result<(), BackendError> {
        self.check_attention("attention", of, qkv)?;
        self.check_tables("attention", of, layer, cache)?;
        shape(
            out.width == of.q_width() && out.tokens >= self.tokens(),
            "attention",
            || format!("an output of [{}, {}]", self.tokens(), of.q_width()),
            || format!("[{}, {}]", out.tokens, out.width),
        )?;
        let view = View::Causal {
            positions: &self.batch.positions,
            tables: &self.batch.tables,
            window: of.window.filter(|window| *window > 0),
        };
        let operands = Operands { qkv: qkv.shared(), out: out.shared_mut() };
        attention::attend(
            self.simd,
            &mut self.pool,
            &mut self.attention,
            of,
            &self.runs,
            view,
            cache.layer(layer),
            operands,
        )
    }

    fn attention_full(
        &mut self,
        of: &AttentionShape,
        qkv: &CpuActivation,
        out: &mut CpuActivation,
    ) -> Result<(), BackendError> {
        self.check_attention("attention_full", of, qkv)?;
        shape(
            out.width == of.q_width() && out.tokens >= self.tokens(),
            "attention_full",
            || format!("an output of [{}, {}]", self.tokens(), of.q_width()),
            || format!("[{}, {}]", out.tokens, out.width),
        )?;
        let operands = Operands { qkv: qkv.shared(), out: out.shared_mut() };
        attention::attend_full(self.simd, &mut self.pool, &mut self.attention, of, &self.runs, operands)
    }

    fn swiglu(&mut self, gate_up: &CpuActivation, out: &mut CpuActivation) -> Result<(), BackendError> {
        let (rows, width) = (self.tokens(), out.width);
        shape(
            gate_up.width == 2 * width && gate_up.tokens >= rows && out.tokens >= rows,
            "swiglu",
            || format!("[{rows}, {}] to [{rows}, {width}]", 2 * width),
            || format!("[{}, {}] to [{}, {width}]", gate_up.tokens, gate_up.width, out.tokens),
        )?;
        let (gate_up, out) = (gate_up.shared(), out.shared_mut());
        let (simd, step) = (self.simd, self.step(rows, width));
        self.pool.each(rows, step, |_, rows| run(simd, SwiGlu { gate_up, out, width, rows }));
        Ok(())
    }

    fn gelu(&mut self, x: &mut CpuActivation) -> Result<(), BackendError> {
        let (rows, width) = (self.tokens(), x.width);
        shape(x.tokens >= rows, "gelu", || format!("{rows} rows"), || format!("{}", x.tokens))?;
        let x = x.shared_mut();
        let (simd, step) = (self.simd, self.step(rows, width));
        self.pool.each(rows, step, |_, rows| {
            // SAFETY: x has these rows, and each is given to one thread.
            let x = Shared::new(unsafe { x.get().add(rows.start * width) });
            run(simd, Gelu { x, values: rows.len() * width });
        });
        Ok(())
    }

    fn select_outputs(&mut self, x: &CpuActivation, out: &mut CpuActivation) -> Result<(), BackendError> {
        let wanted = self.batch.outputs.len();
        shape(
            x.width == out.width && out.tokens >= wanted && x.tokens >= self.tokens(),
            "select_outputs",
            || format!("[{}, {}] to [{wanted}, {}]", self.tokens(), x.width, x.width),
            || format!("[{}, {}] to [{}, {}]", x.tokens, x.width, out.tokens, out.width),
        )?;
        let (width, target) = (x.width, out.mut_ptr());
        for (row, token) in self.batch.outputs.iter().enumerate() {
            // SAFETY: out has `wanted` rows of x's width, and is another buffer.
            let to = unsafe { std::slice::from_raw_parts_mut(target.add(row * width), width) };
            to.copy_from_slice(x.row(*token as usize));
        }
        Ok(())
    }

    fn read(&mut self, rows: usize, x: &CpuActivation, out: &mut Vec<f32>) -> Result<(), BackendError> {
        shape(x.tokens >= rows, "read", || format!("{rows} rows"), || format!("{}", x.tokens))?;
        out.clear();
        // SAFETY: the buffer has at least `rows` rows of `width` values.
        out.extend_from_slice(unsafe { std::slice::from_raw_parts(x.ptr(), rows * x.width) });
        Ok(())
    }
}
