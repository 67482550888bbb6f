import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.killed_runs import RUN, ForkServer, kill_group
from helpers.processes import ROOT, run_command, wait_until
from helpers.screen import in_terminal
from helpers.training_runs import lines

from hindsight.config.listing import COLUMNS, ListConfig, State
from hindsight.errors import InputError
from hindsight.files import is_locked
from hindsight.runs import read_config
from hindsight.studies.listing import list_runs, sorted_rows
from hindsight.studies.quick_config import SHOWN, plain_values
from hindsight.studies.run_list import RunRow, age, describe_run, table_of_rows

ENDLESS = "max_duration=100000ba"
HERE = socket.gethostname()


@pytest.fixture(scope="module")
def trained(fork_server: ForkServer, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real runs: one that is done, one that was killed after a checkpoint, and one before its first."""
    runs = tmp_path_factory.mktemp("runs")
    given = [*RUN, f"data.path={shards}", f"runs_dir={runs}"]
    assert fork_server.run([*given, "run_name=done", "max_duration=12ba"]) == [0], fork_server.output()
    for name, interval in (("killed", "2ba"), ("begun", "1000ba")):
        more = [f"run_name={name}", ENDLESS, f"checkpoint.interval={interval}", "eval_interval=1000ba"]
        processes = fork_server.start([*given, *more])
        wait_until("steps", lambda name=name: lines(runs / name) > 5)
        kill_group(processes)
        fork_server.statuses()
    return runs


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A copy of them, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "runs"))


@pytest.fixture
def in_training(fork_server: ForkServer, shards: Path, runs: Path) -> Iterator[Path]:
    """A run that is trained while the test lasts."""
    given = [*RUN, f"data.path={shards}", f"runs_dir={runs}", "run_name=now", ENDLESS]
    processes = fork_server.start(given)
    wait_until("steps", lambda: lines(runs / "now") > 12)
    yield runs / "now"
    kill_group(processes)
    fork_server.statuses()


def states(folder: Path, **keys: Any) -> dict[str, str]:
    return {row.name: row.state.name for row in list_runs(ListConfig(runs_dir=str(folder), **keys))}


def newest(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("ep*.pt"), key=lambda path: int(path.name.split("-ba")[1].split("-")[0]))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def add(path: Path, content: bytes) -> None:
    path.write_bytes(path.read_bytes() + content)


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.slow
def test_runs_are_told_apart_by_what_has_become_of_them(in_training, shards):
    rows = {row.name: row for row in list_runs(ListConfig(runs_dir=str(in_training.parent)))}
    assert {name: row.state.name for name, row in rows.items()} == {
        "begun": "begun",
        "done": "done",
        "killed": "interrupted",
        "now": "training",
    }
    done, now = rows["done"], rows["now"]
    assert (done.model, done.data, done.order, done.seed) == ("gpt_nano", str(shards), "backward", 0)
    assert (done.step, done.total_steps) == (12, 12)
    last = json.loads((in_training.parent / "done" / "metrics.jsonl").read_text().splitlines()[-1])
    assert (done.train_loss_nats, done.val_loss_nats) == (last["train/loss_nats"], last["eval/loss_nats"])
    files = [path for path in Path(done.folder).rglob("*") if path.is_file()]
    assert done.size_bytes == sum(path.stat().st_size for path in files)
    assert done.age_s == pytest.approx(time.time() - max(path.stat().st_mtime for path in files), abs=2)
    assert now.holder is not None
    assert now.holder.endswith(f" on {HERE}")
    assert 12 < (now.step or 0) < (now.total_steps or 0) == 100_000
    assert rows["begun"].val_loss_nats is None


@pytest.mark.slow
def test_asking_who_holds_a_lock_neither_takes_nor_breaks_it(in_training):
    before = lines(in_training)
    for _ in range(20):
        assert is_locked(in_training / ".lock")
    wait_until("it goes on", lambda: lines(in_training) > before)
    assert is_locked(in_training.parent / "done" / ".lock") is False
    assert is_locked(in_training.parent / "none") is None


DAMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a config that was cut": ("done", lambda run: (run / "config.yaml").write_text("model: {name: gp"), "config.yaml"),
    "a config of nothing": ("killed", lambda run: (run / "config.yaml").write_bytes(b"\0" * 500), "config.yaml"),
    "a config of another program": ("done", lambda run: (run / "config.yaml").write_text("a: 1"), "no model.name"),
    "a config that is a pipe": ("done", lambda run: replace_by_pipe(run / "config.yaml"), "config.yaml cannot be read"),
    "no metadata": ("killed", lambda run: (run / "metadata.json").unlink(), "metadata.json is missing"),
    "metadata that is no object": ("done", lambda run: (run / "metadata.json").write_text("[]"), "metadata.json"),
    "metrics that end in zeros": (
        "killed",
        lambda run: add(run / "metrics.jsonl", b"\0" * 90 + b"\n"),
        "the last line of metrics.jsonl",
    ),
    "metrics that are a pipe": ("done", lambda run: replace_by_pipe(run / "metrics.jsonl"), "metrics.jsonl"),
    "an end that cannot be read": ("done", lambda run: (run / "finished.json").write_text("{"), "finished.json"),
    "weights that were cut": ("done", lambda run: cut(run / "model.safetensors"), "model.safetensors is cut"),
    "a checkpoint that was cut": ("killed", lambda run: cut(newest(run)), "the run goes on from step"),
    "an empty checkpoint": ("killed", lambda run: os.truncate(newest(run), 0), "is cut or damaged"),
    "no checkpoint any more": ("killed", lambda run: shutil.rmtree(run / "checkpoints"), "all are gone"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_says_what_is_damaged_and_hides_no_other(runs, name):
    run, damage, said = DAMAGES[name]
    others = states(runs)
    damage(runs / run)
    row = describe_run(runs / run)
    assert row.state is State.damaged
    assert said in (row.problem or "")
    assert str(runs) not in (row.problem or "")
    assert states(runs) == others | {run: "damaged"}


@pytest.mark.slow
def test_a_folder_of_damaged_runs_is_listed_whole(runs):
    for number, (run, damage, _) in enumerate(DAMAGES.values()):
        shutil.copytree(runs / run, runs / f"damaged{number}")
        damage(runs / f"damaged{number}")
    done = run_command("python", "list_runs.py", str(runs))
    assert (done.returncode, done.stderr) == (0, "")
    for number in range(len(DAMAGES)):
        assert f"damaged{number}: {describe_run(runs / f'damaged{number}').problem}" in done.stdout
    assert f"1 interrupted, 1 begun, 1 done, {len(DAMAGES)} damaged" in done.stdout


@pytest.mark.slow
def test_what_is_shown_of_a_config_is_found_without_parsing_it_as_parsing_finds_it(runs):
    path = runs / "done" / "config.yaml"
    whole, parsed = path.read_text(), read_config(runs / "done")
    quick = plain_values(path)
    assert quick is not None
    assert quick == {key: parsed[key] for key in quick}
    assert {"model.name", "data.path", "seed", "direction"} <= quick.keys()
    assert all(parsed[key] is None for key in SHOWN - quick.keys())
    for old, new in (
        ("name: gpt_nano", "name: 'a: b'"),  # quotes, comments, references and damage are left to the parser
        ("name: gpt_nano", "name: gpt_nano # small"),
        ("name: gpt_nano", "name: *model"),
        ("  name: gpt_nano\n", ""),
        ("seed: 0\n", "seed: 0\n\x00\x00"),
        (whole[300:], ""),
    ):
        path.write_text(whole.replace(old, new, 1))
        assert plain_values(path) is None, new


@pytest.mark.slow
def test_losses_are_found_however_far_they_are_from_the_end(runs):
    path = runs / "done" / "metrics.jsonl"
    before = describe_run(runs / "done")
    add(path, b"".join(b'{"step": %d, "text": "%s"}\n' % (step, b"x" * 300) for step in range(13, 1000)))
    after = describe_run(runs / "done")
    assert after.step == 999
    assert (after.train_loss_nats, after.val_loss_nats) == (before.train_loss_nats, before.val_loss_nats)


@pytest.mark.slow
def test_what_a_kill_leaves_is_no_damage(runs):
    add(runs / "killed" / "metrics.jsonl", b'{"step": 900, "tra')
    (runs / "killed" / "checkpoints" / ".saving-ep0-ba9999-rank0.pt").write_bytes(b"PK")
    shutil.rmtree(runs / "done" / "checkpoints")  # to make room
    for path in (runs / "begun").iterdir():
        if path.name not in (".lock", "config.yaml"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert states(runs) == {"begun": "begun", "done": "done", "killed": "interrupted"}
    (runs / "done" / "model.safetensors").unlink()
    assert describe_run(runs / "done").problem == "model.safetensors is gone"


@pytest.mark.slow
def test_a_run_that_was_made_longer_is_not_done(runs):
    path = runs / "done" / "metadata.json"
    path.write_text(path.read_text().replace('"total_steps": 12', '"total_steps": 24'))
    assert states(runs)["done"] == "interrupted"


@pytest.mark.slow
def test_where_locks_do_not_tell_a_run_trains_while_it_writes(runs):
    for run in ("killed", "done"):
        (runs / run / ".lock").write_text("process 7 on elsewhere\n")
        os.utime(runs / run / ".lock")
    row = describe_run(runs / "killed")
    assert (row.state, row.holder) == (State.training, "process 7 on elsewhere, by what it writes")
    assert states(runs)["done"] == "done"
    for path in (runs / "killed").rglob("*"):
        os.utime(path, (time.time() - 3600, time.time() - 3600))
    assert describe_run(runs / "killed").state is State.interrupted


@pytest.mark.slow
def test_runs_are_found_in_studies_and_nothing_else_is(runs, tmp_path):
    (runs / "study-tiny").mkdir()
    shutil.copytree(runs / "done", runs / "study-tiny" / "english-forward")
    shutil.copytree(runs / "done", runs / ".sweep")
    shutil.copytree(runs / "done", runs / "study-tiny" / ".hidden")
    shutil.copytree(runs / "done", runs / "a" / "b" / "too-deep")
    (runs / "outputs" / "checkpoints").mkdir(parents=True)
    (runs / "outputs" / "config.yaml").write_text("of: another program")
    (runs / "notes.txt").touch()
    (runs / "nowhere").symlink_to(tmp_path / "none")
    assert list(states(runs)) == ["begun", "done", "killed", "study-tiny/english-forward"]
    assert list(states(runs / "done")) == ["done"]
    assert list(states(runs, name="*english*")) == ["study-tiny/english-forward"]
    assert list(states(runs, state=State.interrupted)) == ["killed"]
    with pytest.raises(InputError, match=r"runs_dir=.*none is no folder"):
        states(tmp_path / "none")


@pytest.mark.slow
def test_a_run_of_somebody_else_commands_no_terminal(runs):
    for name, old, new in (("config.yaml", "name: gpt_nano", 'name: "a\\e[2Jb\\nc"'), (".lock", "process", "\x1b[2J")):
        path = runs / "done" / name
        path.write_text(path.read_text().replace(old, new))
    table = run_command("python", "list_runs.py", str(runs)).stdout
    assert "a\\x1b[2Jb\\nc" in table
    assert "\x1b" not in table


def row(name: str, **values: Any) -> RunRow:
    return RunRow(name, f"runs/{name}", **{"state": State.done, **values})


ROWS = [
    row("seed10", val_loss_nats=3.5, step=5, total_steps=10, size_bytes=5, train_loss_nats=12.25),
    row("seed9", val_loss_nats=4.5, step=500, total_steps=10_000, state=State.training, seed=12),
    row("other", val_loss_nats=None, size_bytes=1_500_000, model="gpt_medium_with_a_long_name", order="words"),
    row("lost", val_loss_nats=float("nan"), state=State.damaged, problem="it is gone", age_s=7200),
]


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("run", ["lost", "other", "seed9", "seed10"]),
        ("-run", ["seed10", "seed9", "other", "lost"]),
        ("loss", ["seed10", "seed9", "lost", "other"]),
        ("-loss", ["seed9", "seed10", "lost", "other"]),
        ("step", ["seed9", "seed10", "lost", "other"]),
        ("-size", ["other", "seed10", "lost", "seed9"]),
        ("-age", ["lost", "other", "seed9", "seed10"]),
        ("state", ["seed9", "other", "seed10", "lost"]),
    ],
)
def test_rows_are_sorted_by_a_column_and_those_without_a_value_come_last(by, names):
    found = [row.name for row in sorted_rows(ROWS, by)]
    assert sorted(found[: len(names)]) == sorted(names)
    if by in (
        "-size",
        "-age",
        "state",
    ):  # equal ones stay in the order of their names, which is reversed from the top down
        assert found[0] == names[0]
    else:
        assert found == names


@pytest.mark.parametrize("columns", [200, 100, 80, 60, 40, 20])
def test_the_table_fits_the_terminal_and_its_numbers_are_aligned(columns):
    wide = [*ROWS, row("日本語のとても長い名前のラン", order="backward", data="data/日本"), row("l" * 300)]
    told = table_of_rows(wide, columns).splitlines()
    head, body = told[0], told[1 : 1 + len(wide)]
    assert all(sum(2 if each > "\u2e80" else 1 for each in line) <= columns for line in told)
    ends = {name: head.index(f" {name}") + len(name) + 1 for name in ("step", "loss") if f" {name}" in head}
    assert columns < 60 or set(ends) == {"step", "loss"}
    for line in body[:2]:  # of names without wide characters
        assert all(line[end - 1].isdigit() and line[end : end + 1] in ("", " ") for end in ends.values())
    assert columns < 100 or "state" in head


def test_a_table_for_a_small_screen_says_how_many_runs_it_leaves_out():
    many = [row(f"run{number}") for number in range(100)]
    told = table_of_rows(many, 80, 20).splitlines()
    assert len(told) == 20
    assert any("83 more runs" in line for line in told)
    assert table_of_rows(many).count("\n") == 101
    assert table_of_rows([]) == "0 runs; 0 B"


def test_ages_are_said_as_people_say_them():
    assert [age(seconds) for seconds in (3.4, 300, 7200, 9e5)] == ["3 s", "5 min", "2 h", "10 days"]


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["--json", "json=true"])
def test_json_has_an_object_for_each_run_with_all_digits(runs, asked):
    add(runs / "killed" / "metrics.jsonl", b'{"step": 900, "train/loss_nats": NaN}\n')
    done = run_command("python", "list_runs.py", str(runs), asked, "sort=-step")
    found = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [each["name"] for each in found] == ["done", "killed", "begun"]
    expected = describe_run(runs / "done")
    assert found[0]["val_loss_nats"] == expected.val_loss_nats
    assert found[0]["state"] == "done"
    assert (found[1]["step"], found[1]["train_loss_nats"]) == (900, None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("sort=speed", f"sort=speed is no column; choose one of {', '.join(COLUMNS)}"),
        ("watch=0", "watch=0.0 must be greater than 0"),
        ("runs_dir=s3://bucket/runs", "runs_dir=s3://bucket/runs is not on this machine"),
        ("state=lost", "state"),
    ],
)
def test_bad_keys_are_answered_in_a_line(given, said):
    done = run_command("python", "list_runs.py", given)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_watched_table_is_drawn_in_one_place_and_ends_with_ctrl_c(runs, tmp_path):
    command = [sys.executable, str(ROOT / "list_runs.py"), str(runs), "watch=0.1"]
    with in_terminal(command, {"TMPDIR": str(tmp_path)}, rows=12, columns=90) as terminal:
        terminal.wait_for_drawing("3 runs: ")
        add(runs / "killed" / "metrics.jsonl", b'{"step": 777, "train/loss_nats": 1.5}\n')
        shown = terminal.wait_for_drawing("777/100,000")
        assert shown.count("state") == 1
        assert "1.5000" in shown
        shutil.rmtree(runs / "begun")
        shown = terminal.wait_for_drawing("2 runs: ")
        assert "3 runs: " not in shown
        assert "begun" not in shown
        terminal.process.send_signal(signal.SIGINT)  # what the terminal of a shell does on Ctrl-C
        assert terminal.end() == 0
        assert not terminal.screen.unknown
        assert "Traceback" not in terminal.screen.text()


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["json=true"]])
def test_in_a_log_each_table_is_below_the_one_before(runs, more):
    command = [sys.executable, str(ROOT / "list_runs.py"), str(runs), "watch=0.1", *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = "".join(process.stdout.readline() for _ in range(14 if not more else 2))
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert "\x1b" not in told + rest
    if more:
        assert len(json.loads(told.splitlines()[1])) == 3
    else:
        assert told.splitlines()[1].split() == list(COLUMNS)
        assert told.splitlines()[8] == told.splitlines()[1]
