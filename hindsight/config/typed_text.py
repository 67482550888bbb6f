"""Arguments as they were typed: hydra's grammar makes numbers of names, and has no use for most characters.

By it 12e4567 is infinity, 2024_01_05 is 20240105, and a file called `a(1).txt` is a mistake. The values of keys that
are texts are quoted for it here, so that they stay what was typed, unless it reads them as a text by itself: 'quoted',
with escapes, or with references such as ${optim.lr}.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType
from typing import Any, cast, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from hindsight.config.checks import NO_KEYS_IN_ADDRESSES
from hindsight.errors import InputError
from hindsight.shown_text import holds_credentials

SWEEP_FUNCTION = re.compile(r"(choice|shuffle|sort|tag|range|interval|glob)\(.*\)", re.DOTALL)
"""Functions of hydra's grammar that give several values."""
NOW = re.compile(r"\$\{now:[^${}]*\}")
ESCAPED = re.compile(r"(?<!\\)(\\\\)*\\\$\{")
"""How OmegaConf writes ${ where it is no reference: an odd number of backslashes before it."""
OPENING, CLOSING = "([{", ")]}"
MAX_DEPTH = 20
"""Most brackets that are open at once in an argument; hydra's parser fails at some hundred."""
MAX_REFERENCES = 20
"""Most references ${key} in a configuration: chains of them multiply."""
PROSE = {"prose": True}
"""Metadata of a field that is a piece of text: commas, quotes and spaces around it belong to it."""
NAMES = {"names": True}
"""Metadata of a field that is a list of names without commas: a,b is such a list, as [a,b] is."""


@dataclass(frozen=True)
class TextKey:
    """A key whose value is a text.

    Args:
        is_list: whether it takes a list of texts.
        is_optional: whether null means that there is none; for others, it is a text like any.
        is_prose: whether it is a piece of text, and no name: commas, quotes and spaces around it belong to it.
        is_names: whether a comma always stands between two of a list.
    """

    is_list: bool
    is_optional: bool
    is_prose: bool = False
    is_names: bool = False


def text_keys(schema: type, variants: Sequence[type] = (), prefix: str = "") -> dict[str, TextKey]:
    """All keys below a dataclass whose values are texts, in full, such as data.path.

    Args:
        schema: the dataclass.
        variants: kinds of a nested dataclass, of which any may be given.
        prefix: what stands before its keys.
    """
    found: dict[str, TextKey] = {}
    hints = get_type_hints(schema)
    for item in fields(schema):
        key, hint = f"{prefix}{item.name}", hints[item.name]
        kinds = set(get_args(hint)) - {NoneType} if get_origin(hint) is not list else {hint}
        plain = kinds.pop() if len(kinds) == 1 else hint
        if isinstance(plain, type) and is_dataclass(plain):
            for kind in (plain, *(kind for kind in variants if plain in kind.__mro__)):
                found |= text_keys(kind, variants, f"{key}.")
        elif plain is str or (get_origin(plain) is list and get_args(plain)[0] is str):
            is_optional, told = NoneType in get_args(hint), item.metadata
            found[key] = TextKey(plain is not str, is_optional, "prose" in told, "names" in told)
    return found


def with_keys(arguments: Sequence[str], key: str, keys: dict[str, TextKey]) -> list[str]:
    """Give arguments without a key theirs: `runs/a runs/b` means runs=[runs/a,runs/b].

    Args:
        arguments: all arguments.
        key: the key; "" if there is none.
        keys: what `text_keys` gives.
    """
    if not key:
        return [*arguments]
    alone = [each for each in arguments if re.match(r"[-+~]|hydra[./]|[\w.]+\s*=", each) is None]
    if not keys[key].is_list:
        if len(alone) > 1:
            raise InputError(f"{alone[0]} and {alone[1]}: give one {key} at a time.")
        return [f"{key}={each}" if each in alone else each for each in arguments]
    # The shell makes several of runs=runs/{a,b}, and of runs=runs/* where it finds something.
    named = [each for each in arguments if each.startswith(f"{key}=") and not each.startswith((f"{key}=[", f"{key}=$"))]
    if not alone and len(named) < 2:
        return [*arguments]
    rest = [each for each in arguments if each not in alone and each not in named]
    if any(each.startswith(f"{key}=") for each in rest):
        raise InputError(f"{alone[0] if alone else named[0]} and {key}=[...]: give one of the two.")
    values = [each.removeprefix(f"{key}=") for each in arguments if each in alone or each in named]
    return [*rest, f"{key}=[{','.join(QuotedString(value, Quote.single).with_quotes() for value in values)}]"]


