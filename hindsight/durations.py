"""Durations as the configuration writes them: steps (1000ba), tokens (20_000_000tok) or epochs (5ep)."""

import re

from hindsight.errors import InputError

_DURATION = re.compile(r"([0-9][0-9_]*)(ba|ep|tok)")


def parse_duration(text: str) -> tuple[int, str]:
    """Split a duration such as 1000ba or 20_000_000tok into its number and its unit (ba, ep or tok)."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is no duration; write steps as 1000ba, tokens as 20_000_000tok, epochs as 5ep.")
    return int(match[1].replace("_", "")), match[2]


def plain_duration(text: str) -> str:
    """Write a duration as Composer reads it, without underscores."""
    number, unit = parse_duration(text)
    return f"{number}{unit}"
