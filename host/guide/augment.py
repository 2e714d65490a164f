"""Random variation of questions, drawn afresh for every training step.

The network has no knowledge of English beyond what it reads here, so the ways in
which people differ (synonyms, politeness, haste, typing errors, chatter around
the point) are all made explicit.
"""

from __future__ import annotations

import random
import re

from fact import ABOUT_FRAMES, DO_FRAMES, Fact, cores
from synonyms import LINES
from talk import REFUSAL

_LOOKUP: dict[str, list[str]] = {line.split("|")[0]: line.split("|")[1:] for line in LINES}
_PATTERN = re.compile(r"\b(" + "|".join(sorted(map(re.escape, _LOOKUP), key=len, reverse=True)) + r")\b")

PREFIXES = [
    p.strip()
    for p in """hi,|hello,|hey,|hi!|hello!|hey guide,|hi guide,|please,|please tell me:|ok,|so,|ok so|well,|quick question:|question:|sorry,
    excuse me,|i am new here,|i'm new to this.|newbie here:|i just installed it.|one more thing:|and|also,|now|but|dear guide,|good morning,|good evening,
    hey there,|can you help?|i need help.|hmm,|just wondering,|i was wondering,|could you tell me,|tell me,|say,|um,|help!|a question:|another question:
    with potluck,|in potluck,|using potluck,|for potluck:|potluck:|i am on linux,|on my mac,|i'm stuck:|my boss asks:|dumb question:|silly question but
    tell me please,|do you know|any idea|can you tell me|i'd like to know|please explain|next question:|next,|oh and|what i want to know is|hey, quick one:""".replace("\n", "|").split("|")
]
SUFFIXES = [
    s.strip()
    for s in """please|thanks|in potluck|with potluck|please?|here|now|exactly|then|for me|, please|, thanks|, thank you|on my machine|on linux
    quickly|again|today|on this machine|at home|from the terminal|on the command line|if possible|, i forgot|, any idea|by the way|really|at all|actually
    for a test|right now|, can you help|in short|with this thing|with this program|, do you know|, tell me|on a mac|for the first time|as a beginner|, asap""".replace("\n", "|").split("|")
]
# Sentences before the question that say nothing about which fact is asked for.
SETTINGS = [
    s.strip()
    for s in """i have a laptop with linux.|we are a small team.|i bought a new machine yesterday.|my friend told me about potluck.|i read the readme.|i am a beginner.|i'm a developer.
    this may sound silly.|i could not find it in the docs.|my boss wants to know.|i have been trying for an hour.|it is late and i'm tired.|i work at a school.|we use debian here.|my node is running.|i have two computers.
    i looked everywhere.|i hope you can help.|i asked my colleague but he did not know.|i just want a short answer.|sorry for the basic question.|i'm writing a script.|i use it at work.|i've been using it for a week.
    i'm setting things up for my family.|there must be a way.|i forgot what it was.|someone showed me once.|i am on a mac.|i have no experience with this.|nobody could tell me.|let me ask something.""".replace("\n", "|").split("|")
]
CHATTER = "just really actually simply maybe quickly easily properly somehow always usually also only even ever then basically kindly best exactly again today still".split()
LIGHT = set("how do i the a an to my is can what does of it in with for you me on are this that please which command would should type use one".split())
STOP = LIGHT | set("tell show want like need know there way am be have has if when where who why up could might will".split())
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# A question salted with words that mean nothing here must not count as off-topic
# only because of them, and a heap of such words must not look like a fact.
NOISE = "garden kitchen monday winter orange river teacher silver window purple doctor street music summer uncle table festival bicycle pencil lemon forest castle weekend office school project customer budget".split()


def synonyms(rng: random.Random, text: str, chance: float) -> str:
    """Replaces some words of `text` by others that mean the same."""

    def swap(m: re.Match[str]) -> str:
        return rng.choice(_LOOKUP[m.group(1)]) if rng.random() < chance else m.group(1)

    return _PATTERN.sub(swap, text)