def as_typed(arguments: Sequence[str], keys: dict[str, TextKey], is_sweep: bool) -> list[str]:
    """Quote the values of these keys for hydra, so that they stay what was typed.

    Args:
        arguments: such as run_name=12e4567; hydra's own options are left as they are.
        keys: what `text_keys` gives.
        is_sweep: whether commas and functions give several values.

    Raises:
        InputError: an argument is no key=value that hydra can read.
    """
    for argument in arguments:
        if not _is_prose(argument, keys, is_sweep):
            # hydra's own folders may be named by the time.
            check_references(NOW.sub("", argument) if argument.lstrip("+~").startswith("hydra.") else argument)
        if holds_credentials(argument.replace("\\", "")):  # hydra would repeat the arguments of a run that fails
            raise InputError(f"{argument.partition('=')[0]}: {NO_KEYS_IN_ADDRESSES}")
    return [
        argument if argument.lstrip("+~").startswith(("-", "hydra")) else _as_typed(argument, keys, is_sweep)
        for argument in arguments
    ]


def without_sweeps(typed: Sequence[str]) -> list[str]:
    """Leave out, of what `as_typed` gives, the arguments that give several values."""
    overrides = OverridesParser.create().parse_overrides([*typed])
    return [str(override.input_line) for override in overrides if not override.is_sweep_override()]


def check_references(values: Any) -> int:
    """Refuse, in all texts of nested values, references that are no key: ${oc.env:...} would read the environment.

    Returns:
        How many references there are; InputError for more than MAX_REFERENCES.
    """
    found = 0
    if isinstance(values, dict | list):
        for value in cast("list[Any]", [*values.values()] if isinstance(values, dict) else values):
            found += check_references(value)
    elif isinstance(values, str) and "${" in values:
        values = ESCAPED.sub("_", values)
        depth, found = 0, values.count("${")
        for place, character in enumerate(values):
            depth += values.startswith("${", place) or (character == "{" and depth > 0 and values[place - 1] != "$")
            depth -= character == "}" and depth > 0
            if character == ":" and depth > 0:
                raise InputError(
                    f"{values.partition('=')[0]}: a reference ${{...}} names another key, such as ${{optim.lr}}; "
                    "functions, and the environment, are not read."
                )
    if found > MAX_REFERENCES:
        raise InputError(f"there are {found} references ${{...}}, more than {MAX_REFERENCES}; write values instead.")
    return found


def _is_prose(argument: str, keys: dict[str, TextKey], is_sweep: bool) -> bool:
    """Whether an argument gives a piece of text, which is taken as it stands."""
    key, _, value = argument.partition("=")
    return key in keys and keys[key].is_prose and value not in ("", "null") and not is_sweep


def _as_typed(argument: str, keys: dict[str, TextKey], is_sweep: bool) -> str:
    if _is_prose(argument, keys, is_sweep):
        key, _, value = argument.partition("=")
        return f"{key}={quoted(value)}"
    depth = 0
    for character in argument:
        depth = max(0, depth + (character in OPENING) - (character in CLOSING))
        if depth > MAX_DEPTH:
            raise InputError(f"{argument[:40]}...: brackets are nested more than {MAX_DEPTH} levels deep.")
    key, equals, value = argument.partition("=")
    if not equals:
        raise InputError(f"{argument}: write key=value, without spaces around the =; --help shows all keys.")
    if re.fullmatch(r"[\w./@]+", key, re.ASCII) is None:
        raise InputError(f"{argument}: {key!r} is no name of a key; write key=value, without spaces around the =.")
    if key in keys and keys[key].is_list and not value.strip():
        raise InputError(f"{key}= is empty; give a value, or leave the key out.")
    value = _value(key, value.strip(), keys, is_sweep)
    _check_grammar(key, value, is_sweep)
    return f"{key}={value}"


def quoted(value: str) -> str:
    """Quote a text for hydra, and escape what OmegaConf would read as a reference, so that it stays what it is."""
    value = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", value)
    return QuotedString(value, Quote.single).with_quotes()


def _value(key: str, value: str, keys: dict[str, TextKey], is_sweep: bool) -> str:
    if key in keys and value:
        return _text_value(key, value, keys[key], is_sweep)
    if value.startswith("{") and value.endswith("}"):  # several keys of a group, such as data={path:a}
        pairs = [element.partition(":") for element in _elements(value[1:-1]) if element]
        inner = [
            f"{name.strip()}:{_value(f'{key}.{name.strip()}', each.strip(), keys, False)}" for name, _, each in pairs
        ]
        return f"{{{','.join(inner)}}}"
    return value


