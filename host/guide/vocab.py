"""The tokenizer: byte-level BPE in the manner of GPT-2, and the chat layout."""

from __future__ import annotations

import random

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from augment import Source

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


def decisions(answers: dict[str, list[int]]) -> dict[str, int]:
    """For each answer, how many tokens it takes to tell it from every other."""
    out: dict[str, int] = {}
    for text, ids in answers.items():
        shared = 0
        for other_text, other in answers.items():
            if other_text != text:
                same = next((i for i, (a, b) in enumerate(zip(ids, other, strict=False)) if a != b), min(len(ids), len(other)))
                shared = max(shared, same)
        out[text] = shared + 1
    return out


class Layout:
    """Turns question and answer into token ids and a mask of what is to be learned."""

    def __init__(self, tokenizer: Tokenizer, answers: list[str], short: float) -> None:
        self.tokenizer = tokenizer
        self.short = short  # share of examples whose answer is cut, see `turn`
        self.decided = decisions({a: self.ids(a) for a in answers})
        self.user, self.assistant, self.system, self.end = (tokenizer.token_to_id(t) for t in SPECIAL)

    def ids(self, text: str) -> list[int]:
        """Ids of plain text; what looks like a special token in it stays text."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def turn(self, question: str, answer: str, cut: int | None = None) -> tuple[list[int], list[bool]]:
        """One question and its answer (or its first `cut` tokens); only the answer and its end are learned.

        Nearly all there is to learn lies in the few tokens up to where an answer
        differs from every other; the rest is recitation, learned soon. Showing
        most answers only that far lets the same time cover twice the questions.
        """
        head = [self.user, *self.ids(" " + question), self.end, self.assistant]
        tail = [*self.ids(answer), self.end][:cut]
        return head + tail, [False] * len(head) + [True] * len(tail)

    def blur(self, ids: list[int], learned: list[bool], rng: random.Random) -> None:
        """Replaces a few tokens of the question by arbitrary ones.

        Questions will hold words that training never showed. This teaches that
        such words are to be looked past, and that no single word decides alone.
        """
        for i, answer in enumerate(learned):
            if not answer and ids[i] >= len(SPECIAL) and rng.random() < 0.08:
                ids[i] = rng.randrange(len(SPECIAL), self.tokenizer.get_vocab_size())

    def example(self, source: Source, rng: random.Random) -> tuple[list[int], list[bool]]:
        """A conversation: mostly one turn, at times with a system prompt or an earlier turn."""
        ids: list[int] = []
        learned: list[bool] = []
        if rng.random() < 0.03:
            ids += [self.system, *self.ids(" " + rng.choice(SYSTEM_PROMPTS)), self.end]
            learned += [False] * len(ids)
        turns = 2 if rng.random() < 0.03 else 1
        for _ in range(turns):
            question, answer = source.pair()
            cut = self.decided[answer] + rng.randint(1, 3) if turns == 1 and rng.random() < self.short else None
            more, mask = self.turn(question, answer, cut)
            if rng.random() < 0.2:
                self.blur(more, mask, rng)
            ids += more
            learned += mask
        return ids, learned
