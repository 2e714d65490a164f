"""What the official Ollama package expects of a server, asked of a running node."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

import jsonschema
import ollama
from checks import check, equal, eventually, main, raises, true

parser = argparse.ArgumentParser()
parser.add_argument("--url", required=True, help="a node that offers `guide`, `tiny` and `slow`")
parser.add_argument("--pulled", required=True, help="a model in the node's own store, which may be deleted")
parser.add_argument("--reference", required=True, help="what to pull")
ARGS = parser.parse_args()

CLIENT = ollama.Client(host=ARGS.url)
GUIDE, TINY, SLOW = "guide", "tiny", "slow"
QUESTION = [{"role": "user", "content": "How do I join a pool?"}]
GREEDY = {"temperature": 0, "num_predict": 48}


def bare(name: str | None) -> str:
    """A name without the tag that stands for none."""
    return (name or "").removesuffix(":latest")


def loaded() -> dict[str, Any]:
    """Models in memory by name."""
    return {bare(model.model): model for model in CLIENT.ps().models}


@check
def listing() -> None:
    """models are listed with size, digest and details"""
    models = {bare(model.model): model for model in CLIENT.list().models}
    true({GUIDE, TINY, SLOW} <= set(models), f"listed are {set(models)}")
    for name, model in models.items():
        true(model.size and model.size > 1000, f"size of {name}")
        true(model.modified_at is not None, f"time of {name}")
        true(model.details is not None, f"details of {name}")
    equal(models[TINY].details.family, "llama", "family")


@check
def showing() -> None:
    """a model is shown with its template, parameters and capabilities"""
    shown = CLIENT.show(TINY)
    equal(shown.modelinfo["general.architecture"], "llama", "architecture")
    equal(shown.modelinfo["llama.context_length"], 512, "context")
    true("messages" in (shown.template or ""), "template")
    true("completion" in shown.capabilities, f"capabilities {shown.capabilities}")
    equal(shown.details.family, "llama", "family")


@check
def chatting() -> None:
    """a streamed chat has the same text as a whole one, and both count alike"""
    whole = CLIENT.chat(GUIDE, QUESTION, options=GREEDY)
    true(whole.message.content.strip(), "the answer is empty")
    equal(whole.message.role, "assistant", "role")
    true(whole.done and whole.done_reason in ("stop", "length"), f"done_reason {whole.done_reason}")
    parts = list(CLIENT.chat(GUIDE, QUESTION, options=GREEDY, stream=True))
    equal("".join(part.message.content or "" for part in parts), whole.message.content, "text")
    equal([part.done for part in parts[:-1]], [False] * (len(parts) - 1), "done before the end")
    last = parts[-1]
    true(last.done, "the last part is not done")
    equal(last.eval_count, whole.eval_count, "eval_count")
    equal(last.prompt_eval_count, whole.prompt_eval_count, "prompt_eval_count")
    for name in ["total_duration", "load_duration", "prompt_eval_duration", "eval_duration"]:
        value = getattr(whole, name)
        true(isinstance(value, int) and value >= 0, f"{name} is {value!r}")
    true(whole.total_duration >= whole.eval_duration, "durations do not add up")


@check
def counting() -> None:
    """counts are the tokenizer's"""
    answer = CLIENT.chat(TINY, [{"role": "user", "content": "hello"}], options={"temperature": 0, "num_predict": 9})
    equal(answer.prompt_eval_count, 2 + len("u:hello|a:"), "prompt_eval_count of a chat")
    equal(answer.eval_count, 9, "eval_count")
    equal(answer.done_reason, "length", "done_reason")
    raw = CLIENT.generate(TINY, "hello", raw=True, options={"temperature": 0, "num_predict": 3})
    equal(raw.prompt_eval_count, 2 + len("hello"), "prompt_eval_count of a raw prompt")


@check
def generating() -> None:
    """generate answers whole and streamed, with template, system and raw"""
    whole = CLIENT.generate(GUIDE, "How do I join a pool?", options=GREEDY)
    true(whole.response.strip(), "the answer is empty")
    parts = list(CLIENT.generate(GUIDE, "How do I join a pool?", options=GREEDY, stream=True))
    equal("".join(part.response or "" for part in parts), whole.response, "text")
    true(parts[-1].done, "the last part is not done")
    short = {"temperature": 0, "num_predict": 1}
    templated = CLIENT.generate(TINY, "hello", options=short)
    equal(templated.prompt_eval_count, 2 + len("u:hello|a:"), "tokens with the template")
    led = CLIENT.generate(TINY, "hello", system="be kind", options=short)
    equal(led.prompt_eval_count, 2 + len("s:be kind|u:hello|a:"), "tokens with a system prompt")


