"""The network behind `guide`: a small Llama-architecture decoder in JAX.

Everything here follows the `llama` architecture of GGUF exactly (RMSNorm before
each block, grouped-query attention, SwiGLU, tied embeddings, rotary positions on
*interleaved* pairs), so that the exported file needs no permutation and any
engine that reads such files computes the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """Sizes of the network. Row lengths are multiples of 256 so that K-quants fit."""

    vocab: int = 2048
    dim: int = 256
    layers: int = 3
    heads: int = 8
    kv_heads: int = 4
    ffn: int = 512
    context: int = 512
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.heads


# Matrices are stored as [layer, out, in]: GGUF wants [out, in] per layer, and the
# common leading axis lets the optimiser treat all layers in one batched product.
MATRICES = ("wq", "wk", "wv", "wo", "gate", "up", "down")


def init(shape: Shape, seed: int) -> Params:
    """Fresh random weights."""
    rng = np.random.default_rng(seed)
    kv = shape.kv_heads * shape.head_dim
    sizes = {
        "wq": (shape.dim, shape.dim),
        "wk": (kv, shape.dim),
        "wv": (kv, shape.dim),
        "wo": (shape.dim, shape.dim),
        "gate": (shape.ffn, shape.dim),
        "up": (shape.ffn, shape.dim),
        "down": (shape.dim, shape.ffn),
    }
    params: Params = {
        "embed": rng.normal(0, 0.02, (shape.vocab, shape.dim)),
        "attn_norm": np.ones((shape.layers, shape.dim)),
        "ffn_norm": np.ones((shape.layers, shape.dim)),
        "out_norm": np.ones(shape.dim),
    }
    for name, (rows, cols) in sizes.items():
        std = cols**-0.5
        if name in ("wo", "down"):  # keeps the residual stream's variance level at the start
            std /= (2 * shape.layers) ** 0.5
        params[name] = rng.normal(0, std, (shape.layers, rows, cols))
    return {k: jnp.asarray(v, jnp.float32) for k, v in params.items()}


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square normalisation over the last axis."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rope(x: jax.Array, base: float) -> jax.Array:
    """Rotates the pairs (x[2i], x[2i+1]) of `x` [batch, time, heads, head_dim]."""
    time, width = x.shape[1], x.shape[-1]
    freq = base ** (-np.arange(0, width, 2) / width)
    angle = np.arange(time)[:, None] * freq[None, :]
    cos = jnp.asarray(np.cos(angle), x.dtype)[None, :, None, :]
    sin = jnp.asarray(np.sin(angle), x.dtype)[None, :, None, :]
    even, odd = x[..., 0::2], x[..., 1::2]
    pairs = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return pairs.reshape(x.shape)


def attention(x: jax.Array, layer: Params, mask: jax.Array, shape: Shape) -> jax.Array:
    """Grouped-query attention; `mask` [batch, time, time] is true where looking is allowed."""
    batch, time, _ = x.shape
    groups = shape.heads // shape.kv_heads
    q = (x @ layer["wq"].T).reshape(batch, time, shape.heads, shape.head_dim)
    k = (x @ layer["wk"].T).reshape(batch, time, shape.kv_heads, shape.head_dim)
    v = (x @ layer["wv"].T).reshape(batch, time, shape.kv_heads, shape.head_dim)
    q = rope(q, shape.rope_base).reshape(batch, time, shape.kv_heads, groups, shape.head_dim)
    k = rope(k, shape.rope_base)
    score = jnp.einsum("btkgd,bskd->bkgts", q, k) * shape.head_dim**-0.5
    score = jnp.where(mask[:, None, None], score, -1e9)
    out = jnp.einsum("bkgts,bskd->btkgd", jax.nn.softmax(score, axis=-1), v)
    return out.reshape(batch, time, shape.dim) @ layer["wo"].T


def forward(
    params: Params,
    tokens: jax.Array,
    segments: jax.Array,
    shape: Shape,
    dropout: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """Final hidden states [batch, time, dim], normalised and ready for the output head.

    `segments` numbers the examples packed into a row; a token sees only its own
    example. Positions are not reset per example, since rotary attention depends
    on distances alone.
    """
    time = tokens.shape[1]
    causal = jnp.tril(jnp.ones((time, time), bool))
    mask = causal[None] & (segments[:, :, None] == segments[:, None, :])
    x = params["embed"][tokens]
    keys = jax.random.split(key, 2 * shape.layers) if key is not None and dropout > 0 else None

    def drop(y: jax.Array, index: int) -> jax.Array:
        if keys is None:
            return y
        keep = jax.random.bernoulli(keys[index], 1 - dropout, y.shape)
        return jnp.where(keep, y / (1 - dropout), 0.0)

    for i in range(shape.layers):
        layer = {name: params[name][i] for name in MATRICES}
        h = rms_norm(x, params["attn_norm"][i], shape.norm_eps)
        x = x + drop(attention(h, layer, mask, shape), 2 * i)
        h = rms_norm(x, params["ffn_norm"][i], shape.norm_eps)
        h = jax.nn.silu(h @ layer["gate"].T) * (h @ layer["up"].T)
        x = x + drop(h @ layer["down"].T, 2 * i + 1)
    return rms_norm(x, params["out_norm"], shape.norm_eps)


def logits(params: Params, tokens: jax.Array, segments: jax.Array, shape: Shape) -> jax.Array:
    """Scores over the vocabulary [batch, time, vocab] through the tied embedding."""
    return forward(params, tokens, segments, shape) @ params["embed"].T


def count(params: Params) -> int:
    """Number of weights."""
    return sum(int(np.prod(v.shape)) for v in params.values())
