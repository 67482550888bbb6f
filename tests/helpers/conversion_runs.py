"""What the tests of conversions share: a corpus of many parts, and conversions that are started to be interrupted."""

import hashlib
import json
import lzma
import os
import subprocess
import sys

import pytest

from helpers.processes import ROOT
from helpers.small_data import make_text
from hindsight.conversion import workers as conversion_workers
from hindsight.shards.integrity import RECORD_NAME


def contents(folder):
    """The bytes of every file that a conversion has written, by its path."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RECORD_NAME)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="session")
def large_corpus(tmp_path_factory):
    """About 120 parts: a large file, many small ones, and a compressed one that one process reads for all."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "1.txt").write_text(make_text(800, seed=1), encoding="utf-8")
    for number in range(60):
        (folder / f"2.{number:02}.txt").write_text(make_text(2, seed=100 + number), encoding="utf-8")
    lines = (json.dumps({"text": text}) for text in make_text(800, seed=3).split("\n\n"))
    (folder / "3.jsonl").write_text("\n".join(lines))
    (folder / "4.txt.xz").write_bytes(lzma.compress((folder / "1.txt").read_bytes()))
    return folder


START = """
import sys, {script}
from hindsight.conversion import workers
from hindsight.text import documents, parts
documents.PART_BYTES, parts.SMALL_FILE_BYTES = 4000, 1000
workers.SAVE_INTERVAL_S = 0.02
from helpers.small_data import convert_config
from hindsight.command_line import one_line_errors
from hindsight.config.conversion import Engine
from pathlib import Path
settings = dict(workers=int(sys.argv[4]), engine=Engine[sys.argv[5]], dask_scheduler=sys.argv[6] or None)
with one_line_errors("{script}"):
    {script}.main(convert_config(*map(Path, sys.argv[1:4]), **settings))
"""


def start(script, corpus, tokenizer_dir, out, workers=2, engine="local", dask_scheduler=""):
    """Start a conversion in a process group of its own; what it says goes to a file beside its output."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    code = START.format(script=script)
    arguments = [corpus, tokenizer_dir, out, workers, engine, dask_scheduler]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with out.with_name(f"{out.name}.log").open("w") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def run_to_the_end(process, out):
    assert process.wait(timeout=120) == 0, out.with_name(f"{out.name}.log").read_text()


def parts_done(work):
    """How many parts a conversion has made, as far as can be seen from outside."""
    try:
        waiting = [int(path.stem) for path in (work / "parts").glob("[0-9]*.npz")]
        return max([*(number + 1 for number in waiting), len((work / "parts.log").read_text().splitlines())])
    except OSError:
        return 0


def stop_after(monkeypatch, n_parts, error=KeyboardInterrupt):
    """Have the making of a part fail after so many."""
    made = 0
    make = conversion_workers._make

    def limited(*arguments):
        nonlocal made
        made += 1
        if made > n_parts:
            raise error
        return make(*arguments)

    monkeypatch.setattr(conversion_workers, "_make", limited)
