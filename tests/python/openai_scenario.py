"""What the official OpenAI package expects of a server, asked of a running node."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import urllib.request
from typing import Any

import jsonschema
import openai
from checks import check, equal, eventually, main, raises, true

parser = argparse.ArgumentParser()
parser.add_argument("--url", required=True, help="a node that offers `guide`, `tiny` and `slow`")
parser.add_argument("--keyed", required=True, help="a node that needs the key")
parser.add_argument("--key", required=True)
parser.add_argument("--narrow", required=True, help="a node that answers one request and queues one")
ARGS = parser.parse_args()

CLIENT = openai.OpenAI(base_url=f"{ARGS.url}/v1", api_key="none", max_retries=0, timeout=120)
GUIDE, TINY, SLOW = "guide", "tiny", "slow"
QUESTION = [{"role": "user", "content": "How do I join a pool?"}]


def chat(**more: Any) -> Any:
    """A chat completion of the guide at temperature 0, with changes."""
    wanted = {"model": GUIDE, "messages": QUESTION, "temperature": 0, "max_tokens": 64}
    return CLIENT.chat.completions.create(**{**wanted, **more})


def text_of(stream: Any) -> str:
    """All text of a chat stream."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def in_flight(url: str = ARGS.url) -> int:
    """Requests that the node counts as running or waiting."""
    with urllib.request.urlopen(f"{url}/potluck/v1/status", timeout=10) as answer:
        status = json.load(answer)
    return status["active"] + status["queued"]


def counted(text: str) -> int:
    """Tokens that the vocabulary of `tiny` makes of ASCII: one for the start, one for the space, one each."""
    return 2 + len(text)


def token(character: str) -> int:
    """The id of a printable character in the vocabulary of `tiny`."""
    return 260 + ord(character) - ord("!")


@check
def models() -> None:
    """models are listed, and one is retrieved"""
    listed = CLIENT.models.list().data
    names = {model.id for model in listed}
    true({GUIDE, TINY, SLOW} <= names, f"listed are {names}")
    true(all(model.object == "model" and model.created >= 0 for model in listed), "their fields")
    equal(CLIENT.models.retrieve(GUIDE).id, GUIDE)
    error = raises(openai.NotFoundError, lambda: CLIENT.models.retrieve("no-such-model"))
    equal(error.code, "model_not_found", "code")


@check
def stream_is_whole() -> None:
    """a streamed chat has the same text as a whole one"""
    whole = chat()
    equal(whole.object, "chat.completion", "object")
    equal(whole.choices[0].message.role, "assistant", "role")
    text = whole.choices[0].message.content
    true(text.strip(), "the answer is empty")
    chunks = list(chat(stream=True))
    true(len(chunks) > 2, f"{len(chunks)} chunks are no stream")
    equal(chunks[0].choices[0].delta.role, "assistant", "first role")
    equal({chunk.id for chunk in chunks}, {chunks[0].id}, "ids of one stream")
    equal({chunk.object for chunk in chunks}, {"chat.completion.chunk"}, "objects")
    equal(text_of(chunks), text, "text")
    ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    equal(ends, [whole.choices[0].finish_reason], "finish reasons")
    true(all(chunk.usage is None for chunk in chunks), "usage came unasked")
    random = {"model": TINY, "temperature": 1, "seed": 5, "max_tokens": 200}
    equal(text_of(chat(stream=True, **random)), chat(**random).choices[0].message.content, "text of random bytes")