def _text_value(key: str, value: str, kind: TextKey, is_sweep: bool) -> str:
    if is_sweep and SWEEP_FUNCTION.fullmatch(value):
        name, _, inner = value[:-1].partition("(")
        is_list_of_values = name in ("choice", "shuffle") and "(" not in inner
        return f"{name}({_text_value(key, inner, kind, is_sweep)})" if is_list_of_values else value
    choices = list(_elements(value))
    if len(choices) > 1 and kind.is_names and not is_sweep:
        return _list(key, f"[{value}]")
    if len(choices) > 1 and not is_sweep:
        one = QuotedString(value, Quote.double).with_quotes()
        advice = f"{shlex.quote(f'{key}=[{one}]' if kind.is_list else f'{key}={one}')} for one text with a comma"
        advice += f", {shlex.quote(f'{key}=[{value}]')} for several" if kind.is_list else ""
        raise InputError(f"{key}={value} has a comma: write {advice}; several values are a sweep, which needs -m.")
    return ",".join(_list(key, choice) if kind.is_list else _text(key, choice, kind) for choice in choices)


def _list(key: str, value: str) -> str:
    """A list of texts; one text alone is a list too, and null or a reference is left to hydra."""
    if value.startswith("[") and value.endswith("]"):
        inner = value[1:-1].strip()
        element = TextKey(is_list=False, is_optional=False)
        return f"[{','.join(_text(key, each, element) for each in _elements(inner))}]" if inner else "[]"
    if value.startswith("["):
        raise InputError(f"{key}={value}: a bracket is not closed; write '{key}=[a,b]'.")
    return (
        value if value.lower() == "null" or value.startswith("${") else f"[{_text(key, value, TextKey(False, False))}]"
    )


def _text(key: str, value: str, kind: TextKey) -> str:
    """One text, quoted unless hydra reads it as one anyway."""
    is_read, read = True, None
    try:
        read = OverridesParser.create().parse_override(f"key={value}").value()
    except (HydraException, RecursionError):
        is_read = False
    if isinstance(read, str) or (is_read and read is None and kind.is_optional):
        return value
    for begin, end in (*zip(OPENING[1:], CLOSING[1:], strict=True), ("'", "'"), ('"', '"')):
        if value.startswith(begin) and (isinstance(read, list | dict) or end not in value[1:]):
            what = "is no text" if isinstance(read, list | dict) else f"has no closing {end}"
            raise InputError(f"{key}={value} {what}; write {key}=TEXT, or '{key}=\"TEXT\"'.")
    return QuotedString(value, Quote.single).with_quotes()


def _elements(value: str) -> Iterator[str]:
    """Split at the commas that are outside quotes and brackets, and not escaped."""
    start, depth, quote = 0, 0, ""
    is_at_start = True
    escaped = False
    for place, character in enumerate(value):
        if escaped or character == "\\":
            escaped = not escaped
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and is_at_start and value.find(character, place + 1) > 0:
            quote = character
        elif character in OPENING and value.find(CLOSING[OPENING.index(character)], place + 1) > 0:
            depth += 1
        elif character in CLOSING and depth:
            depth -= 1
        elif character == "," and not depth:
            yield value[start:place].strip()
            start, is_at_start = place + 1, True
            continue
        is_at_start = is_at_start and character == " "
    yield value[start:].strip()


def _check_grammar(key: str, value: str, is_sweep: bool) -> None:
    """Raise InputError for what hydra cannot read, in words of ours."""
    try:
        override: Any = OverridesParser.create().parse_override(f"{key}={value}")
    except (HydraException, RecursionError):
        for begin, end in zip(OPENING, CLOSING, strict=True):
            if value.count(begin) != value.count(end):
                raise InputError(f"{key}={value}: {begin} and {end} do not match; write such as {key}=[1,2].") from None
        if value.count("'") % 2 or value.count('"') % 2:
            raise InputError(
                f"{key}={value}: a quote is not closed; write {key}=VALUE, or '{key}=\"VALUE\"'."
            ) from None
        raise InputError(f"{key}={value} cannot be read; write {key}=VALUE, or '{key}=\"VALUE\"'.") from None
    if override.is_sweep_override() and not is_sweep:
        raise InputError(f"{key}={value} gives several values, which are a sweep: add -m, or give one.")
