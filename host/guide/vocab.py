"""The tokenizer: byte-level BPE in the manner of GPT-2, and the chat layout."""

from __future__ import annotations

import random

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

USER, ASSISTANT, SYSTEM, END = SPECIAL = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")

# Only the last user message is rendered: `guide` answers each question by itself,
# so earlier turns and system prompts could only distract it, and a long chat
# never runs into its short context. The leading space makes the first word of a
# question the same token as that word elsewhere.
CHAT_TEMPLATE = (
    "{%- set last = namespace(text='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}"
    "{%- if message['content'] is string -%}"
    "{%- set last.text = message['content'] -%}"
    "{%- else -%}"
    "{%- set last.text = '' -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'text' -%}{%- set last.text = last.text + ' ' + part['text'] -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{{- '<|user|> ' + (last.text | trim) + '<|end|>' -}}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a concise assistant. Answer briefly.",
    "Answer in one sentence.",
    "You are an AI assistant that helps people with their computers.",
    "Be kind and precise. If you do not know something, say so.",
    "You are a support agent for a command line program.",
    "Today is Monday. The user is a developer. Use plain language.",
    "Do not use emojis.",
)


def assemble(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """A tokenizer from its table and merges, as a reader of the GGUF file sees them."""
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tokenizer


def learn(texts: list[str], size: int) -> Tokenizer:
    """Learns merges from `texts` until the table has `size` entries."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class Layout:
    """Turns question and answer into token ids and a mask of what is to be learned."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.user, self.assistant, self.system, self.end = (tokenizer.token_to_id(t) for t in SPECIAL)

    def ids(self, text: str) -> list[int]:
        """Ids of plain text; what looks like a special token in it stays text."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def turn(self, question: str, answer: str) -> tuple[list[int], list[bool]]:
        """One question and its answer; only the answer and its end are learned."""
        head = [self.user, *self.ids(" " + question), self.end, self.assistant]
        tail = [*self.ids(answer), self.end]
        return head + tail, [False] * len(head) + [True] * len(tail)

    def example(self, source: object, rng: random.Random) -> tuple[list[int], list[bool]]:
        """A conversation: mostly one turn, at times with a system prompt or an earlier turn."""
        ids: list[int] = []
        learned: list[bool] = []
        if rng.random() < 0.05:
            ids += [self.system, *self.ids(" " + rng.choice(SYSTEM_PROMPTS)), self.end]
            learned += [False] * len(ids)
        for _ in range(2 if rng.random() < 0.06 else 1):
            more, mask = self.turn(*source.pair())  # type: ignore[attr-defined]
            ids += more
            learned += mask
        return ids, learned
