"""Sentences about nothing, in a workshop magazine's words: text for synthetic pages.

Grammar and vocabulary are written for this purpose; no other text is quoted.
"""

import re

import numpy as np

_NOUN_LIST = """
board cable lamp hinge circuit battery workbench clamp saw lathe motor sensor switch panel bracket
spring washer drill garden kettle clock radio loom pulley gear antenna lens mirror socket solder
bucket ladder compass engine valve filter magnet robot printer display keyboard enclosure resistor
capacitor relay servo wheel frame joint template pattern notebook kit
"""
_ADJECTIVE_LIST = """
small quiet bright cheap sturdy spare hollow flexible old modern patient careful slow quick warm
thin heavy reliable wooden brass copper plastic curved narrow loose tidy useful simple second-hand
low-cost home-made waterproof magnetic
"""
_VERB_LIST = """
holds turns lifts carries guides measures joins warms lights drives balances protects follows
replaces supports needs hides improves connects moves cools powers fits completes
"""
_IMPERATIVE_LIST = """
Cut Drill Measure Mark Glue Fold Sand Solder Clamp Test Paint Turn Open Check Bend Trim Wire Polish
Remove Tighten
"""
_PLACE_LINES = """
under the bench
behind the panel
next to the window
inside the case
above the door
near the edge
at the far end
on the lower shelf
between the two halves
along the seam
"""
_OPENER_LINES = """
In practice,
After a while,
With some luck,
As a rule,
Even so,
On a cold day,
At first,
Once that's done,
For this project,
By the second evening,
"""
_HEADLINE_LINES = """
Build a better {n}
The {a} {n}
Meet your {n}
{n} in a day
Why every {n} matters
Make a {a} {n}
Inside the {n}
{a} ideas
From {n} to {m}
How the {n} works
Ten {a} projects
Ask the workshop
News and notes
Wind, water, {n}
"""
_NOUNS, _ADJECTIVES = _NOUN_LIST.split(), _ADJECTIVE_LIST.split()
_VERBS, _IMPERATIVES = _VERB_LIST.split(), _IMPERATIVE_LIST.split()
_PLACES = _PLACE_LINES.strip().splitlines()
_OPENERS = _OPENER_LINES.strip().splitlines()
_HEADLINES = _HEADLINE_LINES.strip().splitlines()


def sentence(rng: np.random.Generator) -> str:
    """One sentence of 6 to 25 words, beginning with a capital and ending with a stop."""
    first, second = _thing(rng), _thing(rng)
    verb, place = _pick(rng, _VERBS), _pick(rng, _PLACES)
    size, price = int(rng.integers(2, 90)), int(rng.integers(3, 80))
    text = _pick(
        rng,
        [
            f"{_pick(rng, _IMPERATIVES)} the {first} before the {second} {verb} it {place}.",
            f"{_pick(rng, _OPENERS)} a {first} {verb} the {second}, and nothing else is needed.",
            f"Ours is {size} mm wide - enough for one {first} and the {second} {place}.",
            f"If the {first} {verb} too much, you can't blame the {second}.",
            f"A {first} costs about £{price}, yet a {second} {place} {verb} just as well.",
            f'"Every {first} {verb} a {second}", says the manual, and it\'s right.',
            f"The {first} {place} {verb} the {second}.",
        ],
    )
    return _typographic(text)


def paragraph(rng: np.random.Generator, *, sentences: int) -> str:
    """Some sentences, one after the other."""
    return " ".join(sentence(rng) for _ in range(sentences))


def headline(rng: np.random.Generator) -> str:
    """A title of two to five words."""
    pattern = _pick(rng, _HEADLINES)
    text = pattern.format(n=_pick(rng, _NOUNS), m=_pick(rng, _NOUNS), a=_pick(rng, _ADJECTIVES))
    return _typographic(text[0].upper() + text[1:])


def phrase(rng: np.random.Generator) -> str:
    """An adjective and a noun, as for a caption or a label."""
    return _thing(rng).capitalize()


def code_line(rng: np.random.Generator) -> str:
    """A line of a program listing, up to 30 characters."""
    name, other = _pick(rng, _NOUNS), _pick(rng, _NOUNS)
    number = int(rng.integers(1, 256))
    lines = [
        f"import {name}",
        f"{name} = {other}.read()",
        f"for {name} in range({number}):",
        f"    {name}.set({number})",
        f"    if {name} > {number}:",
        f"        {other}.stop()",
        f"def {name}({other}):",
        f"    return {number} - {other}",
        f"# {name}, then {other}",
        "",
    ]
    return _pick(rng, lines)[:30]


def _typographic(text: str) -> str:
    """Curly quotes, dashes between words, and "an" where it belongs."""
    text = re.sub(r'(?<!\S)"', "\u201c", text).replace('"', "\u201d")
    text = text.replace("'", "\u2019").replace(" - ", " \u2013 ")
    return re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text)


def _thing(rng: np.random.Generator) -> str:
    return f"{_pick(rng, _ADJECTIVES)} {_pick(rng, _NOUNS)}"


def _pick(rng: np.random.Generator, choices: list[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