def typo(rng: random.Random, word: str) -> str:
    """One typing error in `word`: a letter lost, doubled, swapped or replaced."""
    if len(word) < 4 or not word.isalpha():
        return word
    i = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:i] + word[i + 1 :]
    if kind == 1:
        return word[:i] + word[i] + word[i:]
    if kind == 2:
        return word[: i - 1] + word[i] + word[i - 1] + word[i + 1 :] if i > 1 else word[0] + word[2] + word[1] + word[3:]
    return word[:i] + rng.choice(LETTERS) + word[i + 1 :]


def roughen(rng: random.Random, text: str) -> str:
    """Drops light words, adds chatter, and makes typing errors."""
    words = text.split()
    if len(words) > 4 and rng.random() < 0.25:
        kept = [w for w in words if w not in LIGHT or rng.random() > 0.25]
        words = kept if len(kept) >= 2 else words
    if len(words) > 4 and rng.random() < 0.15:
        words.pop(rng.randrange(len(words)))
    if len(words) > 3 and rng.random() < 0.06:
        words.insert(rng.randrange(1, len(words)), rng.choice(NOISE))
    if len(words) > 2 and rng.random() < 0.12:
        words.insert(rng.randrange(1, len(words)), rng.choice(CHATTER))
    if rng.random() < 0.14:
        i = rng.randrange(len(words))
        words[i] = typo(rng, words[i])
    return " ".join(words)


def case(rng: random.Random, text: str) -> str:
    """Writes the question as people do: sentence, lower case, rarely shouting."""
    draw = rng.random()
    if draw < 0.55:
        text = text[:1].upper() + text[1:]
        text = re.sub(r"\bi\b", "I", text)
        for name in ("potluck", "ollama", "openai"):
            text = re.sub(rf"(?<![`\w]){name}\b", {"potluck": "Potluck", "ollama": "Ollama", "openai": "OpenAI"}[name], text)
        for name in ("api", "gpu", "cpu", "json", "mcp", "gguf", "http", "sdk", "nat", "wasm"):
            text = re.sub(rf"\b{name}(s?)\b", name.upper() + r"\1", text)
    elif draw < 0.58:
        text = text.upper()
    return text


class Source:
    """Draws (question, answer) pairs for training."""

    def __init__(self, facts: list[Fact], seed: int) -> None:
        self.rng = random.Random(seed)
        self.facts = facts
        self.cores = [cores(f) for f in facts]
        self.weights = [f.weight for f in facts]

    def plain(self, index: int) -> str:
        """A question on fact `index`, as its author wrote it."""
        rng, found = self.rng, self.cores[index]
        # Square roots: a fact with one thousand readings of one kind should not drown its others.
        kinds = [k for k in found if found[k]]
        kind = rng.choices(kinds, [{"do": 1.6, "about": 0.7, "ask": 1.0}[k] * len(found[k]) ** 0.5 for k in kinds])[0]
        core = rng.choice(found[kind])
        if kind == "ask":
            return core
        if kind == "do":
            if rng.random() < 0.08:
                words = [w for w in core.split() if w not in STOP] or core.split()
                return " ".join(words) + rng.choice(["", "", " command", " how", " potluck"])
            return rng.choice(DO_FRAMES).format(core)
        return rng.choice(ABOUT_FRAMES).format(core)

    def pair(self) -> tuple[str, str]:
        """A varied question and its answer."""
        rng = self.rng
        if rng.random() < 0.012:
            return " ".join(rng.choices(NOISE, k=rng.randint(1, 6))), REFUSAL
        index = rng.choices(range(len(self.facts)), self.weights)[0]
        fact = self.facts[index]
        text = self.plain(index)
        if rng.random() < 0.7:
            text = synonyms(rng, text, 0.3)
        text = roughen(rng, text)
        social = fact.id in ("hello", "thanks", "bye")
        if not social and rng.random() < 0.2:
            text = f"{rng.choice(PREFIXES)} {text}"
        if not social and rng.random() < 0.06:
            text = f"{rng.choice(SETTINGS)} {text}"
        if not social and rng.random() < 0.14:
            suffix = rng.choice(SUFFIXES)
            text = text + suffix if suffix.startswith(",") else f"{text} {suffix}"
        mark = rng.choices(["?", "", ".", "??", "!", " ?"], [0.5, 0.36, 0.06, 0.02, 0.04, 0.02])[0]
        text = case(rng, " ".join(text.split())) + ("" if text.endswith(("?", "!", ".")) else mark)
        return text, rng.choice(fact.say)
