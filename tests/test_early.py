"""What a start imports, and what it does before its turn."""

import json
from pathlib import Path

import pytest
from helpers.processes import ROOT, run_command
from helpers.training_runs import settings

from hindsight.config.schemas import SCHEMAS

LIGHT = sorted({path.stem for path in ROOT.glob("*.py")} & set(SCHEMAS) - {"train_composer"})
SECONDS = {
    *("torch", "composer", "streaming", "torchmetrics", "transformers", "wandb", "boto3", "botocore", "matplotlib"),
    *("pandas", "scipy", "sklearn", "h5py", "pyarrow", "datasets", "distributed", "statsmodels", "jinja2", "requests"),
}
"""Packages that take a part of a second or more, of which no command needs one to check its arguments."""
UNASKED = {
    *("boto3", "botocore", "h5py", "datasets", "distributed", "statsmodels", "codecarbon", "tensorboard", "tensorflow"),
    *("mlflow", "accelerate", "lm_eval", "polars", "duckdb", "IPython", "tiktoken", "pytest"),
    *("hindsight.analysis", "hindsight.conversion", "hindsight.export", "hindsight.planning"),
}
"""What a training on local MDS shards with W&B does not use; Composer and torchmetrics bring pandas, scipy and more."""
HELP_OF_ALL = """
import importlib, json, sys
from hindsight.command_line import help_text
imported = {}
for command in sys.argv[1:]:
    importlib.import_module(command)
    help_text(command)
    imported[command] = [*sys.modules]
print(json.dumps(imported))
"""
SHOW_IMPORTED = """
import atexit, json, runpy, sys
atexit.register(lambda: print(json.dumps([*sys.modules]), file=sys.stderr))
sys.path.insert(0, "")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def rooms(modules: list[str]) -> set[str]:
    """Packages, and the rooms of ours."""
    return {".".join(name.split(".")[:depth]) for name in modules for depth in (1, 2)}


def test_commands_answer_help_without_what_takes_seconds():
    done = run_command("python", "-c", HELP_OF_ALL, *LIGHT)
    assert done.returncode == 0, done.stderr
    for command, imported in json.loads(done.stdout).items():
        assert not rooms(imported) & SECONDS, command


@pytest.mark.slow
def test_a_training_imports_nothing_unasked_and_wandb_before_torch(shards: Path, tmp_path: Path):
    arguments = settings(shards, tmp_path, "run_name=a", "max_duration=1ba", "wandb.mode=offline")
    done = run_command("python", "-c", SHOW_IMPORTED, "train_composer.py", *arguments)
    assert done.returncode == 0, done.stderr
    imported = json.loads(done.stderr.splitlines()[-1])
    assert not rooms(imported) & UNASKED
    assert imported.index("wandb.apis.public") < imported.index("torch") < imported.index("composer")


def test_wandb_is_not_imported_where_it_is_not_used(shards: Path, tmp_path: Path):
    code = (
        "import json, sys\n"
        "from hindsight.command_line import configuration_of\n"
        "from hindsight.training.early import import_wandb\n"
        "import_wandb(configuration_of('train_composer', sys.argv[1:]))\n"
        "print(json.dumps([*sys.modules]))"
    )
    for mode, more, is_imported in (
        ("offline", (), True),
        ("disabled", (), False),
        ("offline", ("sanity_check=true",), False),
    ):
        arguments = settings(shards, tmp_path, f"wandb.mode={mode}", *more)
        done = run_command("python", "-c", code, *arguments)
        assert ("wandb" in json.loads(done.stdout)) is is_imported, done.stderr


def test_the_trainer_finds_the_processors_name_asked_for():
    code = (
        "from hindsight.training.early import asking_for_processor\n"
        "asking_for_processor().join()\n"
        "from composer.utils.collect_env import get_cpu_model\n"
        "assert get_cpu_model.cache_info().currsize == 1\n"
        "assert asking_for_processor() is asking_for_processor()"
    )
    done = run_command("python", "-c", code)
    assert done.returncode == 0, done.stderr
