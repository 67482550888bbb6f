"""Starts training processes again and again without the seconds that imports take, as forks of one that has made them.

Like composer's launcher it ends all processes of an attempt, SIGTERM first, when one of them fails.

A line of JSON on standard input is an attempt: {"script": name, "arguments": [...], "ranks": 2, "log": path,
"environment": {...}}. It is answered with the processes' numbers, and, when all have ended, with their exit statuses
(-9 after SIGKILL). The line {"pipes": [requests, answers]} starts another server on these named pipes, and is answered
with its number.
"""

import gc
import json
import os
import signal
import socket
import sys
import tempfile
import time
from typing import TextIO

import composer.algorithms  # noqa: F401 - Composer imports them, and with them Hugging Face's models, when it trains
from composer.utils.collect_env import get_cpu_model

import evaluate_tokens
import train_composer
from helpers import recording_run
from helpers.training_runs import TINY, compose_config
from hindsight import interrupts
from hindsight.command_line import run_script
from hindsight.evaluation import losses_in_work
from hindsight.machine import let_threads_run_before_forks

TERM_TO_KILL_S = 30


def warm_up() -> None:
    """Do what each attempt would do again, and what it only does once."""
    let_threads_run_before_forks()
    get_cpu_model()  # a process of its own for what Composer then remembers: 1 s
    compose_config("train_composer", "direction=forward", *TINY)  # 0.3 s for what Hydra imports
    gc.freeze()  # a child that looks at what was imported would copy it


def serve(requests: TextIO) -> None:
    """Answer until there are no more requests; a forked child returns from here into its own end."""
    for line in requests:
        attempt = json.loads(line)
        if "pipes" in attempt:
            process = os.fork()
            if process == 0:
                become_another(*attempt["pipes"])
                return
            print(process, flush=True)
            continue
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = []
        for rank in range(attempt["ranks"]):
            group = processes[0] if processes else 0
            process = os.fork()
            os.setpgid(process, group)  # in both: before the attempt starts processes, and before it is answered
            if process == 0:
                begin(attempt, rank, port)
                return
            processes.append(process)
        print(json.dumps(processes), flush=True)
        statuses = wait_for_all(processes)
        print(json.dumps([statuses[process] for process in processes]), flush=True)


def become_another(requests: str, answers: str) -> None:
    """Serve on named pipes."""
    with open(requests) as more:
        os.dup2(os.open(answers, os.O_WRONLY), 1)
        serve(more)


def wait_for_all(processes: list[int]) -> dict[int, int]:
    """Wait for the end of all processes; the first that fails takes the others along, as under composer's launcher."""
    statuses: dict[int, int] = {}
    kill_at = None
    while left := [process for process in processes if process not in statuses]:
        for process in left:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                statuses[process] = os.waitstatus_to_exitcode(status)
        left = [process for process in left if process not in statuses]
        if any(statuses.values()) and kill_at is None:
            kill_at = time.monotonic() + TERM_TO_KILL_S
            for process in left:
                os.kill(process, signal.SIGTERM)
        elif kill_at is not None and time.monotonic() > kill_at:
            for process in left:
                os.kill(process, signal.SIGKILL)
        time.sleep(0.005)
    return statuses


def begin(attempt: dict, rank: int, port: int) -> None:
    """Become a rank of a run: its output into a file, its place in the environment as composer's launcher gives it."""
    log = os.open(f"{attempt['log']}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in ((0, nothing), (1, log), (2, log)):
        os.dup2(descriptor, number)
    ranks = str(attempt["ranks"])
    os.environ |= attempt["environment"]
    tempfile.tempdir = None  # which is read from the environment once
    if attempt["ranks"] > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        os.environ |= {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which it is not where all tests were started by nohup
    interrupts.handle_signals()
    sys.argv = [f"{attempt['script']}.py", *attempt["arguments"]]
    if attempt["script"] == "evaluate_tokens":
        losses_in_work.PART_TOKENS = 64  # so that small data has many parts
        evaluate_tokens.begin()
        run_script("evaluate_tokens", evaluate_tokens.main, alone="run")
    else:
        train_composer.begin()
        is_kept = attempt["script"] == "recording_run"
        run_script("train_composer", recording_run.train_and_write if is_kept else train_composer.main)


if __name__ == "__main__":
    warm_up()
    print("ready", flush=True)
    serve(sys.stdin)
