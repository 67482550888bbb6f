"""The session of generate_text.py, driven through a pseudo-terminal."""

import os
import signal
import stat
import sys
from pathlib import Path

import pytest
from helpers.processes import ROOT, wait_until
from helpers.screen import in_terminal
from helpers.scripted_model import TEXT, writer_of

from hindsight.config.generation import GenerateConfig
from hindsight.generation.session import Session, Shown
from hindsight.tokenization.tokenizer import Tokenizer

ENDING = TEXT[-6:]


class Listed:
    """A screen whose user types these lines; what it was told is kept."""

    def __init__(self, *lines: str) -> None:
        self.lines, self.said, self.labels = [*lines], [], []

    def ask(self, label, status):
        self.labels.append(label)
        return self.lines.pop(0) if self.lines else None

    def say(self, text):
        self.said.append(text)

    def show(self, stream, growth, n_tokens):
        *_, (text,) = stream
        self.said.append(text.text)
        return Shown(text, 1.0, False)


def by_heart(tokenizer_dir: Path, order: str, pause_s: float) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "tests" / "helpers" / "scripted_model.py"),
        str(tokenizer_dir),
        order,
        str(pause_s),
    ]


def environment(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "XDG_STATE_HOME": str(folder)}


def test_a_text_that_is_written_backward_grows_leftwards_in_place(tokenizer_dir: Path, tmp_path: Path):
    with in_terminal(by_heart(tokenizer_dir, "backward", 0.05), environment(tmp_path), columns=20) as terminal:
        terminal.wait_for("backward>")
        terminal.seen.clear()
        terminal.type(f"{ENDING}\r")
        shown = terminal.wait_for("seed 0")
        growing = [text for text in terminal.seen if "of 100 tokens" in text]
        # What is below the line that was typed: the text so far over the ends of lines, and how far it is.
        texts = ["".join(text.split(f"backward> {ENDING}\n")[1].splitlines()[:-1]) for text in growing]
        texts = [text for text in texts if text]
        assert len({*texts}) > 5
        assert all(TEXT.endswith(text) for text in texts)
        assert [*map(len, texts)] == sorted(map(len, texts))
        below = shown.split(f"backward> {ENDING}\n")[1]
        assert below.splitlines()[:3] == [TEXT[:20], TEXT[20:], "24 tokens · seed 0 ·"]
        assert "the document begins" in "".join(below.splitlines())
        assert not terminal.screen.unknown
        terminal.type("\x04")
        assert terminal.end() == 0


def test_ctrl_c_ends_a_text_and_not_the_session_and_what_was_typed_is_kept_for_its_user_alone(
    tokenizer_dir: Path, tmp_path: Path
):
    with in_terminal(by_heart(tokenizer_dir, "forward", 0.2), environment(tmp_path)) as terminal:
        terminal.wait_for("forward>")
        terminal.type("012\r")
        terminal.wait_for("3 of 100 tokens")
        terminal.type("\x03")
        shown = terminal.wait_for("stopped")
        assert "stopped" in shown
        text = shown.split("forward> 012\n")[1].splitlines()[0]
        assert len("012345") <= len(text) < len(TEXT)
        assert TEXT.startswith(text)
        terminal.type("not sent\x03/temperature 0.5\r")
        terminal.wait_for("temperature 0.5\n")
        terminal.type("\x1b[A\x1b[A\r")  # the prompt before the command
        wait_until("a second text", lambda: terminal.read(0.1) and terminal.screen.text().count("> 012\n") == 2)
        terminal.wait_for("1 of 100 tokens")
        terminal.type("\x03")
        terminal.wait_for("seed 1")
        terminal.type("\x04")
        assert terminal.end() == 0
    history = tmp_path / "hindsight" / "prompts"
    assert [line[1:] for line in history.read_text().splitlines() if line.startswith("+")] == [
        "012",
        "/temperature 0.5",
        "012",
    ]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert stat.S_IMODE(history.parent.stat().st_mode) == 0o700


@pytest.mark.slow
def test_a_session_with_a_run_leaves_the_terminal_as_it_was_at_sigterm(trained, tmp_path: Path):
    command = [sys.executable, str(ROOT / "generate_text.py"), str(trained["backward"]), "length=20000"]
    with in_terminal(command, environment(tmp_path)) as terminal:
        terminal.wait_for("backward>")
        terminal.type("light shone over dark water.\r")
        terminal.wait_for("tokens · Ctrl-C")
        os.kill(terminal.process.pid, signal.SIGTERM)
        assert terminal.end() == 75
        assert "Interrupted by SIGTERM" in terminal.screen.text()
        assert "Traceback" not in terminal.screen.text()


def test_commands_change_settings_and_bad_ones_change_nothing(tokenizer_dir: Path):
    lines = [
        "/temperature 0",
        "/length 2",
        "0",
        "/length none",
        "/top_p 3",
        "/nonsense",
        "//",
        "/seed 7",
        "0",
        "/quit",
        "0",
    ]
    screen = Listed(*lines)
    writer = writer_of(Tokenizer.load(tokenizer_dir), "forward")
    Session({"": writer}, GenerateConfig(run="a"), "by heart", screen).run()
    said = [line for line in screen.said if not line.startswith(("by heart", "Type"))]
    assert said == [
        "temperature 0.0",
        "length 2",
        "012",
        "2 tokens · seed 0 · 2 tok/s",
        "/length none: give a whole number.",
        "top_p=3.0 must be greater than 0 and at most 1.",
        "/nonsense is no command; choose one of /help, /quit, /length, /samples, /temperature, /top_k, /top_p, /min_p, "
        "/seed.",
        "/<=",
        "2 tokens · seed 1 · 2 tok/s",
        "seed 7",
        "012",
        "2 tokens · seed 7 · 2 tok/s",
        "",
    ]


def test_a_session_with_both_directions_turns_round(tokenizer_dir: Path):
    tokenizer = Tokenizer.load(tokenizer_dir)
    writers = {name: writer_of(tokenizer, name) for name in ("forward", "backward")}
    screen = Listed("5", "/direction backward", "5", "/direction sideways", "5")
    Session(writers, GenerateConfig(run="a", length=3, temperature=0), "by heart", screen).run()
    assert [line for line in screen.said if line.isdigit()] == ["5678", "2345", "2345"]
    assert screen.labels[::2] == ["forward> ", "backward> ", "backward> "]
