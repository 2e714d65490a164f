//! The op set, op by op.

use cubecl::prelude::{CubeCount, CubeDim};

use super::products::linear;
use super::rope::{RopeShape, rope_append};
use super::rows;
use super::step::layout;
use super::weights::Words;
use super::{CubeAct, CubeBackend, CubeCache, CubeMatrix, CubeVector, arg, failed};
use crate::backend::{
    AttentionShape, Backend, BackendError, Batch, CacheShape, PAGE, PageId, RawMatrix, Rope, RopeStyle,
};

/// Units of a cube that works on one row or on a stretch of elements.
const UNITS: u32 = 256;
/// Work groups along one dimension of a grid, which is what every wgpu device allows.
const MOST_TOKENS: usize = 65_535;

pub(crate) fn shape_error(op: &'static str, expected: String, got: String) -> BackendError {
    BackendError::Shape { op, expected, got }
}

impl CubeBackend {
    fn check_vector(op: &'static str, vector: &CubeVector, len: usize) -> Result<(), BackendError> {
        if vector.words.len == len {
            return Ok(());
        }
        Err(shape_error(op, format!("a vector of {len}"), format!("one of {}", vector.words.len)))
    }

    fn check_act(op: &'static str, act: &CubeAct, tokens: usize, width: usize) -> Result<(), BackendError> {
        if act.width == width && act.tokens >= tokens {
            return Ok(());
        }
        Err(shape_error(op, format!("{tokens} × {width}"), format!("{} × {}", act.tokens, act.width)))
    }

    fn check_attention(op: &'static str, shape: &AttentionShape) -> Result<(), BackendError> {
        let grouped = shape.kv_heads > 0 && shape.heads.is_multiple_of(shape.kv_heads);
        if grouped && shape.head_dim > 0 && shape.head_dim.is_multiple_of(4) {
            return Ok(());
        }
        Err(shape_error(
            op,
            "query heads in groups of equal size, channels per head a multiple of 4".to_owned(),
            format!("{} heads, {} key heads, {} channels", shape.heads, shape.kv_heads, shape.head_dim),
        ))
    }

    fn check_cache(
        &self,
        op: &'static str,
        layer: usize,
        shape: &AttentionShape,
        cache: &CubeCache,
    ) -> Result<(), BackendError> {
        if layer >= cache.layers.len()
            || shape.kv_heads != cache.shape.kv_heads
            || shape.head_dim != cache.shape.head_dim
        {
            return Err(shape_error(op, format!("layer {layer} of {shape:?}"), format!("{:?}", cache.shape)));
        }
        match self.step.max_page {
            Some(page) if (page as usize) < cache.shape.pages => Ok(()),
            Some(page) => {
                Err(shape_error(op, format!("pages below {}", cache.shape.pages), format!("page {page}")))
            }
            None => Err(shape_error(
                op,
                "a page for every position".to_owned(),
                "a page table that is too short".to_owned(),
            )),
        }
    }

    pub(crate) fn none(&self) -> Words {
        Words { handle: self.nothing.clone(), len: 1 }
    }

    fn embed_rows(
        &mut self,
        op: &'static str,
        table: &CubeMatrix,
        ids: u32,
        largest: u32,
        add: bool,
        out: &mut CubeAct,
    ) -> Result<(), BackendError> {
        let tokens = self.step.tokens;
        Self::check_act(op, out, tokens, table.cols)?;
        if tokens > 0 && largest as usize >= table.rows {
            return Err(shape_error(op, format!("rows below {}", table.rows), format!("row {largest}")));
        }
        let octets = table.cols.div_ceil(8);
        for shard in &table.shards {
            let format = shard.format;
            self.launches += 1;
            // SAFETY: ids are below the table's rows (checked above), each shard takes its own, and `out` has a
            // row for every token.
            unsafe {
                rows::embed::launch_unchecked(
                    &self.client,
                    linear(tokens),
                    CubeDim::new_1d(64),
                    format.vector(),
                    arg(&shard.quants, format.vector()),
                    arg(&shard.high, 1),
                    arg(&shard.scales, 1),
                    arg(&self.meta, 1),
                    arg(&out.words, 1),
                    ids,
                    shard.first as u32,
                    shard.rows as u32,
                    octets as u32,
                    table.cols as u32,
                    u32::from(add),
                    format.high_words(octets) as u32,
                    format.scale_words(octets) as u32,
                    format,
                    64,
                );
            }
        }
        Ok(())
    }
}

