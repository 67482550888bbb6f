"""All synthetic languages, by the name of their kind."""

from collections.abc import Callable
from typing import Any

from hindsight.config.made_corpus import CorpusKind, Setting
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


def language_of(kind: CorpusKind, settings: dict[str, Setting]) -> Language:
    """Make the language of a kind; the same settings give the same."""
    arguments: dict[str, Any] = {key: value for key, value in settings.items() if key != "documents"}
    return LANGUAGES[kind](**arguments)