@check
def usage_is_exact() -> None:
    """usage is what the tokenizer counts"""
    for content in ["hi", "What is this?", "x" * 100]:
        rendered = f"u:{content}|a:"
        answer = chat(model=TINY, messages=[{"role": "user", "content": content}], max_tokens=9, logprobs=True)
        usage = answer.usage
        equal(usage.prompt_tokens, counted(rendered), f"prompt tokens of {rendered!r}")
        equal(answer.choices[0].finish_reason, "length", "finish reason")
        equal(usage.completion_tokens, 9, "completion tokens")
        equal(len(answer.choices[0].logprobs.content), 9, "tokens with log-probabilities")
        equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total")
    ids = [1, 259, 70, 71, 72, 73]
    answer = CLIENT.completions.create(model=TINY, prompt=ids, max_tokens=3, temperature=0)
    equal(answer.usage.prompt_tokens, len(ids), "prompt tokens of ids")
    chunks = list(chat(stream=True, stream_options={"include_usage": True}, logprobs=True))
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    equal(len(usages), 1, "chunks with usage")
    true(not chunks[-1].choices and chunks[-1].usage, "usage comes in a last chunk without choices")
    whole = chat(logprobs=True)
    equal(usages[0].prompt_tokens, whole.usage.prompt_tokens, "prompt tokens of stream and whole")
    equal(usages[0].completion_tokens, whole.usage.completion_tokens, "completion tokens of stream and whole")
    streamed = sum(len(c.choices[0].logprobs.content or []) for c in chunks if c.choices and c.choices[0].logprobs)
    shown = len(whole.choices[0].logprobs.content)
    equal(streamed, shown, "tokens shown by stream and whole")
    ending = 1 if whole.choices[0].finish_reason == "stop" else 0
    true(whole.usage.completion_tokens in (shown, shown + ending), f"{whole.usage} for {shown} tokens shown")


@check
def token_limits() -> None:
    """max_tokens and max_completion_tokens are kept, one token included"""
    for limit in [1, 2, 7]:
        for name in ["max_tokens", "max_completion_tokens"]:
            answer = CLIENT.chat.completions.create(model=TINY, messages=QUESTION, temperature=0, **{name: limit})
            equal(answer.usage.completion_tokens, limit, name)
            equal(answer.choices[0].finish_reason, "length", "finish reason")


