"""The optimiser: Muon for the matrices of the blocks, Adam for everything else.

Muon (momentum whose update is orthogonalised by a Newton-Schulz iteration;
K. Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) needs about
half the steps of Adam at this size, which is what makes a CPU enough.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from model import MATRICES, Params

State = dict[str, Any]


def init(params: Params) -> State:
    """Zeroed moments for every weight."""
    zeros = {k: jnp.zeros_like(v) for k, v in params.items()}
    second = {k: jnp.zeros_like(v) for k, v in params.items() if k not in MATRICES}
    return {"first": zeros, "second": second, "step": jnp.zeros((), jnp.int32)}


def orthogonalise(g: jax.Array, steps: int = 5) -> jax.Array:
    """Nearest (semi-)orthogonal matrices to `g` [layer, rows, cols], approximately."""
    a, b, c = 3.4445, -4.7750, 2.0315  # coefficients from the source named above
    tall = g.shape[1] > g.shape[2]
    x = jnp.swapaxes(g, 1, 2) if tall else g
    x = x / (jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + 1e-7)
    for _ in range(steps):
        gram = x @ jnp.swapaxes(x, 1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return jnp.swapaxes(x, 1, 2) if tall else x


def update(
    params: Params,
    grads: Params,
    state: State,
    scale: jax.Array,
    lr: float,
    muon_lr: float,
    decay: float,
    pace: dict[str, Any],
) -> tuple[Params, State]:
    """One step; `scale` in 0..1 is the schedule's share of both learning rates.

    `pace` holds, for some weights, factors on their steps that broadcast to their shape.
    """
    step = state["step"] + 1
    first, second, new = {}, {}, {}
    for name, weight in params.items():
        grad = grads[name]
        if name in MATRICES:
            first[name] = 0.95 * state["first"][name] + grad
            direction = orthogonalise(grad + 0.95 * first[name])
            size = max(1.0, weight.shape[1] / weight.shape[2]) ** 0.5
            rate = scale * muon_lr * pace.get(name, 1.0)
            new[name] = weight * (1 - rate * decay) - rate * size * direction
        else:
            first[name] = 0.9 * state["first"][name] + 0.1 * grad
            second[name] = 0.98 * state["second"][name] + 0.02 * grad * grad
            mean = first[name] / (1 - 0.9**step)
            var = second[name] / (1 - 0.98**step)
            new[name] = weight - scale * lr * pace.get(name, 1.0) * mean / (jnp.sqrt(var) + 1e-9)
    return new, {"first": first, "second": second, "step": step}
