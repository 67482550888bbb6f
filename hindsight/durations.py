"""Durations as the configuration writes them: steps (1000ba), tokens (20_000_000tok), epochs (5ep), times (2h30min)."""

import re

from hindsight.errors import InputError

_TIME = re.compile(r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m(?:in)?)?(?:([0-9]+)s)?")
_DURATION = re.compile(r"([0-9][0-9_]*)(ba|ep|tok)")


def parse_duration(text: str) -> tuple[int, str]:
    """Split a duration such as 1000ba or 20_000_000tok into its number and its unit (ba, ep or tok)."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is no duration; write steps as 1000ba, tokens as 20_000_000tok, epochs as 5ep.")
    return int(match[1].replace("_", "")), match[2]


def parse_seconds(text: str) -> int:
    """Seconds of a time such as 90min, 11h30min or 1d."""
    match = _TIME.fullmatch(text)
    if match is None or not text:
        raise InputError(f"{text!r} is no time; write it as 45s, 90min, 11h30min or 1d12h.")
    days, hours, minutes, seconds = (int(number or 0) for number in match.groups())
    return ((24 * days + hours) * 60 + minutes) * 60 + seconds


def plain_duration(text: str) -> str:
    """Write a duration as Composer reads it, without underscores."""
    number, unit = parse_duration(text)
    return f"{number}{unit}"


def steps_in(duration: str, epoch_steps: int, epoch_tokens: int, batch_tokens: int) -> int:
    """Optimizer steps of a duration; those of a number of tokens end with the first batch that reaches it.

    Args:
        duration: such as 1000ba.
        epoch_steps: optimizer steps in an epoch.
        epoch_tokens: tokens in an epoch; its last batch may have fewer than the others.
        batch_tokens: tokens in a full batch.
    """
    number, unit = parse_duration(duration)
    if unit == "ba":
        return number
    if unit == "ep":
        return number * epoch_steps
    epochs, rest = divmod(number, epoch_tokens)
    return epochs * epoch_steps + -(-rest // batch_tokens)


def tokens_in(duration: str, batch_tokens: int, epoch_tokens: int | None) -> int | None:
    """Tokens that a duration trains on, where a step is a full batch; None for epochs of unknown size.

    Args:
        duration: such as 5ep.
        batch_tokens: tokens in a full batch.
        epoch_tokens: tokens in an epoch; None if not known.
    """
    number, unit = parse_duration(duration)
    if unit == "tok":
        return number
    if unit == "ba":
        return number * batch_tokens
    return None if epoch_tokens is None else number * epoch_tokens