@check
def options() -> None:
    """seed, num_predict and stop do what they say"""
    def drawn(seed: int) -> str:
        return CLIENT.generate(TINY, "x", options={"temperature": 1, "seed": seed, "num_predict": 40}).response

    equal(drawn(7), drawn(7), "text of seed 7")
    true(len({drawn(seed) for seed in range(1, 5)}) == 4, "four seeds give four texts")
    full = CLIENT.chat(GUIDE, QUESTION, options=GREEDY).message.content
    middle = full[len(full) // 2 : len(full) // 2 + 5]
    cut = CLIENT.chat(GUIDE, QUESTION, options={**GREEDY, "stop": [middle]})
    equal(cut.message.content, full[: full.index(middle)], "stopped text")
    equal(cut.done_reason, "stop", "done_reason")


@check
def formats() -> None:
    """format takes a schema, or asks for any JSON"""
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["colour", "count"],
        "additionalProperties": False,
    }
    for model in [GUIDE, TINY]:
        for seed in range(1, 4):
            answer = CLIENT.chat(model, QUESTION, format=schema,
                                 options={"temperature": 1, "seed": seed, "num_predict": 100})
            jsonschema.validate(json.loads(answer.message.content), schema)
    anything = CLIENT.chat(GUIDE, QUESTION, format="json", options={"temperature": 0, "num_predict": 200})
    if anything.done_reason == "stop":
        json.loads(anything.message.content)
    true(anything.message.content.lstrip()[:1] in ("{", "["), f"{anything.message.content!r} is no JSON")


@check
def keeping() -> None:
    """a used model is in memory until keep_alive says otherwise"""
    CLIENT.generate(TINY, "x", options={"num_predict": 1}, keep_alive="10m")
    model = loaded().get(TINY)
    true(model is not None, f"in memory are {set(loaded())}")
    true(model.size and model.expires_at is not None, "size or expiry is missing")
    CLIENT.generate(TINY, "x", options={"num_predict": 1}, keep_alive=0)
    eventually(5, lambda: TINY not in loaded(), "the model is still in memory after keep_alive 0")
    CLIENT.generate(TINY, keep_alive="10m")
    eventually(5, lambda: TINY in loaded(), "an empty prompt did not load the model")
    CLIENT.generate(TINY, keep_alive=0)
    eventually(5, lambda: TINY not in loaded(), "an empty prompt with keep_alive 0 did not unload it")


@check
def cancelling() -> None:
    """a stream that is left does not keep others waiting"""
    stream = CLIENT.generate(SLOW, "x", stream=True, options={"temperature": 0, "num_predict": 3000})
    for _, _part in zip(range(3), stream):
        pass
    stream.close()
    CLIENT.generate(SLOW, "x", options={"temperature": 0, "num_predict": 1}, keep_alive=0)
    eventually(5, lambda: SLOW not in loaded(), "the left stream still holds the model")


@check
def parallel() -> None:
    """16 streams at once each say what one alone says"""
    alone = CLIENT.chat(GUIDE, QUESTION, options=GREEDY).message.content

    async def streams() -> list[str]:
        client = ollama.AsyncClient(host=ARGS.url)

        async def one() -> str:
            stream = await client.chat(GUIDE, QUESTION, options=GREEDY, stream=True)
            return "".join([part.message.content or "" async for part in stream])

        return list(await asyncio.gather(*(one() for _ in range(16))))

    equal(set(asyncio.run(streams())), {alone}, "texts")


@check
def errors() -> None:
    """errors are ResponseErrors with a status and words"""
    for call in [
        lambda: CLIENT.chat("no-such-model", QUESTION),
        lambda: CLIENT.generate("no-such-model", "x"),
        lambda: CLIENT.show("no-such-model"),
        lambda: CLIENT.delete("no-such-model"),
        lambda: list(CLIENT.generate("no-such-model", "x", stream=True)),
    ]:
        error = raises(ollama.ResponseError, call)
        equal(error.status_code, 404, "status")
        true("no-such-model" in error.error, f"the message does not name the model: {error.error!r}")
    long = raises(ollama.ResponseError, lambda: CLIENT.generate(TINY, "x" * 600))
    equal(long.status_code, 400, "status of a prompt that is too long")
    for wrong in [{"temperature": -1}, {"num_predict": -7}, {"top_p": 5}]:
        error = raises(ollama.ResponseError, lambda wrong=wrong: CLIENT.generate(TINY, "x", options=wrong))
        equal(error.status_code, 400, f"status with {wrong}")


@check
def deleting_and_pulling() -> None:
    """a pulled model is deleted and pulled again; what does not exist fails with words"""
    names = lambda: {model.model for model in CLIENT.list().models} | {bare(m.model) for m in CLIENT.list().models}
    true(ARGS.pulled in names(), f"{ARGS.pulled} is not in {names()}")
    equal(CLIENT.delete(ARGS.pulled).status, "success", "status")
    true(ARGS.pulled not in names(), "it is still listed")
    steps = list(CLIENT.pull(ARGS.reference, stream=True))
    equal(steps[-1].status, "success", f"last step of {steps}")
    true(any(step.total and step.completed is not None for step in steps), "no step tells how far the pull is")
    true(ARGS.pulled in names(), "it is not listed after the pull")
    answer = CLIENT.generate(ARGS.pulled, "x", options={"num_predict": 2})
    equal(answer.eval_count, 2, "tokens of the pulled model")
    raises(ollama.ResponseError, lambda: CLIENT.pull("hf.co/nobody/nothing"))
    raises(ollama.ResponseError, lambda: list(CLIENT.pull("hf.co/nobody/nothing", stream=True)))
    raises(ollama.ResponseError, lambda: CLIENT.pull("not a reference at all"))
    raises(ollama.ResponseError, lambda: CLIENT.delete(GUIDE))


main()
