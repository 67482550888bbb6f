"""Checks that the configuration's dataclasses share: each raises InputError with key=value, the rule and the way out.

`prefix` is what stands before a field's name in its full key, such as "data."; `config` is the dataclass.
"""

import dataclasses
import math
import os
import re
from typing import Any

from hindsight.durations import parse_duration, parse_seconds
from hindsight.errors import InputError
from hindsight.shown_text import holds_credentials

RULE = "rule"
"""In the metadata of a field that takes numbers and names alike: what a value must be."""
NO_KEYS_IN_ADDRESSES = (
    "an address must not hold keys, which would be written into records and logs; give them in the environment or in "
    "the provider's usual file."
)


def require(condition: bool, message: str) -> None:
    """Raise InputError with this message unless the condition holds."""
    if not condition:
        raise InputError(message)


def rule_of(schema: type, name: str) -> str:
    """What a value of a field must be, by its metadata; nothing for a field that has no such rule."""
    return next((item.metadata.get(RULE, "") for item in dataclasses.fields(schema) if item.name == name), "")


def require_positive(prefix: str, config: object, *names: str, way_out: str = "") -> None:
    """Require these fields to be greater than 0 and finite, or None; a message ends with the way out."""
    for name in names:
        value = getattr(config, name)
        require(
            value is None or (value > 0 and math.isfinite(value)),
            f"{prefix}{name}={value} must be greater than 0{way_out}.",
        )


def require_text(prefix: str, config: object, *names: str) -> None:
    """Require these fields not to be empty strings."""
    for name in names:
        require(getattr(config, name) != "", f"{prefix}{name}= is empty; give a value, or leave the key out.")


def require_local(prefix: str, config: object, *names: str) -> None:
    """Require these fields to be local paths, or None: no address such as s3://."""
    for name in names:
        value = getattr(config, name)
        require("://" not in (value or ""), f"{prefix}{name}={value} is not on this machine; give a local path.")


def require_utf8(prefix: str, config: object, *names: str) -> None:
    """Require names in UTF-8 of folders that are written to, or None: PyTorch and tokenizers write to no others."""
    for name in names:
        value = getattr(config, name)
        if value is not None and "://" not in value:
            try:
                os.path.abspath(value).encode()
            except UnicodeEncodeError:
                raise InputError(
                    f"{prefix}{name}={value}: a name on the way to it is not in UTF-8, and cannot be written to by "
                    "PyTorch and tokenizers; choose another."
                ) from None


def require_no_credentials(prefix: str, config: object) -> None:
    """Require that no text of a config is an address with credentials, which would be written into records and logs."""
    for name, value in vars(config).items():
        texts: list[Any] = [*value] if isinstance(value, list) else [value]
        require(
            not any(isinstance(text, str) and holds_credentials(text) for text in texts),
            f"{prefix}{name}: {NO_KEYS_IN_ADDRESSES}",
        )


def require_seed(seed: int) -> None:
    """Require a seed that NumPy, PyTorch and Composer all take."""
    require(0 <= seed < 2**32 - 1, f"seed={seed} must be at least 0 and less than 2**32 - 1.")


def require_name(key: str, name: str) -> None:
    """Require a name that can be a folder's on any file system."""
    require(
        re.fullmatch(r"[\w.+=-]{1,128}", name) is not None and name.strip(".") != "",
        f"{key}={name} names a folder; use letters, digits and . _ - + = only, at most 128.",
    )


def require_share(prefix: str, config: object, *names: str) -> None:
    """Require these fields to be at least 0 and less than 1."""
    for name in names:
        value = getattr(config, name)
        require(0 <= value < 1, f"{prefix}{name}={value} must be at least 0 and less than 1.")


def require_time(key: str, text: str | None) -> None:
    """Require a time greater than 0, such as 11h30min, or None."""
    if text is None:
        return
    try:
        seconds = parse_seconds(text)
    except InputError as error:
        raise InputError(f"{key}={text}: {error}") from None
    require(seconds > 0, f"{key}={text} must be greater than 0.")


def require_duration(key: str, text: str) -> None:
    """Require a duration greater than 0, such as 1000ba."""
    try:
        number, _ = parse_duration(text)
    except InputError as error:
        raise InputError(f"{key}={text}: {error}") from None
    require(number > 0, f"{key}={text} must be greater than 0.")