impl Backend for CubeBackend {
    type Matrix = CubeMatrix;
    type Vector = CubeVector;
    type Act = CubeAct;
    type Cache = CubeCache;

    fn describe(&self) -> String {
        format!("gpu: {}{}", self.name, if self.lanes > 0 { "" } else { ", without planes" })
    }

    fn matrix(&mut self, parts: &[RawMatrix<'_>]) -> Result<CubeMatrix, BackendError> {
        self.upload_matrix(parts)
    }

    fn vector(&mut self, data: &[f32]) -> Result<CubeVector, BackendError> {
        let words = self.upload_words(data.iter().map(|v| v.to_bits()).collect(), "a vector")?;
        Ok(CubeVector { words })
    }

    fn activation(&mut self, tokens: usize, width: usize) -> Result<CubeAct, BackendError> {
        if tokens > MOST_TOKENS {
            return Err(shape_error("activation", format!("at most {MOST_TOKENS} rows"), tokens.to_string()));
        }
        let len = tokens.saturating_mul(width);
        Ok(CubeAct { words: self.reserve_words(len, "an activation buffer")?, tokens, width })
    }

    fn cache(&mut self, shape: &CacheShape) -> Result<CubeCache, BackendError> {
        let len = shape.pages.saturating_mul(shape.kv_heads).saturating_mul(PAGE * shape.head_dim / 2);
        let mut layers = Vec::new();
        for _ in 0..shape.layers {
            let keys = self.reserve_words(len, "the KV cache")?;
            layers.push((keys, self.reserve_words(len, "the KV cache")?));
        }
        Ok(CubeCache { layers, shape: shape.clone() })
    }

    fn copy_page(&mut self, cache: &mut CubeCache, from: PageId, to: PageId) -> Result<(), BackendError> {
        let pages = cache.shape.pages;
        if from as usize >= pages || to as usize >= pages {
            return Err(shape_error("copy_page", format!("pages below {pages}"), format!("{from} to {to}")));
        }
        let words = cache.shape.kv_heads * cache.shape.head_dim * PAGE / 2;
        for (keys, values) in &cache.layers {
            self.launches += 1;
            // SAFETY: both pages are inside of the buffers.
            unsafe {
                rows::copy_page::launch_unchecked(
                    &self.client,
                    linear(words.div_ceil(UNITS as usize)),
                    CubeDim::new_1d(UNITS),
                    arg(keys, 1),
                    arg(values, 1),
                    from,
                    to,
                    words as u32,
                );
            }
        }
        Ok(())
    }

    fn begin(&mut self, batch: &Batch) -> Result<(), BackendError> {
        if batch.tokens.len() > MOST_TOKENS {
            return Err(shape_error(
                "begin",
                format!("at most {MOST_TOKENS} tokens"),
                batch.tokens.len().to_string(),
            ));
        }
        let (step, words) = layout(batch)?;
        // A buffer of its own from the pool, so that work still queued keeps the one it was given.
        let len = words.len();
        let handle = self.client.create(cubecl::bytes::Bytes::from_elems(words));
        self.meta = Words { handle, len };
        self.ropes.clear();
        self.step = step;
        Ok(())
    }

    fn embed(&mut self, table: &CubeMatrix, out: &mut CubeAct) -> Result<(), BackendError> {
        self.embed_rows("embed", table, self.step.ids, self.step.max_id, false, out)
    }

    fn embed_positions(&mut self, table: &CubeMatrix, out: &mut CubeAct) -> Result<(), BackendError> {
        self.embed_rows("embed_positions", table, self.step.positions, self.step.max_position, true, out)
    }

    fn rms_norm(
        &mut self,
        rows: usize,
        x: &CubeAct,
        weight: &CubeVector,
        eps: f32,
        out: &mut CubeAct,
    ) -> Result<(), BackendError> {
        Self::check_vector("rms_norm", weight, x.width)?;
        Self::check_act("rms_norm", x, rows, x.width)?;
        Self::check_act("rms_norm", out, rows, x.width)?;
        if rows == 0 {
            return Ok(());
        }
        self.launches += 1;
        // SAFETY: x, weight and out have `width` values for each of `rows` cubes.
        unsafe {
            rows::rms_norm::launch_unchecked(
                &self.client,
                linear(rows),
                CubeDim::new_1d(UNITS),
                arg(&x.words, 1),
                arg(&weight.words, 1),
                arg(&out.words, 1),
                x.width as u32,
                eps,
                UNITS,
                self.lanes,
            );
        }
        Ok(())
    }

    fn layer_norm(
        &mut self,
        x: &mut CubeAct,
        weight: &CubeVector,
        bias: &CubeVector,
        eps: f32,
    ) -> Result<(), BackendError> {
        let rows = self.step.tokens;
        Self::check_vector("layer_norm", weight, x.width)?;
        Self::check_vector("layer_norm", bias, x.width)?;
        Self::check_act("layer_norm", x, rows, x.width)?;
        if rows == 0 {
            return Ok(());
        }
        self.launches += 1;
        // SAFETY: x, weight and bias have `width` values for each of `rows` cubes.
        unsafe {
            rows::layer_norm::launch_unchecked(
                &self.client,
                linear(rows),
                CubeDim::new_1d(UNITS),
                arg(&x.words, 1),
                arg(&weight.words, 1),
                arg(&bias.words, 1),
                x.width as u32,
                eps,
                UNITS,
                self.lanes,
            );
        }
        Ok(())
    }

    fn matmul(
        &mut self,
        rows: usize,
        w: &CubeMatrix,
        x: &CubeAct,
        bias: Option<&CubeVector>,
        accumulate: bool,
        out: &mut CubeAct,
    ) -> Result<(), BackendError> {
        self.product(rows, w, x, bias, accumulate, out)
    }

    fn rope_append(
        &mut self,
        layer: usize,
        shape: &AttentionShape,
        rope: &Rope,
        head_norms: Option<(&CubeVector, &CubeVector, f32)>,
        qkv: &mut CubeAct,
        cache: &mut CubeCache,
    ) -> Result<(), BackendError> {
        let op = "rope_append";
        let tokens = self.step.tokens;
        if tokens == 0 {
            return Ok(());
        }
        Self::check_attention(op, shape)?;
        Self::check_act(op, qkv, tokens, shape.qkv_width())?;
        self.check_cache(op, layer, shape, cache)?;
        if rope.inv_freq.len() * 2 > shape.head_dim {
            return Err(shape_error(
                op,
                format!("at most {} rotated pairs", shape.head_dim / 2),
                rope.inv_freq.len().to_string(),
            ));
        }
        let none = self.none();
        let (q_norm, k_norm, eps) = match head_norms {
            Some((q, k, eps)) => {
                Self::check_vector(op, q, shape.head_dim)?;
                Self::check_vector(op, k, shape.head_dim)?;
                (&q.words, &k.words, eps)
            }
            None => (&none, &none, 0.0),
        };
        let table = self.rope_table(rope);
        let Some((keys, values)) = cache.layers.get(layer) else { return Ok(()) };
        let plan = RopeShape {
            heads: shape.heads as u32,
            kv_heads: shape.kv_heads as u32,
            head_dim: shape.head_dim as u32,
            pairs: rope.inv_freq.len() as u32,
            interleaved: rope.style == RopeStyle::Interleaved,
            norms: head_norms.is_some(),
            units: 32,
        };
        self.launches += 1;
        // SAFETY: every token has a page inside of the cache, and all shapes were checked.
        unsafe {
            rope_append::launch_unchecked(
                &self.client,
                CubeCount::Static(plan.heads + 2 * plan.kv_heads, tokens as u32, 1),
                CubeDim::new_1d(plan.units),
                arg(&qkv.words, 1),
                arg(&table, 1),
                arg(q_norm, 1),
                arg(k_norm, 1),
                arg(&self.meta, 1),
                arg(keys, 1),
                arg(values, 1),
                self.step.positions,
                self.step.tables,
                eps,
                plan,
            );
        }
        Ok(())
    }

    fn attention(
        &mut self,
        layer: usize,
        shape: &AttentionShape,
        qkv: &CubeAct,
        cache: &CubeCache,
        out: &mut CubeAct,
    ) -> Result<(), BackendError> {
        let op = "attention";
        let tokens = self.step.tokens;
        if tokens == 0 {
            return Ok(());
        }
        Self::check_attention(op, shape)?;
        Self::check_act(op, qkv, tokens, shape.qkv_width())?;
        Self::check_act(op, out, tokens, shape.q_width())?;
        self.check_cache(op, layer, shape, cache)?;
        self.attend(op, shape, qkv, cache.layers.get(layer), out)
    }

    fn attention_full(
        &mut self,
        shape: &AttentionShape,
        qkv: &CubeAct,
        out: &mut CubeAct,
    ) -> Result<(), BackendError> {
        let op = "attention_full";
        let tokens = self.step.tokens;
        if tokens == 0 {
            return Ok(());
        }
        Self::check_attention(op, shape)?;
        Self::check_act(op, qkv, tokens, shape.qkv_width())?;
        Self::check_act(op, out, tokens, shape.q_width())?;
        self.attend(op, shape, qkv, None, out)
    }

    fn swiglu(&mut self, gate_up: &CubeAct, out: &mut CubeAct) -> Result<(), BackendError> {
        let tokens = self.step.tokens;
        Self::check_act("swiglu", out, tokens, out.width)?;
        Self::check_act("swiglu", gate_up, tokens, out.width * 2)?;
        let total = tokens * out.width;
        if total == 0 {
            return Ok(());
        }
        self.launches += 1;
        // SAFETY: the kernel works on `total` elements, which both buffers have.
        unsafe {
            rows::swiglu::launch_unchecked(
                &self.client,
                linear(total.div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                arg(&gate_up.words, 1),
                arg(&out.words, 1),
                out.width as u32,
                total as u32,
            );
        }
        Ok(())
    }

    fn gelu(&mut self, x: &mut CubeAct) -> Result<(), BackendError> {
        let total = self.step.tokens * x.width;
        Self::check_act("gelu", x, self.step.tokens, x.width)?;
        if total == 0 {
            return Ok(());
        }
        self.launches += 1;
        // SAFETY: the kernel works on `total` elements, which x has.
        unsafe {
            rows::gelu::launch_unchecked(
                &self.client,
                linear(total.div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                arg(&x.words, 1),
                total as u32,
            );
        }
        Ok(())
    }

    fn select_outputs(&mut self, x: &CubeAct, out: &mut CubeAct) -> Result<(), BackendError> {
        let outputs = self.step.outputs;
        Self::check_act("select_outputs", x, self.step.tokens, x.width)?;
        Self::check_act("select_outputs", out, outputs, x.width)?;
        if outputs == 0 {
            return Ok(());
        }
        self.launches += 1;
        // SAFETY: output rows are tokens of the step (checked in `begin`).
        unsafe {
            rows::gather::launch_unchecked(
                &self.client,
                linear(outputs),
                CubeDim::new_1d(UNITS),
                arg(&x.words, 1),
                arg(&self.meta, 1),
                self.step.output_rows,
                arg(&out.words, 1),
                x.width as u32,
                UNITS,
            );
        }
        Ok(())
    }

    fn read(&mut self, rows: usize, x: &CubeAct, out: &mut Vec<f32>) -> Result<(), BackendError> {
        Self::check_act("read", x, rows, x.width)?;
        out.clear();
        let values = rows * x.width;
        if values == 0 {
            return Ok(());
        }
        let unused = (x.words.len - values) as u64 * 4;
        let bytes = self
            .client
            .read_one(x.words.handle.clone().offset_end(unused))
            .map_err(|e| failed("read", &e))?;
        out.extend(bytes.chunks_exact(4).take(values).map(|b| match b {
            [a, b, c, d] => f32::from_le_bytes([*a, *b, *c, *d]),
            _ => 0.0,
        }));
        Ok(())
    }
}
