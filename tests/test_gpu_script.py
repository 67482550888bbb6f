"""benchmarks/gpu.sh, tried without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.processes import ROOT, run_command

STAGES = ["chunked", "tests", "forward", "backward"]


def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    given = {"PYTHON": sys.executable, "DEVICE": "cpu", "WHEELS": "none", "VOCAB_SIZE": "300", "VAL_SHARE": "0.2"}
    return subprocess.run(
        ["bash", "benchmarks/gpu.sh", *arguments],
        cwd=ROOT,
        env={**os.environ, **given, **variables},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def rows(folder: Path) -> dict[str, list[str]]:
    lines = (folder / "table.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    return {name: rest for name, *rest in cells}


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.timeout(600)
def test_all_stages_end_in_one_table_and_a_second_call_makes_those_that_failed(corpus, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    prepared = call("prepare", str(corpus), DATA=str(data))
    assert prepared.returncode == 0, prepared.stderr
    call("run", str(out), DATA=str(data), BUDGET="1")
    assert {rows(out)[f"stage {name}"][0] for name in ("chunked", "train forward")} == {"no time was left, 0 s"}
    done = call("run", str(out), DATA=str(data))
    log = (out / "log.txt").read_text()
    assert done.returncode == 0, log
    assert [line.split("\t")[:2] for line in (out / "stages.tsv").read_text().splitlines()] == [
        [stage, "0"] for stage in STAGES
    ], log
    table = rows(out)
    assert "tokens/s" in table["chunked: bare (fp32, loss=chunked), gpt_nano, 4 x 32"][0]
    assert "nats/token" in table["backward on real text, 10 steps"][0]
    assert "backward over forward, one seed: says nothing of the arrow" in table
    assert "skipped" in table["tests marked gpu"][0]
    again = call("run", str(out), DATA=str(data))
    assert [f"{stage}: done before" in again.stdout for stage in STAGES] == [True] * len(STAGES)
    assert len([path for path in out.rglob("*") if path.is_file()]) <= 8  # what a lent machine sends back


def test_without_data_the_script_says_how_it_is_made(tmp_path):
    refused = call("run", str(tmp_path / "out"), DATA=str(tmp_path / "none"))
    assert refused.returncode == 2
    assert refused.stderr.endswith("holds no shards; make them: benchmarks/gpu.sh prepare CORPUS\n")
    assert call().stderr == "benchmarks/gpu.sh: give prepare CORPUS, run [FOLDER], or tests\n"
    assert "does not exist" in call("prepare", str(tmp_path / "none.txt")).stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_script_takes_all_files_with_tests_that_need_a_gpu():
    found = run_command("python", "-m", "pytest", "-n0", "-q", "-m", "gpu", "--collect-only", "-p", "no:cacheprovider")
    files = {line.partition("::")[0] for line in found.stdout.splitlines() if "::" in line}
    assert "tests/test_step.py" in files, found.stderr
    assert set(call("tests").stdout.split()) == files - {"tests/test_throughput.py"}
