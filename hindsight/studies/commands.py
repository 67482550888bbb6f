"""A command of this project as a person would type it."""

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hindsight.config.schemas import CONF_DIR
from hindsight.config.typed_text import quoted

ROOT = CONF_DIR.parent
PLAIN = re.compile(r"[\w./:+@%-]+", re.ASCII)
"""Texts that mean themselves on a command line."""


def is_in_project() -> bool:
    """Whether this process is in the project's folder, where commands are typed without theirs."""
    return Path.cwd() == ROOT


@dataclass(frozen=True)
class Command:
    """A script of this project, or a module of hindsight/, and its arguments.

    Args:
        script: such as train_composer, or hindsight.shards.turned.
        arguments: key=value, or words.
        devices: processes that share the work, by composer's launcher; 1 for none.
    """

    script: str
    arguments: tuple[str, ...]
    devices: int = 1

    @property
    def words(self) -> list[str]:
        """Its words for a shell in the folder of this process."""
        place = "" if is_in_project() else f"{ROOT}/"
        file = ["-m", self.script] if "." in self.script else [f"{place}{self.script}.py"]
        start = ["python"] if self.devices == 1 else ["composer", "-n", str(self.devices)]
        return [*start, *file, *self.arguments]

    @property
    def typed(self) -> str:
        """The line that a person types."""
        return shlex.join(self.words)

    @property
    def program(self) -> list[str]:
        """Its words for the operating system, whatever folder one is in."""
        launcher = str(Path(sys.executable).with_name("composer"))
        start = [sys.executable] if self.devices == 1 else [launcher, "-n", str(self.devices)]
        file = ["-m", self.script] if "." in self.script else [str(ROOT / f"{self.script}.py")]
        return [*start, *file, *self.arguments]


def arguments_of(values: Mapping[str, Any]) -> list[str]:
    """Write values by their keys as key=value; None as null."""
    return [f"{key}={as_written(value)}" for key, value in values.items()]


def as_written(value: Any) -> str:
    """Write a value for hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{','.join(map(as_written, cast('list[Any]', value)))}]"
    if isinstance(value, str) and PLAIN.fullmatch(value) is None:
        return quoted(value)
    return str(value)
