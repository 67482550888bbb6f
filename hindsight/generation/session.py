"""A conversation with a model that writes: lines come in, texts grow in the terminal, and commands change how."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from hindsight.config.generation import GenerateConfig
from hindsight.errors import InputError
from hindsight.generation.writer import MISSING, Growth, Writer, Written

KINDS: dict[str, Callable[[str], float]] = {
    "length": int,
    "samples": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "seed": int,
}
"""Settings that a command changes, and what their values are."""
DIRECTION = "direction"
ASKS = {
    Growth.right: "Type a beginning, and it writes on.",
    Growth.left: "Type an ending, and it writes what came before; a space in front continues a paragraph.",
    Growth.inside: f"Type a beginning, and it fills the window behind it in its order; {MISSING} is a missing token.",
}
KEYS = "Ctrl-C ends a text, Ctrl-D the session; Alt-Enter begins a new line; /help shows commands."


class Screen(Protocol):
    """What a session asks of a terminal."""

    def ask(self, label: str, status: str) -> str | None:
        """Ask for a line; None at the end of the session."""
        ...

    def say(self, text: str) -> None:
        """Show lines of ours, which are no text of a model."""
        ...

    def show(self, stream: Iterator[list[Written]], growth: Growth, n_tokens: int) -> "Shown":
        """Show a text while it grows, and leave it there."""
        ...


@dataclass(frozen=True)
class Shown:
    """What was shown of a text.

    Args:
        text: the text; None if it was ended before there was any.
        seconds: how long it took.
        is_stopped: whether the user ended it.
    """

    text: Written | None
    seconds: float
    is_stopped: bool


class Session:
    """A conversation with one model.

    Args:
        writers: what writes, by direction; the first of them to begin with.
        config: settings to begin with.
        title: what the model is, in a few words.
        screen: the terminal.
    """

    def __init__(self, writers: dict[str, Writer], config: GenerateConfig, title: str, screen: Screen) -> None:
        self.writers, self.config, self.title, self.screen = writers, config, title, screen
        self.is_over = False

    @property
    def writer(self) -> Writer:
        """What writes now."""
        return self.writers.get(self.config.direction or "") or next(iter(self.writers.values()))

    def run(self) -> None:
        """Answer lines until the user leaves."""
        self.screen.say(f"{self.title} · {self.writer.context_length} tokens of context")
        self.screen.say(f"{ASKS[self.writer.growth]}\n{KEYS}")
        while not self.is_over:
            line = self.screen.ask(f"{self.writer.reading.order.name}> ", self.status())
            if line is None:
                return
            try:
                self._answer(line)
            except InputError as error:
                self.screen.say(str(error))
            except KeyboardInterrupt:  # by a signal, or a key between asking and showing
                self.screen.say("stopped")

    def _answer(self, line: str) -> None:
        if line.startswith("/") and not line.startswith("//"):
            self.screen.say(self.obey(line[1:]))
        else:
            self.write(line.removeprefix("/") if line.startswith("//") else line)

    def write(self, prompt: str) -> None:
        """Write the samples of a prompt, one after the other, each by the next seed."""
        tokens = self.writer.tokens_of(prompt, "the prompt")
        if (note := self.writer.unread_note(len(tokens), "the prompt")) is not None:
            self.screen.say(note)
        for _ in range(self.config.samples):
            seed = self.config.seed
            self.config = dataclasses.replace(self.config, seed=seed + 1)
            stream = self.writer.write(tokens, self.config, [seed])
            shown = self.screen.show(stream, self.writer.growth, self.config.length)
            self.screen.say(described(shown, seed, self.writer.growth))
            if shown.is_stopped:
                return

    def obey(self, command: str) -> str:
        """Do what a command says, such as `temperature 0.5`; give what is to be shown. InputError for no command."""
        name, _, value = command.strip().partition(" ")
        if name == "help":
            return self.help()
        if name == "quit":
            self.is_over = True
            return ""
        if name not in self._names():
            known = ", ".join(f"/{each}" for each in ("help", "quit", *self._names()))
            raise InputError(f"/{name} is no command; choose one of {known}.")
        value = value.strip()
        if value:
            self.config = dataclasses.replace(self.config, **{name: self._value(name, value)})
        now = getattr(self.config, name)
        return f"{name} {'null' if now is None else now}"

    def help(self) -> str:
        """What commands there are, with the present values."""
        values = {name: getattr(self.config, name) for name in self._names()}
        return "\n".join(
            [
                ASKS[self.writer.growth],
                "An empty line lets it write from nothing; //text is a prompt that begins with /.",
                KEYS,
                "A setting and its value, such as /temperature 0.5, changes it. These are in force:",
                *(f"  /{name} {'null' if value is None else value}" for name, value in values.items()),
            ]
        )

    def status(self) -> str:
        """The settings in a line."""
        chosen = [f"{name} {value}" for name in ("top_k", "top_p", "min_p") if (value := getattr(self.config, name))]
        parts = [self.title, f"temperature {self.config.temperature:g}", *chosen, f"seed {self.config.seed}", "/help"]
        return " · ".join(parts)

    def _names(self) -> list[str]:
        return [*KINDS, *([DIRECTION] if len(self.writers) > 1 else [])]

    def _value(self, name: str, value: str) -> float | str | None:
        if name == DIRECTION:
            return value
        if value == "null":
            if name not in ("top_k", "top_p", "min_p"):
                raise InputError(f"/{name} null: it needs a number.")
            return None
        kind = KINDS[name]
        try:
            return kind(value)
        except ValueError:
            raise InputError(f"/{name} {value}: give {'a whole number' if kind is int else 'a number'}.") from None


def described(shown: Shown, seed: int, growth: Growth) -> str:
    """What is said under a text."""
    n_tokens = shown.text.n_tokens if shown.text is not None else 0
    parts = [f"{n_tokens} tokens", f"seed {seed}"]
    if n_tokens and shown.seconds > 0:
        parts.append(f"{n_tokens / shown.seconds:.0f} tok/s")
    if shown.text is not None and shown.text.is_ended:
        parts.append(f"the document {'begins' if growth is Growth.left else 'ends'} there")
    return " · ".join([*parts, *(["stopped"] if shown.is_stopped else [])])