@check
def stop_sequences() -> None:
    """an answer ends before a stop sequence, given as text or list, whole or streamed"""
    full = chat().choices[0].message.content
    middle = full[len(full) // 2 : len(full) // 2 + 5]
    wanted = full[: full.index(middle)]
    for stop in [middle, [middle], ["never seen here", middle]]:
        answer = chat(stop=stop)
        equal(answer.choices[0].message.content, wanted, f"text with stop {stop!r}")
        equal(answer.choices[0].finish_reason, "stop", "finish reason")
        equal(text_of(chat(stop=stop, stream=True)), wanted, f"streamed text with stop {stop!r}")
    equal(chat(stop=["never seen here"]).choices[0].message.content, full, "text with a stop that never comes")


@check
def seeds() -> None:
    """the same seed gives the same text, another seed another one"""
    def drawn(seed: int) -> str:
        return chat(model=TINY, temperature=1, seed=seed, max_tokens=40).choices[0].message.content

    equal(drawn(7), drawn(7), "text of seed 7")
    true(len({drawn(seed) for seed in range(4)}) == 4, "four seeds give four texts")
    true(chat(model=TINY, temperature=1, max_tokens=40).choices[0].message.content
         != chat(model=TINY, temperature=1, max_tokens=40).choices[0].message.content, "without a seed texts differ")


@check
def sampling_parameters() -> None:
    """top_p, penalties and logit_bias change what is drawn"""
    greedy = chat(model=TINY, max_tokens=40).choices[0].message.content
    narrow = chat(model=TINY, max_tokens=40, temperature=1.5, top_p=1e-9).choices[0].message.content
    equal(narrow, greedy, "text with the smallest top_p")
    punished = chat(model=TINY, max_tokens=40, frequency_penalty=2, presence_penalty=2)
    true(punished.choices[0].message.content != greedy, "penalties change nothing")
    pushed = chat(model=TINY, max_tokens=10, logit_bias={str(token("Z")): 100})
    equal(pushed.choices[0].message.content, "Z" * 10, "text with a bias towards Z")
    barred = chat(model=TINY, max_tokens=10, temperature=1, seed=1, logit_bias={str(token("Z")): 100, "0": -100})
    equal(barred.choices[0].message.content, "Z" * 10, "drawn text with a bias towards Z")


@check
def log_probabilities() -> None:
    """log-probabilities are of the tokens shown, sorted, and the greedy token is the likeliest"""
    answer = chat(logprobs=True, top_logprobs=3).choices[0]
    entries = answer.logprobs.content
    shown = b"".join(bytes(entry.bytes) for entry in entries).decode()
    true(shown.startswith(answer.message.content.strip()) or answer.message.content in shown,
         f"{shown!r} is not {answer.message.content!r}")
    for entry in entries:
        true(math.isfinite(entry.logprob) and entry.logprob <= 1e-4, f"{entry.logprob} is no log-probability")
        values = [top.logprob for top in entry.top_logprobs]
        equal(len(values), 3, "alternatives")
        equal(values, sorted(values, reverse=True), "order")
        true(abs(values[0] - entry.logprob) < 1e-3, "the greedy token is not the likeliest")
        true(sum(math.exp(value) for value in values) <= 1.001, "probabilities add up to more than one")
    true(chat().choices[0].logprobs is None, "log-probabilities came unasked")


PERSON = {
    "type": "object",
    "properties": {
        "kind": {"type": "string", "enum": ["cat", "dog", "owl"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "tame": {"type": "boolean"},
        "legs": {"type": "array", "items": {"enum": [2, 4]}, "minItems": 1, "maxItems": 2},
    },
    "required": ["kind", "age", "tame", "legs"],
    "additionalProperties": False,
}


@check
def json_schema() -> None:
    """an answer under a schema is one that the schema accepts, whatever the model would rather say"""
    for model in [GUIDE, TINY]:
        for seed in range(4):
            wanted = {"name": "animal", "strict": True, "schema": PERSON}
            more = {"response_format": {"type": "json_schema", "json_schema": wanted}, "max_tokens": 200}
            answer = chat(model=model, temperature=1, seed=seed, **more).choices[0]
            equal(answer.finish_reason, "stop", f"finish reason of {answer.message.content!r}")
            jsonschema.validate(json.loads(answer.message.content), PERSON)
            equal(text_of(chat(model=model, temperature=1, seed=seed, stream=True, **more)),
                  answer.message.content, "streamed text")


@check
def json_object() -> None:
    """an answer in JSON mode parses when it is finished"""
    finished = 0
    for seed in range(8):
        # A model that knows no JSON likes to open more than it closes; a push towards the ends helps it.
        bias = {str(token(end)): 2 + seed % 4 for end in '"}]'}
        answer = chat(model=TINY, temperature=1, seed=seed, max_tokens=300, logit_bias=bias,
                      response_format={"type": "json_object"}).choices[0]
        text = answer.message.content
        true(text.lstrip().startswith("{"), f"{text[:20]!r} is no object")
        if answer.finish_reason == "stop":
            finished += 1
            true(isinstance(json.loads(text), dict), "it is no object")
    true(finished > 0, "no answer in JSON mode came to its end")
    guide = chat(max_tokens=40, response_format={"type": "json_object"}).choices[0]
    true(guide.message.content.lstrip().startswith("{"), f"{guide.message.content!r} is no object")


@check
def choices() -> None:
    """n gives that many answers"""
    answer = chat(model=TINY, n=2, temperature=1, seed=3, max_tokens=20)
    equal([choice.index for choice in answer.choices], [0, 1], "indices")
    true(answer.choices[0].message.content != answer.choices[1].message.content, "both are the same")
    equal(answer.usage.completion_tokens, 40, "completion tokens of both")
    chunks = list(chat(model=TINY, n=2, temperature=1, seed=3, max_tokens=20, stream=True))
    for index in [0, 1]:
        parts = [c.choices[0].delta.content or "" for c in chunks if c.choices and c.choices[0].index == index]
        equal("".join(parts), answer.choices[index].message.content, f"streamed choice {index}")


@check
def completions() -> None:
    """the completions endpoint: echo, stop, lists of prompts, streaming, log-probabilities"""
    plain = CLIENT.completions.create(model=TINY, prompt="abc", max_tokens=12, temperature=0)
    equal(plain.object, "text_completion", "object")
    equal(plain.usage.prompt_tokens, counted("abc"), "prompt tokens")
    text = plain.choices[0].text
    echoed = CLIENT.completions.create(model=TINY, prompt="abc", max_tokens=12, temperature=0, echo=True)
    equal(echoed.choices[0].text, "abc" + text, "echoed text")
    stream = CLIENT.completions.create(model=TINY, prompt="abc", max_tokens=12, temperature=0, stream=True)
    equal("".join(chunk.choices[0].text for chunk in stream if chunk.choices), text, "streamed text")
    two = CLIENT.completions.create(model=TINY, prompt=["abc", "xyz"], max_tokens=12, temperature=0)
    equal([choice.index for choice in two.choices], [0, 1], "indices of two prompts")
    equal(two.choices[0].text, text, "text of the first of two prompts")
    equal(two.usage.prompt_tokens, 2 * counted("abc"), "prompt tokens of two prompts")
    scored = CLIENT.completions.create(model=TINY, prompt="abc", max_tokens=5, temperature=0, logprobs=2)
    equal(len(scored.choices[0].logprobs.token_logprobs), 5, "log-probabilities")
    full = CLIENT.completions.create(model=GUIDE, prompt="How do I join", max_tokens=40, temperature=0).choices[0].text
    if len(full) > 8:
        stop = full[4:7]
        cut = CLIENT.completions.create(model=GUIDE, prompt="How do I join", max_tokens=40, temperature=0, stop=stop)
        equal(cut.choices[0].text, full[: full.index(stop)], "stopped text")


@check
def messages() -> None:
    """system messages, several turns and content in parts reach the model"""
    def tokens(turns: list[dict[str, Any]]) -> int:
        return chat(model=TINY, messages=turns, max_tokens=1).usage.prompt_tokens

    turns = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "bye"},
    ]
    equal(tokens(turns), counted("s:be kind|u:hello|a:hi|u:bye|a:"), "tokens of four turns")
    parts = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    equal(tokens(parts), counted("u:hello|a:"), "tokens of a content in parts")


@check
def errors() -> None:
    """errors are of the package's classes, with codes"""
    error = raises(openai.NotFoundError, lambda: chat(model="no-such-model"))
    equal(error.code, "model_not_found", "code")
    error = raises(openai.BadRequestError, lambda: chat(model=TINY, messages=[{"role": "user", "content": "x" * 600}]))
    equal(error.code, "context_length_exceeded", "code")
    true("512" in error.message and "6" in error.message, f"needed and available tokens are not in {error.message!r}")
    for wrong in [{"temperature": -1}, {"temperature": "hot"}, {"max_tokens": -5}, {"max_tokens": 0}, {"top_p": 2},
                  {"n": 0}, {"n": 10_000}, {"messages": []}, {"messages": [{"role": "user"}]}, {"stop": 5},
                  {"top_logprobs": 500, "logprobs": True}, {"frequency_penalty": 99},
                  {"response_format": {"type": "nonsense"}},
                  {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 7}}}}]:
        error = raises(openai.BadRequestError, lambda wrong=wrong: chat(**wrong))
        true(error.message and error.type, f"no message or type for {wrong}")
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    raises(openai.BadRequestError, lambda: chat(messages=picture))


