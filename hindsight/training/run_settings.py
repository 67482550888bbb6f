"""What must not change when a run goes on: its settings, compared with those that it began with.

Nothing here imports torch or Composer; train_composer.py asks before it does.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from hindsight import runs
from hindsight.config.key_roles import ResumeRole, roles_of
from hindsight.config.keys import defaults_of, flatten
from hindsight.errors import InputError
from hindsight.training.setup import RunSetup


def fixed_settings(setup: RunSetup) -> dict[str, Any]:
    """Settings of a run that must not change, by their full key, with the fingerprints of data and tokenizer."""
    return _fixed(flatten(asdict(setup.config))) | setup.fingerprints


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if roles_of(key).resume is ResumeRole.fixed}


def check_same(setup: RunSetup, old: dict[str, Any], where: str) -> None:
    """Refuse to go on with a run whose model, data, tokenizer, optimizer or seed are not the ones asked for.

    A run that began before a key existed has the key's default, which stands for what was done then.

    Args:
        setup: what is asked for.
        old: `fixed_settings` that the run began with.
        where: what holds them, for the message.

    Raises:
        InputError: they differ.
    """
    new = fixed_settings(setup)
    old = _fixed(defaults_of(setup.config)) | old
    differing = [
        f"{key}={new.get(key)} (the run has {_shown(old.get(key))})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if differing:
        raise InputError(
            f"run_name={setup.run_name} cannot go on from {where} with other settings: {'; '.join(differing)}. Give "
            "the old values, or another run_name and checkpoint.folder."
        )


def _shown(value: Any) -> str:
    """Write a value that somebody else may have written, in a line."""
    text = str(value)
    return text if len(text) < 200 and text.isprintable() else ascii(text[:200])


def check_records(setup: RunSetup, folder: Path) -> None:
    """Compare a run with config.yaml and metadata.json in a folder; InputError if they differ or are damaged."""
    try:
        old = _fixed(runs.read_config(folder))
        metadata = runs.read_metadata(folder)
    except InputError as error:
        raise InputError(f"run_name={setup.run_name}: {error}; mend it, or choose another run_name.") from error
    fingerprints = {key: metadata.get(key) for key in setup.fingerprints}
    check_same(setup, old | fingerprints, str(folder))


def is_finished(setup: RunSetup) -> bool:
    """Tell whether the run has come to its end, and its last evaluation, checkpoint and weights are in its folder.

    A run whose checkpoints are elsewhere, or that is to be trained beyond its end, is looked at later.

    Raises:
        InputError: the run in the folder has other settings.
    """
    config, folder = setup.config, setup.folder
    needed = (*runs.RECORDS, runs.FINISHED, runs.WEIGHTS)
    is_elsewhere = config.train.more is not None or config.checkpoint.folder is not None
    if is_elsewhere or not all((folder / name).is_file() for name in needed):
        return False
    check_records(setup, folder)
    step = runs.finished_step(folder)
    if step is None or step < setup.total_steps or not runs.is_evaluated(folder, step):
        return False
    return any((folder / runs.CHECKPOINTS).glob(f"ep*-ba{step}-rank0.pt"))
