"""Trains `guide` from scratch on a CPU, writes guide.gguf and examines it.

    python train.py                        trains, exports, examines
    python train.py --minutes 10           the same, shorter: the schedule follows the clock
    python train.py --exam-only            examines the file that is there
    python train.py --from checkpoint.npz  exports a checkpoint and examines it
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

import corpus
import gguf_file
import model
import optim
import vocab
import warm
from augment import Source
from decode import answers

HERE = Path(__file__).resolve().parent
ROW = 256  # tokens per packed row


def arguments() -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--steps", type=int, default=1100, help="most optimiser steps")
    p.add_argument("--minutes", type=float, default=24.0, help="most minutes of training")
    p.add_argument("--rows", type=int, default=8, help=f"packed rows of {ROW} tokens per step")
    p.add_argument("--lr", type=float, default=4e-3, help="Adam's rate, for embeddings and norms")
    p.add_argument("--muon-lr", type=float, default=0.02, help="Muon's rate, for matrices")
    p.add_argument("--decay", type=float, default=0.1, help="weight decay of the matrices")
    p.add_argument("--dropout", type=float, default=0.0)
    p.add_argument("--short", type=float, default=0.75, help="share of examples whose answer is cut once it is decided")
    p.add_argument("--warm", type=int, default=60000, help="questions for the head start of the embeddings; 0: none")
    p.add_argument("--vocab", type=int, default=2048)
    p.add_argument("--layers", type=int, default=3)
    p.add_argument("--ffn", type=int, default=512)
    p.add_argument("--out", type=Path, default=HERE / "guide.gguf")
    p.add_argument("--checkpoint", type=Path, default=HERE / "checkpoint.npz")
    p.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    p.add_argument("--exam", type=Path, action="append", help="exam files (default: eval.jsonl)")
    p.add_argument("--exam-only", action="store_true")
    p.add_argument("--from", dest="start", type=Path, help="export and examine this checkpoint, no training")
    p.add_argument("--continue", dest="resume", type=Path, help="train on from the weights of this checkpoint")
    p.add_argument("--verbose", action="store_true", help="print every wrong answer in full")
    return p.parse_args()


def guard(exams: list[Path]) -> set[str]:
    """Normalised exam questions, after proving that the corpus holds none of them."""
    asked = {corpus.normal(str(item["question"])) for path in exams if path.exists() for item in corpus.exam(path)}
    found = asked & corpus.written()
    assert not found, f"exam questions in the training text: {sorted(found)}"
    return asked


class Unseen(Source):
    """A source that also discards any random variation equal to an exam question."""

    def __init__(self, seed: int, exam: set[str]) -> None:
        super().__init__(corpus.FACTS, seed)
        self.exam = exam

    def pair(self) -> tuple[str, str]:
        """Draws until the question is not in the exam."""
        while True:
            question, answer = super().pair()
            if corpus.normal(question) not in self.exam:
                return question, answer


def make_tokenizer(seed: int, size: int, exam: set[str]) -> Tokenizer:
    """Learns the vocabulary from a sample of what training will show."""
    source = Unseen(seed + 1, exam)
    texts: list[str] = []
    for _ in range(15000):
        question, answer = source.pair()
        texts += [" " + question, answer]
    return vocab.learn(texts, size)


def merges_of(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """The merge rules in order."""
    return [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in json.loads(tokenizer.to_str())["model"]["merges"]]


def batches(layout: vocab.Layout, source: Source, rows: int, seed: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Endless packed batches: tokens, segment numbers, and places and ids of the learned targets.

    Only learned targets reach the output head, which is a fifth of the work. Their
    number varies, the compiled step wants a fixed one: short lists are padded with
    target -1, of overlong ones the end is dropped.
    """
    rng = random.Random(seed)
    room = rows * ROW * 6 // 10
    held = layout.example(source, rng)
    while True:
        tokens = np.zeros((rows, ROW + 1), np.int32)
        segments = np.zeros((rows, ROW + 1), np.int32)
        learned = np.zeros((rows, ROW + 1), bool)
        for row in range(rows):
            at, segment = 0, 1
            while at + len(held[0]) <= ROW + 1:
                span = slice(at, at + len(held[0]))
                tokens[row, span], learned[row, span] = held
                segments[row, span] = segment
                at, segment = span.stop, segment + 1
                held = layout.example(source, rng)
        places = np.flatnonzero(learned[:, 1:])[:room].astype(np.int32)
        targets = tokens[:, 1:].reshape(-1)[places]
        spare = room - len(places)
        yield tokens[:, :-1], segments[:, :-1], np.pad(places, (0, spare)), np.pad(targets, (0, spare), constant_values=-1)


