"""All synthetic languages, by the name of their kind."""

from collections.abc import Callable, Mapping
from typing import Any

from hindsight.config.made_corpus import KEYS, CorpusKind, Setting
from hindsight.synthetic.chains import markov, reversible_markov
from hindsight.synthetic.hidden_markov import hidden_markov
from hindsight.synthetic.language import Language
from hindsight.synthetic.linear_map import linear_map
from hindsight.synthetic.maps import code, many_to_one
from hindsight.synthetic.primes import primes

LANGUAGES: dict[CorpusKind, Callable[..., Language]] = {
    CorpusKind.markov: markov,
    CorpusKind.reversible_markov: reversible_markov,
    CorpusKind.hidden_markov: hidden_markov,
    CorpusKind.code: code,
    CorpusKind.many_to_one: many_to_one,
    CorpusKind.linear_map: linear_map,
    CorpusKind.primes: primes,
}
"""For each kind, what makes its language of the settings in config/made_corpus.py, `documents` aside."""


def language_of(kind: CorpusKind, settings: Mapping[str, Setting]) -> Language:
    """Make the language of a kind; the same settings give the same, and those that are missing are the usual ones."""
    arguments: dict[str, Any] = {**KEYS[kind], **settings}
    del arguments["documents"]
    return LANGUAGES[kind](**arguments)


def recorded_language(floor: Mapping[str, Any]) -> Language | None:
    """Make the language that a floor.json tells of; None for what is no language that is known here."""
    kind = CorpusKind.__members__.get(str(floor.get("kind")))
    if kind not in LANGUAGES:
        return None
    settings = floor.get("settings") or {}
    return language_of(kind, {key: settings[key] for key in KEYS[kind] if key in settings})
