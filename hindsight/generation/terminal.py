"""A terminal that asks for lines, and redraws a text in place while it grows, by prompt_toolkit.

A text that grows leftwards moves all that stands behind it, over the ends of lines: prompt_toolkit draws what differs.
What is shown has its control characters written out (hindsight/shown_text.py), so that a text commands no terminal.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.application import Application
from prompt_toolkit.formatted_text import FormattedText, StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input.vt100 import raw_mode
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.styles import Style

from hindsight import interrupts
from hindsight.config.generation import GenerateConfig
from hindsight.errors import InputError
from hindsight.generation.session import Session, Shown
from hindsight.generation.writer import Growth, Writer, Written
from hindsight.shown_text import visible
from hindsight.temporary import private_folder

HISTORY = "prompts"
"""File with what was typed, in the user's state folder."""
REDRAW_INTERVAL_S = 0.03
"""Least seconds between two drawings."""
STYLE = Style.from_dict({"given": "bold", "ours": "ansibrightblack", "bottom-toolbar": "noreverse ansibrightblack"})
TAB = "    "


class Terminal:
    """The terminal of this process.

    Args:
        history: what was typed before.
    """

    def __init__(self, history: History) -> None:
        self.session: PromptSession[str] = PromptSession(
            history=history, multiline=True, key_bindings=_keys_of_prompt(), style=STYLE, reserve_space_for_menu=0
        )

    def ask(self, label: str, status: str) -> str | None:
        """Ask for a line until there is one; Ctrl-C clears it, Ctrl-D ends the session."""
        while True:
            try:
                return self.session.prompt(label, bottom_toolbar=status)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return None

    def say(self, text: str) -> None:
        """Show lines of ours."""
        if text:
            self._print([("class:ours", _shown(text))])

    def show(self, stream: Iterator[list[Written]], growth: Growth, n_tokens: int) -> Shown:
        """Show a text while it grows, until it is written or Ctrl-C ends it; then leave it there as a whole."""
        shown = asyncio.run(_Live(stream, growth, n_tokens).run())
        if shown.text is not None:
            self._print(_fragments(shown.text))
        return shown

    def _print(self, fragments: StyleAndTextTuples) -> None:
        print_formatted_text(FormattedText(fragments), style=STYLE)


def write(writers: dict[str, Writer], config: GenerateConfig, title: str) -> None:
    """Write the samples of prompt=, or hold a session without one.

    Args:
        writers: what writes, by direction; the first of them to begin with.
        config: the prompt, and settings.
        title: what the model is, in a few words.
    """
    interrupts.finish_steps()  # Ctrl-C, and other signals, end no process that waits here
    signal.signal(signal.SIGINT, signal.default_int_handler)
    history, fault = open_history()
    terminal = Terminal(history)
    session = Session(writers, config, title, terminal)
    with raw_mode(sys.stdin.fileno()):  # all the time, or keys between two texts would be echoed, and Ctrl-D lost
        if config.prompt is not None:
            session.write(config.prompt)
        else:
            terminal.say(fault or "")
            session.run()


def open_history() -> tuple[History, str | None]:
    """Open the file with what was typed, which only its user may read; and say so if there can be none."""
    place = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(place if os.path.isabs(place) else Path.home() / ".local" / "state", "hindsight")
    try:
        path = private_folder(folder, "XDG_STATE_HOME") / HISTORY
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    except (InputError, OSError) as error:
        return InMemoryHistory(), f"What is typed is not kept: {error}"
    return FileHistory(path), None


class _Live:
    """A text on the screen while it grows.

    Args:
        stream: gives the text after each token.
        growth: where it grows, which stays in sight.
        n_tokens: tokens that it may have at most.
    """

    def __init__(self, stream: Iterator[list[Written]], growth: Growth, n_tokens: int) -> None:
        self.stream, self.growth, self.n_tokens = stream, growth, n_tokens
        self.text: Written | None = None
        self.is_stopped = False
        keys = KeyBindings()
        keys.add("c-c")(self._stop)
        keys.add("<sigint>")(self._stop)
        text = FormattedTextControl(self._fragments, focusable=True, show_cursor=False)
        status = Window(FormattedTextControl(self._status), height=1)
        self.application: Application[None] = Application(
            Layout(HSplit([Window(text, wrap_lines=True, dont_extend_height=True), status])),
            key_bindings=keys,
            style=STYLE,
            erase_when_done=True,
            min_redraw_interval=REDRAW_INTERVAL_S,
        )

    async def run(self) -> Shown:
        """Write and show at once; errors of the writing are raised."""
        began_s, tasks = time.monotonic(), list[asyncio.Task[None]]()
        with ThreadPoolExecutor(1) as thread:
            await self.application.run_async(
                pre_run=lambda: tasks.append(asyncio.get_running_loop().create_task(self._write(thread)))
            )
            await tasks[0]
        return Shown(self.text, time.monotonic() - began_s, self.is_stopped)

    async def _write(self, thread: ThreadPoolExecutor) -> None:
        """Take text after text in another thread, so that keys are heard meanwhile."""
        loop = asyncio.get_running_loop()
        try:
            while not self.is_stopped:
                texts = await loop.run_in_executor(thread, next, self.stream, None)
                if texts is None:
                    return
                self.text = texts[0]
                self.application.invalidate()
        finally:
            if self.application.is_running and not self.application.is_done:  # else a signal has ended it
                self.application.exit()

    def _stop(self, event: KeyPressEvent) -> None:
        self.is_stopped = True

    def _fragments(self) -> StyleAndTextTuples:
        return _fragments(self.text, self.growth) if self.text is not None else []

    def _status(self) -> StyleAndTextTuples:
        written = self.text.n_tokens if self.text is not None else 0
        return [("class:ours", f"{written} of {self.n_tokens} tokens · Ctrl-C ends the text")]


def _fragments(text: Written, growth: Growth | None = None) -> StyleAndTextTuples:
    """Show a text with its prompt marked; the place where it grows, if it does, is where prompt_toolkit scrolls to."""
    cursor = ("[SetCursorPosition]", "")
    styles = ("", "class:given", "")
    before, prompt, after = ((style, _shown(part)) for style, part in zip(styles, text.parts, strict=True))
    if growth is Growth.left:
        return [cursor, before, prompt, after]
    return [before, prompt, after, *([cursor] if growth is not None else [])]


def _shown(text: str) -> str:
    return visible(text).replace("\t", TAB)


def _keys_of_prompt() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def accept(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def break_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
