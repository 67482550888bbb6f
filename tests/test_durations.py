import pytest

from hindsight.durations import parse_duration, plain_duration
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
