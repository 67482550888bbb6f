"""The floor of a synthetic language, as it is written beside its corpus."""

import math
from pathlib import Path
from typing import Any

from hindsight.config.made_corpus import CorpusKind, Setting
from hindsight.synthetic.language import END_TOKENS, OPENING, Language, Role


def floor_path(out: Path) -> Path:
    """Where the floor of a corpus is written."""
    return out.with_name(f"{out.name}.floor.json")


def floor_of(kind: CorpusKind, settings: dict[str, Setting], language: Language) -> dict[str, Any]:
    """The floor of a language as it is written."""
    tokens, nats = language.tokens, language.nats
    documents = int(settings["documents"])
    # A share of the law, at most: each document drawn covers its own probability, on average twin_probability.
    seen_share = min(1.0, documents * language.twin_probability)
    return {
        "kind": kind.value,
        "settings": settings,
        "nats_per_document": nats,
        "tokens_per_document": tokens,
        "nats_per_token": nats / tokens,
        "derivation": (
            f"{language.derivation} A document is {OPENING.decode()!r}, {language.layout}, a line feed and EOS: with "
            f"a tokenizer of bytes {len(OPENING)} + {language.characters} + {END_TOKENS} = {tokens} tokens, of which "
            f"those at its ends are certain. A window of {tokens} tokens is one document, and by the chain rule its "
            f"entropy is the same in every order: {nats:.9g} / {tokens} = {nats / tokens:.9g} nats a token."
        ),
        "is_null": language.role is Role.null,
        "is_calibration": language.is_calibration,
        "role": language.role.value,
        "nats_per_document_error": language.nats_error,
        "ln_possible_texts": math.log(language.possible_texts),
        "seen_share": seen_share,
    }
