"""A head start for the embeddings: which words go with which fact.

Most of what `guide` must learn is which words point to which fact. A bag-of-words
classifier learns that from the same text in seconds, where the network would spend
most of its training time on it. So its weights become half of each token's
embedding, and the first attention layer starts out as the average of that half
over the question. All of it stays trainable.
"""

from __future__ import annotations

import numpy as np

from augment import Source
from model import Params, Shape
from vocab import Layout

Array = np.ndarray


def sample(source: Source, layout: Layout, amount: int) -> tuple[list[Array], Array]:
    """Token sets of `amount` questions, and the numbers of the answers that belong to them."""
    number: dict[str, int] = {}
    questions, answers = [], np.zeros(amount, np.int64)
    for i in range(amount):
        question, answer = source.pair()
        questions.append(np.unique(layout.ids(" " + question)))
        answers[i] = number.setdefault(answer, len(number))
    return questions, answers


def classifier(questions: list[Array], answers: Array, tokens: int, seed: int, rounds: int = 6) -> Array:
    """Softmax regression by Adam; returns weights [token, answer]."""
    rng = np.random.default_rng(seed)
    classes = int(answers.max()) + 1
    weight = np.zeros((tokens, classes), np.float32)
    first, second, step = np.zeros_like(weight), np.zeros_like(weight), 0
    for turn in range(rounds):
        order = rng.permutation(len(questions))
        for start in range(0, len(order), 512):
            part = order[start : start + 512]
            x = np.zeros((len(part), tokens), np.float32)
            for row, i in enumerate(part):
                x[row, questions[i]] = 1
            z = x @ weight
            z = np.exp(z - z.max(1, keepdims=True))
            z /= z.sum(1, keepdims=True)
            z[np.arange(len(part)), answers[part]] -= 1
            grad = x.T @ z / len(part) + 1e-6 * weight
            step += 1
            first = 0.9 * first + 0.1 * grad
            second = 0.99 * second + 0.01 * grad * grad
            rate = 0.04 * (1 - turn / rounds)
            weight -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    return weight


def start(params: Params, weight: Array, shape: Shape, seed: int) -> Params:
    """`params` with embeddings and first attention layer set as described above."""
    half = shape.dim // 2
    centred = weight - weight.mean(1, keepdims=True)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    meaning = (left * values)[:, :half]
    meaning = np.pad(meaning, ((0, 0), (0, half - meaning.shape[1])))
    typical = np.sort(np.linalg.norm(meaning, axis=1))[-shape.vocab // 4]
    rng = np.random.default_rng(seed)
    # The random half gives every token about the same length, so that the norm
    # before attention does not blow up words that mean little.
    embed = np.concatenate([meaning * (0.4 / typical), rng.normal(0, 0.4 * half**-0.5, (shape.vocab, half))], 1)
    wq, wv, wo = (np.array(params[k]) for k in ("wq", "wv", "wo"))
    wq[0] *= 0.1  # nearly uniform attention
    wv[0] = np.eye(wv.shape[1], shape.dim)
    wo[0] = average_heads(shape)
    return params | {k: np.asarray(v, np.float32) for k, v in (("embed", embed), ("wq", wq), ("wv", wv), ("wo", wo))}


def pace(shape: Shape) -> dict[str, Array]:
    """Factors that let what `start` has set move slowly, or the first steps would wash it out."""
    embed = np.ones((1, shape.dim), np.float32)
    embed[:, : shape.dim // 2] = 0.1
    first = np.ones((shape.layers, 1, 1), np.float32)
    first[0] = 0.2
    return {"embed": embed, "wv": first, "wo": first}


def average_heads(shape: Shape) -> Array:
    """Output projection that writes each value dimension to the second half of the stream."""
    out = np.zeros((shape.dim, shape.dim), np.float32)
    group = shape.heads // shape.kv_heads
    for head in range(shape.heads):
        for i in range(shape.head_dim):
            target = shape.dim // 2 + (head // group) * shape.head_dim + i
            if target < shape.dim:
                out[target, head * shape.head_dim + i] = 1.0 / group
    return out
