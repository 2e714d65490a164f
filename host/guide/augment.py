"""Random variation of questions, drawn afresh for every training step.

The network has no knowledge of English beyond what it reads here, so the ways in
which people differ (synonyms, politeness, haste, typing errors, chatter around
the point) are all made explicit.
"""

from __future__ import annotations

import random
import re

from fact import ABOUT_FRAMES, DO_FRAMES, Fact, cores
from talk import REFUSAL

# Words that may stand for each other wherever they occur. Words whose change
# would turn one fact into another (stop a model, stop the node) stay out.
SYNONYMS: list[list[str]] = [
    s.split("|")
    for s in """machine|computer|pc|box|laptop|server|device|workstation|desktop
    machines|computers|pcs|boxes|laptops|servers|devices
    friend|colleague|buddy|mate|coworker|brother|flatmate|neighbour|team mate|pal|sister
    friends|colleagues|buddies|mates|coworkers|team mates|family|pals
    friend's|colleague's|buddy's|mate's|brother's|flatmate's|coworker's|sister's|neighbour's
    delete|remove|erase|get rid of|throw away|wipe
    show|display|view|see|print|look at
    list|show|display|enumerate|print|see
    download|fetch|get|grab|obtain|pull
    start|launch|fire up|boot|kick off|begin
    create|make|set up|build|establish|open
    change|alter|modify|adjust|set|edit
    find out|learn|know|discover|see|check|figure out
    check|verify|see|test|look up|inspect
    use|employ|work with|make use of|try
    install|set up|put
    choose|pick|select|specify|decide on
    query|question
    command|command line|subcommand|cli command
    folder|directory|dir|place|location
    supported|accepted|allowed|understood|possible
    someone|somebody|a person|another person|anyone
    send|give|pass|submit
    another|a different|some other|a second
    several|many|multiple|lots of|a few
    stored|kept|saved|written|put
    answer|reply|response
    answers|replies|responses
    answered|replied|responded
    join|enter|get into|become part of|connect to|hop into
    invite|invitation|invite code|invite link|invite string
    members|peers|participants|people
    member|peer|participant
    error|failure|problem|message
    speed|performance
    fast|quick|speedy
    big|large|huge
    gpu|graphics card|video card|gpus
    limit|cap|restrict|bound
    required|needed|necessary|mandatory
    need|require|have to have
    default|standard|preset|normal|usual
    connect|hook up|attach|link|plug
    works|functions
    support|handle|understand|know|allow
    does it|does potluck|does the node|will it|can it|can potluck
    is it|is potluck|is this
    it|potluck|the node|the program|this thing
    the node|my node|potluck|the server|the daemon|a node
    explain|describe|clarify
    internet|web|network
    deleted|removed|erased
    offline|disconnected|without a connection
    happens|occurs|will happen|is going to happen
    if|when|in case|whenever
    request|call|query|job|prompt
    requests|calls|queries|jobs|prompts
    prompt|question|input|query
    too long|too big|too large|over the limit
    credits|my credits|credit
    money|credits
    kick|throw|boot
    leave|quit|exit
    vote|cast a vote
    password|passwords|secret
    passwords|secrets|credentials|api keys
    dies|crashes|goes down|disappears|vanishes|breaks
    unload|take out of memory|kick out of memory
    benchmark|measure
    diagnose|debug|troubleshoot|examine
    browser|web browser|firefox|chrome
    memory|memory store
    remembered|stored|memorised
    agent|assistant|coding agent|ai agent|bot
    agents|assistants|coding agents|bots
    private|confidential|secret
    encrypted|secured|protected
    shut down|stop|switch off|turn off|power down
    turn on|enable|switch on|activate
    turn off|disable|switch off|deactivate
    quantisation|quantization|quant
    licence|license
    trusted pool|pool|private pool
    a pool|the pool|my pool|a trusted pool
    strangers|unknown people|other people|anybody
    cheats|lies|is dishonest
    earn|make|gain
    currently|now|at the moment|right now
    rebuild|recreate|regenerate|redo
    background|service
    terminal|shell|console|command line
    models|llms|language models|models
    a model|an llm|a language model|one model|some model|the model|my model""".split("\n")
]
_LOOKUP: dict[str, list[str]] = {}
for _group in SYNONYMS:
    _words = [w.strip() for w in _group]
    # Only the first word of a line leads to the others: replacement must not
    # walk from group to group and end at another meaning.
    _LOOKUP[_words[0]] = _words[1:]
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
    if len(words) > 5 and rng.random() < 0.08:
        words.pop(rng.randrange(len(words)))
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
        if not social and rng.random() < 0.14:
            suffix = rng.choice(SUFFIXES)
            text = text + suffix if suffix.startswith(",") else f"{text} {suffix}"
        mark = rng.choices(["?", "", ".", "??", "!", " ?"], [0.5, 0.36, 0.06, 0.02, 0.04, 0.02])[0]
        text = case(rng, " ".join(text.split())) + ("" if text.endswith(("?", "!", ".")) else mark)
        return text, rng.choice(fact.say)
