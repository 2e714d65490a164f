"""Greedy decoding of many prompts at once in plain NumPy, for the exam.

It is written apart from the training code on purpose: two implementations that
agree are the cheapest check of both.
"""

from __future__ import annotations

import numpy as np

from gguf_file import Loaded

Array = np.ndarray


def norm(x: Array, weight: Array, eps: float) -> Array:
    """Root-mean-square normalisation of rows."""
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotate(x: Array, position: int, base: float) -> Array:
    """Rotary position on interleaved pairs of `x` [batch, heads, head_dim]."""
    width = x.shape[-1]
    angle = position * base ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return out


class Decoder:
    """A batch of sequences that all start at position 0 and advance together."""

    def __init__(self, loaded: Loaded, batch: int, limit: int) -> None:
        s = loaded.shape
        self.t, self.s = loaded.tensors, s
        self.keys = np.zeros((s.layers, batch, limit, s.kv_heads, s.head_dim), np.float32)
        self.values = np.zeros_like(self.keys)

    def step(self, tokens: Array, position: int) -> Array:
        """Feeds one token per sequence; returns logits [batch, vocab]."""
        t, s = self.t, self.s
        x = t["token_embd.weight"][tokens]
        for i in range(s.layers):
            p = f"blk.{i}."
            x = x + self.attend(norm(x, t[p + "attn_norm.weight"], s.norm_eps), i, position)
            h = norm(x, t[p + "ffn_norm.weight"], s.norm_eps)
            gate = h @ t[p + "ffn_gate.weight"].T
            h = gate / (1 + np.exp(-gate)) * (h @ t[p + "ffn_up.weight"].T)
            x = x + h @ t[p + "ffn_down.weight"].T
        return norm(x, t["output_norm.weight"], s.norm_eps) @ t["token_embd.weight"].T

    def attend(self, h: Array, layer: int, position: int) -> Array:
        """Attention of the newest position over everything before it."""
        t, s, p = self.t, self.s, f"blk.{layer}."
        n = len(h)
        q = rotate((h @ t[p + "attn_q.weight"].T).reshape(n, s.heads, s.head_dim), position, s.rope_base)
        k = rotate((h @ t[p + "attn_k.weight"].T).reshape(n, s.kv_heads, s.head_dim), position, s.rope_base)
        self.keys[layer, :, position] = k
        self.values[layer, :, position] = (h @ t[p + "attn_v.weight"].T).reshape(n, s.kv_heads, s.head_dim)
        keys, values = self.keys[layer, :, : position + 1], self.values[layer, :, : position + 1]
        q = q.reshape(n, s.kv_heads, s.heads // s.kv_heads, s.head_dim)
        score = np.einsum("nkgd,ntkd->nkgt", q, keys) / np.sqrt(s.head_dim).astype(np.float32)
        weight = np.exp(score - score.max(-1, keepdims=True))
        weight /= weight.sum(-1, keepdims=True)
        return np.einsum("nkgt,ntkd->nkgd", weight, values).reshape(n, s.dim) @ t[p + "attn_output.weight"].T


def answers(loaded: Loaded, conversations: list[list[dict[str, str]]], most: int = 90) -> list[str]:
    """The greedy answer to the last message of each conversation."""
    prompts = [loaded.prompt(c) for c in conversations]
    limit = max(map(len, prompts)) + most
    decoder = Decoder(loaded, len(prompts), limit)
    out: list[list[int]] = [[] for _ in prompts]
    done = [False] * len(prompts)
    token = np.array([p[0] for p in prompts])
    for position in range(limit - 1):
        best = decoder.step(token, position).argmax(-1)
        for i, prompt in enumerate(prompts):
            if position + 1 < len(prompt):
                best[i] = prompt[position + 1]
            elif not done[i]:
                done[i] = best[i] == loaded.end or len(out[i]) >= most
                if not done[i]:
                    out[i].append(int(best[i]))
        if all(done):
            break
        token = best
    return [loaded.tokenizer.decode(ids) for ids in out]
