"""What a fact is, and how its short notation unfolds into many questions.

A fact names its questions in three ways: `do` (an action, base form: "join a
pool"), `about` (a thing: "the default port") and `ask` (whole questions). In all
of them `[a|b|]` means one of the alternatives; the empty one is allowed.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

_CHOICE = re.compile(r"\[([^\[\]]*)\]")

DO_FRAMES = tuple(
    line.strip()
    for line in """
    how do i {}|how can i {}|how would i {}|how to {}|how should i {}|how does one {}|how do you {}|how do we {}
    how could i {}|what command do i use to {}|which command do i need to {}|what do i type to {}
    what should i type to {}|what do i run to {}|what do i have to do to {}|what is the command to {}
    what's the command to {}|command to {}|i want to {}|i would like to {}|i'd like to {}|i need to {}
    i am trying to {}|tell me how to {}|show me how to {}|explain how to {}|can i {}|can you tell me how to {}
    is it possible to {}|is there a way to {}|is there a command to {}|help me {}|where do i {}|steps to {}
    what is the way to {}|best way to {}|what's the right way to {}|{}|i don't know how to {}|what must i enter to {}
    what are the steps to {}|which subcommand lets me {}|i wonder how to {}|any way to {}|does potluck let me {}
    we want to {}|what lets me {}|the command that lets me {}|quickest way to {}|what would i type to {}
    which command will {}|what is needed to {}|how am i supposed to {}|what has to be done to {}|how may i {}
    what do i do to {}|what do i do if i want to {}|what do i do when i need to {}|suppose i want to {}, what do i type
    to {}, what do i type|if i want to {}, which command is it|when i want to {}, what should i run|{}: which command|{}? how
    i'd love to {}|could i {}|would it be possible to {}|is there some way for me to {}|what would be the command to {}
    what's the line to enter to {}|with which command do i {}|by which command can i {}|using what do i {}|what's the trick to {}
    i'm looking for a way to {}|someone asked me to {}|my plan is to {}|what do people type to {}|what is it that lets me {}
    which words do i type to {}|what is the procedure to {}|i was told i can {}, how|how does someone {}|my goal is to {}
    now i want to {}, what's the command|i must {}|we need to {}|what's the easiest way to {}|how do people {}|gimme the command to {}
    need to {}|want to {}|trying to {}|wanna {}|how 2 {}|how can one {}|what's necessary to {}|the way to {}|in order to {} i type what
    let me {}|i intend to {}|which of the commands is there to {}|i'm going to {}, what do i enter|may i {}|allow me to {}
    i have to {}, how|what command is used to {}|am i able to {}|could you show me how to {}|how exactly do i {}
    """.replace("\n", "|").split("|")
    if line.strip()
)

ABOUT_FRAMES = tuple(
    line.strip()
    for line in """
    what is {}|what's {}|tell me about {}|explain {}|{}|what about {}|can you explain {}|i want to know about {}
    could you tell me {}|do you know {}|give me {}|describe {}|i have a question about {}|info on {}
    what do you know about {}|help with {}|question about {}|i need information about {}|what can you say about {}
    can you tell me about {}|i would like to know {}|what would be {}|i forgot {}|remind me of {}|what does {} mean|what does {} do|
    how does {} work|i read about {}, what is it|what exactly is {}|details on {}|what should i know about {}|{}, what is that|teach me about {}|say something about {}
    """.replace("\n", "|").split("|")
    if line.strip()
)


@dataclass(frozen=True)
class Fact:
    """One thing `guide` knows: its questions in short notation, and its answers."""

    id: str
    say: tuple[str, ...]
    do: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    weight: float = 1.0


def fact(
    name: str,
    say: list[str],
    do: list[str] | None = None,
    about: list[str] | None = None,
    ask: list[str] | None = None,
    weight: float = 1.0,
) -> Fact:
    """Builds a `Fact` from lists."""
    return Fact(name, tuple(say), tuple(do or ()), tuple(about or ()), tuple(ask or ()), weight)


def unfold(text: str) -> list[str]:
    """Every reading of `text`, with single spaces."""
    parts = _CHOICE.split(text)
    options = [p.split("|") if i % 2 else [p] for i, p in enumerate(parts)]
    return [" ".join("".join(pick).split()) for pick in itertools.product(*options)]


def cores(f: Fact) -> dict[str, list[str]]:
    """The unfolded actions, things and whole questions of a fact."""
    return {
        "do": [u for t in f.do for u in unfold(t)],
        "about": [u for t in f.about for u in unfold(t)],
        "ask": [u for t in f.ask for u in unfold(t)],
    }


def phrasings(f: Fact) -> set[str]:
    """All questions of a fact before random variation (see augment.py)."""
    found = cores(f)
    out = set(found["ask"])
    out.update(frame.format(core) for core in found["do"] for frame in DO_FRAMES)
    out.update(frame.format(core) for core in found["about"] for frame in ABOUT_FRAMES)
    return out
