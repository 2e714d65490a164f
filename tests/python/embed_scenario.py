"""What the official OpenAI and Ollama packages expect of embeddings, and the vectors of another implementation."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import ollama
import openai
from checks import check, equal, main, raises, true

parser = argparse.ArgumentParser()
parser.add_argument("--url", required=True, help="a node with the embedder")
ARGS = parser.parse_args()

OPENAI = openai.OpenAI(base_url=f"{ARGS.url}/v1", api_key="none", max_retries=0, timeout=120)
OLLAMA = ollama.Client(host=ARGS.url, timeout=120)
# Computed in f64 from the same weights, with the tokenizer of the `tokenizers` package cut at 256 and not padded.
REFERENCE = json.loads(Path(__file__).with_name("minilm_reference.json").read_text("utf-8"))
TEXTS = [entry["text"] for entry in REFERENCE]
MODEL = "all-MiniLM-L6-v2"


def cosine(a: Any, b: Any) -> float:
    """The cosine of the angle between two vectors."""
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def same(vectors: Any) -> None:
    """Fails unless these are the reference's vectors."""
    equal(len(vectors), len(REFERENCE), "vectors")
    for got, wanted in zip(vectors, REFERENCE, strict=True):
        equal(len(got), 384, "dimensions")
        true(cosine(got, wanted["vector"]) > 1 - 1e-3, f"{wanted['text'][:30]!r}: {cosine(got, wanted['vector'])}")
        true(abs(sum(x * x for x in got) - 1) < 1e-4, "the length is not 1")


@check
def openai_vectors() -> None:
    """OpenAI's package gets the reference's vectors, as base64 (its default) and as floats"""
    for more in ({}, {"encoding_format": "float"}, {"dimensions": 384}):
        answer = OPENAI.embeddings.create(model=MODEL, input=TEXTS, extra_body={"truncate": True}, **more)
        same([item.embedding for item in answer.data])
        equal([item.index for item in answer.data], list(range(len(TEXTS))), "indices")
        equal(answer.model, MODEL, "model")
        tokens = sum(entry["tokens"] for entry in REFERENCE)
        equal((answer.usage.prompt_tokens, answer.usage.total_tokens), (tokens, tokens), "usage")


@check
def openai_one() -> None:
    """one text comes back as one vector, whatever the embedder is called"""
    for name in ("embedder", "all-minilm", "sentence-transformers/all-MiniLM-L6-v2", "embedder@local"):
        answer = OPENAI.embeddings.create(model=name, input=TEXTS[0])
        true(cosine(answer.data[0].embedding, REFERENCE[0]["vector"]) > 1 - 1e-3, name)


@check
def openai_refusals() -> None:
    """OpenAI's package gets its own errors"""
    long = raises(openai.BadRequestError, lambda: OPENAI.embeddings.create(model=MODEL, input="word " * 600))
    equal(long.code, "context_length_exceeded", "code")
    raises(openai.BadRequestError, lambda: OPENAI.embeddings.create(model=MODEL, input=""))
    raises(openai.BadRequestError, lambda: OPENAI.embeddings.create(model=MODEL, input=[101, 102]))
    raises(openai.BadRequestError, lambda: OPENAI.embeddings.create(model=MODEL, input="x", dimensions=64))
    raises(openai.BadRequestError, lambda: OPENAI.embeddings.create(model="guide", input="x"))
    raises(openai.NotFoundError, lambda: OPENAI.embeddings.create(model="text-embedding-3-small", input="x"))
    chat = [{"role": "user", "content": "Hi"}]
    raises(openai.BadRequestError, lambda: OPENAI.chat.completions.create(model=MODEL, messages=chat))


@check
def ollama_vectors() -> None:
    """Ollama's package gets the reference's vectors"""
    answer = OLLAMA.embed(model="all-minilm", input=TEXTS)
    same(answer.embeddings)
    equal(answer.prompt_eval_count, sum(entry["tokens"] for entry in REFERENCE), "tokens")
    true(answer.total_duration > 0, "no time was taken")
    one = OLLAMA.embed(model="all-minilm:latest", input=TEXTS[0], keep_alive="5m", options={"num_ctx": 256})
    true(cosine(one.embeddings[0], REFERENCE[0]["vector"]) > 1 - 1e-3, "another vector")
    old = OLLAMA.embeddings(model="embedder", prompt=TEXTS[0])
    true(cosine(old.embedding, REFERENCE[0]["vector"]) > 1 - 1e-3, "another vector")


@check
def ollama_details() -> None:
    """Ollama's package cuts unless told not to, lists the model and shows what it is for"""
    raises(ollama.ResponseError, lambda: OLLAMA.embed(model=MODEL, input="word " * 600, truncate=False))
    equal(len(OLLAMA.embed(model=MODEL, input="word " * 600).embeddings), 1, "vectors")
    equal(len(OLLAMA.embed(model=MODEL, input="x", dimensions=64).embeddings[0]), 64, "dimensions")
    true("embedder" in [model.model for model in OLLAMA.list().models], "it is not listed")
    true("embedding" in (OLLAMA.show("embedder").capabilities or []), "no capability")
    equal(OLLAMA.embed(model=MODEL, input="").embeddings, [], "no text")
    true("embedder" in [model.model for model in OLLAMA.ps().models], "it is not loaded")
    OLLAMA.embed(model=MODEL, input="", keep_alive=0)
    true("embedder" not in [model.model for model in OLLAMA.ps().models], "it is still loaded")


main()
