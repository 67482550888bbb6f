import re
import shlex
import shutil
from pathlib import Path

import pytest
from helpers.processes import ROOT, run_command
from helpers.small_data import make_text

# What makes a command of the README small enough for a test; the command itself stays as it is shown.
SMALL_MODEL = ["model.n_layers=1", "model.d_model=16", "model.n_heads=2", "model.context_length=32"]
NAME_OF_SMALL = "gpt_micro-l1-d16-ctx32-h2"
"""What the names of these runs begin with, in place of gpt_micro."""
SMALL_RUN = ["max_duration=2ba", "batch_size=2", "samples.interval=null", "optim.warmup_steps=0", "wandb.mode=disabled"]
ADDED = {
    "train_tokenizer.py": ["vocab_size=300"],
    "convert_to_mds.py": ["val_share=0.2"],
    "inspect_mds.py": [],
    "train_composer.py": [*SMALL_MODEL, *SMALL_RUN],
    "evaluate_tokens.py": [],
    "compare_directions.py": [],
    "generate_text.py": ["length=5"],
    "export_hf.py": [],
    "run_study.py": [],
    "list_runs.py": [],
}
# `make test` runs this; the demo is its own test.
NOT_RUN_HERE = {"make demo", "make test", "make check", "source .venv/bin/activate"}


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_the_readme_shows_its_test_command_and_ci_runs_it():
    assert "make test" in commands()
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.timeout(600)
def test_every_command_of_the_readme_runs_in_the_order_shown(tmp_path: Path, shards: Path):
    for path in ROOT.glob("*.py"):
        shutil.copy(path, tmp_path)
    for folder in ("conf", "hindsight"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copytree(shards, tmp_path / "demo" / "bible")  # what `make demo` leaves
    (tmp_path / "novels").mkdir()
    for number in range(3):
        text = make_text(n_documents=40, seed=number)
        (tmp_path / "novels" / f"{number}.txt").write_text(text, encoding="utf-8")
    shown = [command for command in commands() if command not in NOT_RUN_HERE]
    assert len(shown) >= 8
    for command in shown:
        words = shlex.split(command)
        script = next(word for word in words if word.endswith(".py"))
        added = [] if "--help" in words else ADDED[script]
        if script in ("evaluate_tokens.py", "compare_directions.py", "generate_text.py", "export_hf.py"):
            words = [word.replace("gpt_micro", NAME_OF_SMALL) for word in words]
        done = run_command(*words, *added, cwd=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    made = (
        "data/novels/manifest.json",
        "comparison/comparison.png",
        "comparison/report.html",
        "exported/forward/README.md",
    )
    assert all((tmp_path / name).is_file() for name in made)
    runs = {path.name for path in (tmp_path / "runs").iterdir()}
    named = {f"{NAME_OF_SMALL}-{data}-seed0" for data in ("bible-backward", "novels-forward", "novels-backward")}
    assert runs == {*named, "demo-tiny"}
