"""What the tests of faults share: attempts to train that are killed, and what must be the same afterwards."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from helpers.processes import ROOT, is_alive, skip, wait_until
from helpers.training_runs import TINY, Losses, last_of_each, losses

STEPS = 48
RUN = [
    *TINY,
    "direction=backward",
    f"max_duration={STEPS}ba",
    "model.dropout=0.2",
    "model.embedding_dropout=0.1",
    "checkpoint.interval=4ba",
    "eval_interval=10ba",
    "eval_batches=2",
    "optim.schedule=constant",
    "optim.cooldown_share=0",
]
"""A run with everything that must go on exactly: dropout, several epochs, evaluations, checkpoints."""


class ForkServer:
    """A process that starts training processes by forking; see fork_server.py.

    Args:
        folder: for its output.
        temporary: for temporary files; None for `folder`.
        become: command that runs another, as another user.
    """

    def __init__(self, folder: Path, temporary: Path | None = None, become: Sequence[str] = ()) -> None:
        self.log = folder / "log"
        self.temporary = str(temporary or folder)
        self.under_way: list[int] = []
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "TMPDIR": self.temporary,
        }
        self.process = subprocess.Popen(
            [*become, sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.pid, self.requests, self.answers = self.process.pid, self.process.stdin, self.process.stdout
        assert self.answers.readline() == "ready\n"

    def another(self, folder: Path, temporary: Path | None = None) -> "ForkServer":
        """Fork another server of the same user, for attempts beside those of this one, which must have none under way.

        Args:
            folder: for its output.
            temporary: for temporary files; None for `folder`.
        """
        assert not self.under_way
        pipes = [folder / "requests", folder / "answers"]
        for pipe in pipes:
            os.mkfifo(pipe)
        other = ForkServer.__new__(ForkServer)
        other.log = folder / "log"
        other.temporary = str(temporary or folder)
        other.under_way = []
        other.process, other.pid = None, self._ask({"pipes": [str(pipe) for pipe in pipes]})
        other.requests, other.answers = pipes[0].open("w"), pipes[1].open()
        return other

    def start(
        self,
        arguments: list[str],
        ranks: int = 1,
        environment: dict[str, str] | None = None,
        script: str = "train_composer",
    ) -> list[int]:
        """Begin an attempt; numbers of its processes, which are one group."""
        if self.under_way:  # that of a test which ran into its time limit
            kill_group(self.under_way)
            self.statuses()
        for path in self.log.parent.glob(self.log.name + ".*"):
            path.unlink()
        attempt = {"script": script, "arguments": last_of_each(arguments), "ranks": ranks, "log": str(self.log)}
        attempt["environment"] = {"TMPDIR": self.temporary, **(environment or {})}
        self.under_way = self._ask(attempt)
        return self.under_way

    def statuses(self) -> list[int]:
        """Wait for the end of the attempt; exit statuses of its processes."""
        answer = json.loads(self.answers.readline())
        self.under_way = []
        return answer

    def reaches(self, is_so: Callable[[], object], interval_s: float = 0.002) -> bool:
        """Wait until the attempt has come so far; False if it ends before."""
        return wait_until(
            "the moment in a run",
            is_so,
            60,
            interval_s,
            lambda: not any(is_alive(process) for process in self.under_way),
        )

    def is_running(self) -> bool:
        """Whether the attempt has not ended yet."""
        return not select.select([self.answers], [], [], 0)[0]

    def run(
        self,
        arguments: list[str],
        ranks: int = 1,
        environment: dict[str, str] | None = None,
        script: str = "train_composer",
    ) -> list[int]:
        """Make an attempt that nobody disturbs."""
        self.start(arguments, ranks, environment, script)
        return self.statuses()

    def output(self) -> str:
        """What the attempt has written so far."""
        return "".join(path.read_text() for path in sorted(self.log.parent.glob(self.log.name + ".*")))

    def close(self) -> None:
        """End it, and an attempt that a test which failed has left."""
        if self.under_way:
            kill_group(self.under_way)
        os.kill(self.pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        self.requests.close()
        self.answers.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        self.requests.write(json.dumps(request) + "\n")
        self.requests.flush()
        return json.loads(self.answers.readline())


def kill_group(processes: list[int], number: int = signal.SIGKILL) -> None:
    """Send a signal to all processes of an attempt and their children, unless all have ended."""
    with suppress(ProcessLookupError):
        os.killpg(processes[0], number)


def shared_memory(processes: list[int]) -> set[str]:
    """Files below /dev/shm that processes, or their children, have open or mapped."""
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            if os.getpgid(int(process.name)) in processes:
                found |= {line.split()[-1] for line in (process / "maps").read_text().splitlines() if "/" in line}
                found |= {os.readlink(link) for link in (process / "fd").iterdir()}
    return {name for name in found if name.startswith("/dev/shm/")}  # noqa: S108


def kill_at_random(
    server: ForkServer, arguments: list[str], runs: Path, ranks: int, kills: int, seed: int, longest_s: float
) -> list[Path]:
    """Kill a run at random moments until enough kills have hit it; one that ends is followed by another.

    A kill hits the whole group, or (one time in four) one process alone, whose end takes the others along.

    Returns:
        The folders of the runs, all of which have come to their end.
    """
    rng = random.Random(seed)
    folders, hits = [runs / "killed0"], 0
    while hits < kills:
        processes = server.start([*arguments, f"runs_dir={runs}", f"run_name={folders[-1].name}"], ranks)
        delay, alone = rng.uniform(0.1, 1) * longest_s, rng.random() < 0.25
        time.sleep(delay)
        if alone:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(processes), signal.SIGKILL)
        else:
            kill_group(processes)
        statuses = server.statuses()
        whom = "one" if alone else "all"
        sys.stdout.write(f"seed {seed}, {folders[-1].name} after {delay:.3f} s, {whom}: {statuses}\n")
        # Who loses another process fails, or is ended by the launcher, with 75 if its handlers were there.
        possible = {-signal.SIGKILL, 0} | ({1, 75, -signal.SIGTERM} if alone and ranks > 1 else set())
        assert set(statuses) <= possible, server.output()
        hits += -signal.SIGKILL in statuses
        if statuses == [0] * ranks:
            folders.append(runs / f"killed{len(folders)}")
    assert server.run([*arguments, f"runs_dir={runs}", f"run_name={folders[-1].name}"], ranks) == [0] * ranks
    return folders


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    server = ForkServer(tmp_path_factory.mktemp("fork-server"))
    yield server
    server.close()


class Undisturbed(NamedTuple):
    """A run that nobody disturbs."""

    losses: list[Losses]
    seconds: float


@pytest.fixture(scope="session")
def undisturbed(
    fork_server: ForkServer, shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Undisturbed]:
    """Runs that nobody disturbs, by the number of their processes."""
    runs = tmp_path_factory.mktemp("runs")
    found = {}
    for ranks in (1, 2):
        arguments = [*RUN, f"data.path={shards}", f"runs_dir={runs}", f"run_name=whole{ranks}"]
        began = time.monotonic()
        assert fork_server.run(arguments, ranks) == [0] * ranks, fork_server.output()
        found[ranks] = Undisturbed(losses(runs / f"whole{ranks}"), time.monotonic() - began)
        assert [line.step for line in found[ranks].losses] == [*range(1, STEPS + 1)]
    return found


@pytest.fixture(scope="session")
def whole(undisturbed: dict[int, Undisturbed]) -> dict[int, list[Losses]]:
    """Losses of runs that nobody disturbs, by the number of their processes."""
    return {ranks: run.losses for ranks, run in undisturbed.items()}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB, for what happens when it is full."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], check=False).returncode:
        skip("a small disk cannot be mounted here, which takes root")
    yield place
    subprocess.run(["umount", str(place)], check=True)
