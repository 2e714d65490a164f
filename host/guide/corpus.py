"""The whole text that `guide` learns from, and what proves that its exam is unseen.

    python corpus.py            prints how many facts and questions there are
    python corpus.py --sample   prints random pairs as training sees them
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
import sys
from pathlib import Path

import facts_api
import facts_models
import facts_node
import facts_pool
import facts_public
import fourth_api
import fourth_models
import fourth_node
import fourth_pool
import more_api
import more_node
import more_pool
import more_public
import more_third
import talk
from augment import Source
from fact import Fact, phrasings

WAVES = (
    more_node.MORE,
    more_api.MORE,
    more_pool.MORE,
    more_public.MORE,
    more_third.MORE,
    fourth_node.MORE,
    fourth_models.MORE,
    fourth_api.MORE,
    fourth_pool.MORE,
)


def widened(f: Fact) -> Fact:
    """`f` with the questions of the later waves added."""
    for wave in WAVES:
        do, ask = wave.get(f.id, ([], []))
        f = dataclasses.replace(f, do=f.do + tuple(do), ask=f.ask + tuple(ask))
    return f


FACTS: list[Fact] = [
    widened(f)
    for f in facts_node.FACTS + facts_models.FACTS + facts_api.FACTS + facts_pool.FACTS + facts_public.FACTS + talk.FACTS
]


def normal(text: str) -> str:
    """`text` in lower case with punctuation and white space taken out."""
    return re.sub(r"[\W_]+", "", text.lower())


def exam(path: Path) -> list[dict[str, object]]:
    """The questions of an exam file: objects with `question` and `key`."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def passes(answer: str, key: list[str | list[str]]) -> bool:
    """Whether `answer` holds every key; a list among the keys means any one of them."""
    text = answer.lower()
    groups = [[k] if isinstance(k, str) else k for k in key]
    return all(any(option.lower() in text for option in group) for group in groups)


def written() -> set[str]:
    """Every question the authors wrote or a frame unfolds to, normalised."""
    return {normal(q) for f in FACTS for q in phrasings(f)}


def main() -> None:
    """Prints statistics, or a sample."""
    ids = [f.id for f in FACTS]
    assert len(ids) == len(set(ids)), "fact ids must be unique"
    for wave in WAVES:
        assert set(wave) <= set(ids), f"unknown ids: {set(wave) - set(ids)}"
    if "--sample" in sys.argv:
        source = Source(FACTS, random.randrange(1 << 30))
        for _ in range(40):
            question, answer = source.pair()
            print(f"{question}\n    {answer}")
        return
    counts = {f.id: len(phrasings(f)) for f in FACTS}
    print(f"{len(FACTS)} facts, {sum(counts.values())} questions before variation")
    least = sorted(counts.items(), key=lambda item: item[1])[:8]
    print("fewest:", ", ".join(f"{k} {v}" for k, v in least))
    longest = max((len(s.split()), f.id) for f in FACTS for s in f.say)
    print("longest answer:", longest)


if __name__ == "__main__":
    main()