def loss(
    params: model.Params, batch: tuple[jax.Array, ...], key: jax.Array, shape: model.Shape, dropout: float
) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy over learned tokens, and the share of them that greedy decoding gets right."""
    tokens, segments, places, targets = batch
    hidden = model.forward(params, tokens, segments, shape, dropout, key).reshape(-1, shape.dim)
    scores = hidden[places] @ params["embed"].T
    weight = (targets >= 0).astype(jnp.float32)
    picked = jnp.take_along_axis(scores, jnp.maximum(targets, 0)[:, None], -1)[:, 0]
    nll = jax.nn.logsumexp(scores, -1) - picked
    right = (picked >= scores.max(-1)).astype(jnp.float32)
    total = weight.sum()
    return (nll * weight).sum() / total, (right * weight).sum() / total


def make_step(args: argparse.Namespace, shape: model.Shape) -> Callable[..., Any]:
    """The compiled training step."""
    pace = warm.pace(shape) if args.warm else {}

    @jax.jit
    def step(params: model.Params, state: optim.State, batch: Any, scale: float, key: jax.Array) -> Any:
        (value, right), grads = jax.value_and_grad(loss, has_aux=True)(params, batch, key, shape, args.dropout)
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in grads.values()))
        grads = {k: g * jnp.minimum(1.0, 1.0 / (norm + 1e-6)) for k, g in grads.items()}
        params, state = optim.update(params, grads, state, scale, args.lr, args.muon_lr, args.decay, pace)
        return params, state, value, right

    return step


def schedule(progress: float) -> float:
    """Share of the learning rate at `progress` in 0..1: short warm-up, plateau, linear decay."""
    return min(1.0, progress / 0.02 + 0.02, (1.0 - progress) / 0.75 + 0.003)


def save(path: Path, params: model.Params, tokenizer: Tokenizer, shape: model.Shape) -> None:
    """Writes weights, tokenizer and shape, so that any checkpoint can be exported later."""
    meta = {"tokenizer": tokenizer.to_str(), "shape": json.dumps(asdict(shape))}
    part = path.with_suffix(".part.npz")
    np.savez(part, **{k: np.asarray(v) for k, v in params.items()}, **meta)
    part.replace(path)


def load(path: Path) -> tuple[model.Params, Tokenizer, model.Shape]:
    """Reads what `save` wrote."""
    data = np.load(path)
    shape = model.Shape(**json.loads(str(data["shape"])))
    params = {k: jnp.asarray(data[k]) for k in data.files if k not in ("tokenizer", "shape")}
    return params, Tokenizer.from_str(str(data["tokenizer"])), shape


def prepare(args: argparse.Namespace, exam: set[str]) -> tuple[model.Params, vocab.Layout, model.Shape]:
    """Tokenizer and first weights: from a checkpoint, or new ones with the embeddings' head start."""
    says = [a for f in corpus.FACTS for a in f.say]
    if args.resume:
        params, tokenizer, shape = load(args.resume)
        return params, vocab.Layout(tokenizer, says, args.short), shape
    tokenizer = make_tokenizer(args.seed, args.vocab, exam)
    layout = vocab.Layout(tokenizer, says, args.short)
    shape = model.Shape(vocab=tokenizer.get_vocab_size(), layers=args.layers, ffn=args.ffn)
    params = model.init(shape, args.seed)
    if args.warm:
        questions, numbers = warm.sample(Unseen(args.seed + 4, exam), layout, args.warm)
        weight = warm.classifier(questions, numbers, shape.vocab, args.seed)
        params = {k: jnp.asarray(v) for k, v in warm.start(params, weight, shape, args.seed).items()}
    return params, layout, shape


def train(args: argparse.Namespace, exam: set[str]) -> tuple[model.Params, Tokenizer, model.Shape]:
    """Trains until the steps or the minutes are used up; Ctrl-C ends early and keeps the result."""
    params, layout, shape = prepare(args, exam)
    state, step = optim.init(params), make_step(args, shape)
    feed = batches(layout, Unseen(args.seed + 2, exam), args.rows, args.seed + 3)
    key = jax.random.key(args.seed)
    print(f"{model.count(params)} weights, vocabulary {shape.vocab}, {len(corpus.FACTS)} facts", flush=True)
    begin, seen, done = time.monotonic(), 0, 0
    try:
        for index in range(args.steps):
            spent = (time.monotonic() - begin) / 60
            progress = max(index / args.steps, spent / args.minutes)
            if progress >= 1:
                break
            batch = next(feed)
            params, state, value, right = step(params, state, batch, schedule(progress), jax.random.fold_in(key, index))
            seen, done = seen + int((batch[1] > 0).sum()), index + 1
            if index % 10 == 0:
                left = min(args.minutes - spent, spent / max(index, 1) * (args.steps - index))
                print(f"step {index:5d}  loss {float(value):.4f}  right {float(right):.4f}  {spent:5.1f} min, {left:5.1f} left", flush=True)
            if index % args.save_every == args.save_every - 1:
                save(args.checkpoint, params, layout.tokenizer, shape)
    except KeyboardInterrupt:
        print("stopped early; exporting what there is")
    save(args.checkpoint, params, layout.tokenizer, shape)
    print(f"{done} steps, {seen} tokens, {(time.monotonic() - begin) / 60:.1f} minutes")
    return params, layout.tokenizer, shape


def examine(path: Path, exams: list[Path], verbose: bool) -> dict[str, Any]:
    """Asks the finished file every exam question."""
    loaded = gguf_file.Loaded(path)
    report: dict[str, Any] = {"file": path.name, "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    for exam in exams:
        items = corpus.exam(exam)
        got = answers(loaded, [[{"role": "user", "content": str(item["question"])}] for item in items])
        wrong = [(i, a) for i, a in zip(items, got, strict=True) if not corpus.passes(a, i["key"])]  # type: ignore[arg-type]
        report[exam.name] = f"{len(items) - len(wrong)}/{len(items)}"
        print(f"{exam.name}: {report[exam.name]}")
        for item, answer in wrong:
            print(f"  wrong: {item['question']}\n         {answer if verbose else answer[:90]}")
    return report


def main() -> None:
    """Trains or loads, exports, examines."""
    args = arguments()
    exams = args.exam or [HERE / "eval.jsonl"]
    if not args.exam_only:
        asked = guard(exams)
        params, tokenizer, shape = load(args.start) if args.start else train(args, asked)
        gguf_file.write(args.out, params, shape, tokenizer, merges_of(tokenizer))
    print(json.dumps(examine(args.out, [e for e in exams if e.exists()], args.verbose)))


if __name__ == "__main__":
    main()
