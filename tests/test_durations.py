import pytest

from hindsight.durations import parse_duration, parse_seconds, plain_duration, steps_in, tokens_in
from hindsight.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"), [("1000ba", (1000, "ba")), ("20_000_000tok", (20_000_000, "tok")), ("5ep", (5, "ep"))]
)
def test_durations_are_numbers_with_a_unit(text, expected):
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "5", "ba", "5 ba", "-5ba", "1.5ep", "5min", "_5ba"])
def test_anything_else_is_no_duration(text):
    with pytest.raises(InputError):
        parse_duration(text)


@pytest.mark.parametrize(("text", "plain"), [("20_000_000tok", "20000000tok"), ("5ep", "5ep")])
def test_composer_gets_durations_without_underscores(text, plain):
    assert plain_duration(text) == plain


@pytest.mark.parametrize(
    ("duration", "steps"),
    [("7ba", 7), ("3ep", 12), ("1tok", 1), ("64tok", 1), ("65tok", 2), ("210tok", 4), ("211tok", 5), ("630tok", 12)],
)
def test_steps_end_with_the_first_batch_that_reaches_the_duration(duration, steps):
    # An epoch of 210 tokens is three batches of 64, and one of 18.
    assert steps_in(duration, epoch_steps=4, epoch_tokens=210, batch_tokens=64) == steps


@pytest.mark.parametrize(("duration", "tokens"), [("7ba", 448), ("3ep", 630), ("1_000tok", 1000)])
def test_tokens_of_steps_are_those_of_full_batches(duration, tokens):
    assert tokens_in(duration, batch_tokens=64, epoch_tokens=210) == tokens


def test_tokens_of_epochs_of_unknown_size_are_not_known():
    assert tokens_in("3ep", batch_tokens=64, epoch_tokens=None) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("90min", 5400), ("90m", 5400), ("11h30min", 41_400), ("1d12h", 129_600), ("1d1h1m1s", 90_061)],
)
def test_a_time_is_days_hours_minutes_and_seconds(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1.5h", "-1h", "30min1h", "5ep", "1h 30min", "h"])
def test_what_is_no_time_is_refused_with_the_form(text):
    with pytest.raises(InputError, match="write it as 45s, 90min, 11h30min or 1d12h"):
        parse_seconds(text)