@check
def keys() -> None:
    """a node that needs a key tells so"""
    def client(key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{ARGS.keyed}/v1", api_key=key, max_retries=0, timeout=30)

    error = raises(openai.AuthenticationError, lambda: client("not-the-key").models.list())
    equal(error.status_code, 401, "status")
    true(error.message, "the refusal says nothing")
    names = [model.id for model in client(ARGS.key).models.list().data]
    true(GUIDE in names, f"listed are {names}")


@check
def full_queue() -> None:
    """a full queue is a RateLimitError with a time to wait, and passes"""
    async def many() -> tuple[int, list[openai.RateLimitError]]:
        async with openai.AsyncOpenAI(base_url=f"{ARGS.narrow}/v1", api_key="none", max_retries=0, timeout=120) as client:
            def one() -> Any:
                return client.chat.completions.create(model=SLOW, messages=QUESTION, temperature=0, max_tokens=150)

            ends = await asyncio.gather(*(one() for _ in range(6)), return_exceptions=True)
        refused = [end for end in ends if isinstance(end, openai.RateLimitError)]
        other = [end for end in ends if isinstance(end, BaseException) and end not in refused]
        true(not other, f"other errors: {other!r}")
        return len(ends) - len(refused), refused

    answered, refused = asyncio.run(many())
    true(refused and answered >= 2, f"{answered} answered, {len(refused)} refused")
    for error in refused:
        true(int(error.response.headers["retry-after"]) >= 1, "Retry-After is not a number of seconds")
        true(error.type, f"no type in {error.body}")
    patient = openai.OpenAI(base_url=f"{ARGS.narrow}/v1", api_key="none", max_retries=5, timeout=120)
    patient.chat.completions.create(model=TINY, messages=QUESTION, max_tokens=2)


@check
def parallel_streams() -> None:
    """16 streams at once each say what one alone says"""
    alone = chat(max_tokens=40).choices[0].message.content

    async def streams() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{ARGS.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
            async def one() -> str:
                stream = await client.chat.completions.create(
                    model=GUIDE, messages=QUESTION, temperature=0, max_tokens=40, stream=True)
                return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

            return list(await asyncio.gather(*(one() for _ in range(16))))

    texts = asyncio.run(streams())
    equal(len(texts), 16, "answers")
    equal(set(texts), {alone}, "texts")
    eventually(2, lambda: in_flight() == 0, "slots are not free after 16 streams")


@check
def cancelled_stream() -> None:
    """a cancelled stream frees its slot within a second"""
    stream = chat(model=SLOW, stream=True, max_tokens=2000)
    for _, _chunk in zip(range(3), stream):
        pass
    true(in_flight() >= 1, "the node does not count a running stream")
    stream.close()
    eventually(1, lambda: in_flight() == 0, "the slot is still taken a second after the stream was closed")
    hasty = openai.OpenAI(base_url=f"{ARGS.url}/v1", api_key="none", max_retries=0, timeout=0.3)
    raises(openai.APITimeoutError, lambda: hasty.chat.completions.create(
        model=SLOW, messages=QUESTION, temperature=0, max_tokens=2000))
    eventually(1, lambda: in_flight() == 0, "the slot is still taken a second after the client gave up")


@check
def modes() -> None:
    """mode and node are named on every reply, and a mode that is not there is refused"""
    raw = CLIENT.chat.completions.with_raw_response.create(model=f"{GUIDE}@local", messages=QUESTION, max_tokens=2)
    equal(raw.headers["x-potluck-mode"], "local", "mode")
    true(raw.headers["x-potluck-node"], "the node has no name")
    for ask in [lambda: chat(model=f"{GUIDE}@public"), lambda: chat(extra_headers={"x-potluck-mode": "trusted"})]:
        error = raises(openai.APIStatusError, ask)
        true(400 <= error.status_code < 600 and error.message, "a mode without a pool is refused with words")
    raises(openai.BadRequestError, lambda: chat(extra_headers={"x-potluck-mode": "nonsense"}))


main()
