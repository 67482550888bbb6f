"""Hundreds of faults: `make soak`, or `PYTHONPATH=.:tests python tests/faults/soak.py TRIES SEED`; prints a table.

Each try is a run of its own that meets its fault at a random moment and is started again by the same command. Beside it
two other runs, of one process and of two, begin and end on the same data all the time.
"""

import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.killed_runs import RUN, ForkServer, kill_group
from helpers.small_data import convert_config, make_text
from helpers.training_runs import lines, losses
from tqdm import tqdm

import convert_to_mds
import train_tokenizer
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.training.checkpoint_files import checkpoints_in


def cut_newest(folder: Path, rng: random.Random) -> None:
    """Cut the newest checkpoint at any byte."""
    for path in checkpoints_in(folder / "checkpoints")[:1]:
        os.truncate(path, rng.randrange(path.stat().st_size))


FAULTS: dict[str, tuple[int, int, Callable[[list[int], random.Random], None], bool]] = {
    "SIGKILL to all": (1, 0, lambda processes, _: kill_group(processes), False),
    "SIGKILL to all, 2 readers": (1, 2, lambda processes, _: kill_group(processes), False),
    "SIGKILL to the training process, 2 readers": (1, 2, lambda processes, _: end(processes[0]), False),
    "SIGKILL to all, 2 processes": (2, 0, lambda processes, _: kill_group(processes), False),
    "SIGKILL to one of 2 processes": (2, 0, lambda processes, rng: end(rng.choice(processes)), False),
    "SIGKILL, newest checkpoint cut": (1, 0, lambda processes, _: kill_group(processes), True),
    "SIGTERM": (1, 0, lambda processes, _: kill_group(processes, signal.SIGTERM), False),
    "SIGUSR1 to one of 2 processes": (2, 0, lambda processes, rng: end(rng.choice(processes), signal.SIGUSR1), False),
}
"""Processes, readers of each, the fault, and whether the newest checkpoint is cut after it."""


def end(process: int, number: int = signal.SIGKILL) -> None:
    """Send a signal, unless the process has ended."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return


def soak(tries: int, seed: int, folder: Path) -> str:
    """Meet every fault so many times; the table."""
    fork_server = ForkServer(folder)
    shards = make_data(folder)
    whole = {}
    for ranks in (1, 2):
        assert fork_server.run(
            [*RUN, f"data.path={shards}", f"runs_dir={folder}", f"run_name=whole{ranks}"], ranks
        ) == ([0] * ranks), fork_server.output()
        whole[ranks] = losses(folder / f"whole{ranks}")
    told: dict[str, list[tuple[bool, bool, float]]] = defaultdict(list)
    with neighbours(fork_server, folder, shards) as ended, tqdm(total=tries * len(FAULTS), disable=None) as bar:
        for number in range(tries):
            for fault in FAULTS:
                name = f"{fault.replace(' ', '_').replace(',', '')}-{number}"
                arguments = [*RUN, f"data.path={shards}", f"runs_dir={folder}", f"run_name={name}"]
                rng = random.Random(f"{seed} {name}")
                told[fault].append(meet(fork_server, arguments, folder / name, fault, rng, whole))
                bar.update()
    fork_server.close()
    table = ["| fault | tries | survived | losses identical | seconds to resume |", "|---|---|---|---|---|"]
    for fault, results in told.items():
        survived, same = sum(r[0] for r in results), sum(r[1] for r in results)
        resumed = [r[2] for r in results if r[2] > 0]
        typical = f"{statistics.median(resumed):.2f} (at most {max(resumed):.2f})" if resumed else ""
        table.append(f"| {fault} | {len(results)} | {survived} | {same} | {typical} |")
    wrong = [statuses for statuses in ended if set(statuses) != {0}]
    return "\n".join([*table, "", f"{len(ended)} runs began and ended beside them, {len(wrong)} not with status 0"])


@contextmanager
def neighbours(fork_server: ForkServer, folder: Path, shards: Path) -> Iterator[list[list[int]]]:
    """Let two other runs begin and end, over and over; the exit statuses of those that have ended."""
    ended: list[list[int]] = []
    is_over = threading.Event()

    def train(server: ForkServer, ranks: int) -> None:
        arguments = [*RUN, f"data.path={shards}", "max_duration=6ba", f"data.num_workers={2 - ranks}"]
        while not is_over.is_set():
            run = [f"runs_dir={folder}", f"run_name=beside{ranks}-{len(ended)}"]
            ended.append(server.run([*arguments, *run], ranks))
            if set(ended[-1]) != {0}:
                sys.stderr.write(f"beside, {ranks} processes: {server.output()}\n")

    servers, threads = [], []
    for ranks in (1, 2):
        (folder / f"neighbour{ranks}").mkdir()
        servers.append(fork_server.another(folder / f"neighbour{ranks}"))
        threads.append(threading.Thread(target=train, args=(servers[-1], ranks)))
    for thread in threads:
        thread.start()
    try:
        yield ended
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
        for server in servers:
            server.close()


def meet(
    fork_server: ForkServer, arguments: list[str], folder: Path, fault: str, rng: random.Random, whole: dict
) -> tuple[bool, bool, float]:
    """Meet a fault once: whether the run came to its end, with which losses, and seconds to the first new step."""
    ranks, readers, strike, is_cut = FAULTS[fault]
    arguments = [*arguments, f"data.num_workers={readers}"]
    processes = fork_server.start(arguments, ranks)
    delay = rng.uniform(0.05, 3.0 * ranks)
    time.sleep(delay)
    strike(processes, rng)
    fork_server.statuses()
    if is_cut:
        cut_newest(folder, rng)
    before, began, first = lines(folder), time.monotonic(), 0.0
    fork_server.start(arguments, ranks)
    while fork_server.is_running():
        if not first and lines(folder) not in (0, before):
            first = time.monotonic() - began
        time.sleep(0.005)
    survived = fork_server.statuses() == [0] * ranks
    if not survived:
        sys.stderr.write(f"{folder.name}, after {delay:.3f} s: {fork_server.output()}\n")
    return survived, survived and losses(folder) == whole[ranks], first


def make_data(folder: Path) -> Path:
    """Convert a small text."""
    (folder / "corpus.txt").write_text(make_text(n_documents=120, seed=1), encoding="utf-8")
    train_tokenizer.main(
        TokenizerConfig(corpus=str(folder / "corpus.txt"), out=str(folder / "tokenizer"), vocab_size=300)
    )
    convert_to_mds.main(convert_config(folder / "corpus.txt", folder / "tokenizer", folder / "shards"))
    return folder / "shards"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        sys.stdout.write(soak(int(sys.argv[1]), int(sys.argv[2]), Path(temporary)) + "\n")
