"""The whole way from a run to a folder for transformers."""

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import nn

from hindsight import runs
from hindsight.config.export import ExportConfig
from hindsight.errors import InputError
from hindsight.evaluation.opened_run import OpenedRun
from hindsight.export.card import CARD, ORDER_FILE, card_text
from hindsight.export.code_files import custom_pipelines, write_code
from hindsight.export.logits import compare_logits
from hindsight.export.model_files import write_model
from hindsight.export.reading import how_it_reads
from hindsight.export.tokenizer_files import check_tokenizer, write_tokenizer
from hindsight.files import is_free, local_path, new_folder, open_regular, read_json, write_atomically
from hindsight.orders.order import FixedOrder
from hindsight.provenance import VERSION, git_commit

RECORD = "hindsight_export.json"
"""File of an exported folder that says of what it was made; it is written last."""
MAX_RECORD_BYTES = 1 << 20
HASHED_BYTES = 1 << 20
"""Bytes of a file that are read at once."""


def export(config: ExportConfig, run: OpenedRun, module: nn.Module) -> dict[str, Any]:
    """Write the folder.

    Args:
        config: the settings.
        run: the run.
        module: its model.

    Returns:
        What its record says.
    """
    with new_folder(local_path("out", config.out)) as folder:
        return write_folder(run, module, folder)


def earlier_export(config: ExportConfig, run: OpenedRun) -> dict[str, Any] | None:
    """Give the record of what is at out= if that is this export; None if nothing is there.

    Raises:
        InputError: something else is there, or a file of it is damaged; the card may have been edited.
    """
    out = local_path("out", config.out)
    if is_free(out):
        return None
    try:
        record = read_json(out / RECORD, MAX_RECORD_BYTES)
    except (OSError, ValueError):
        raise InputError(f"out={config.out} holds something else; give a new or an empty folder.") from None
    if any(record.get(key) != value for key, value in _source(run).items()):
        raise InputError(
            f"out={config.out} holds step {record.get('step')} of the run {record.get('run')}; give a new or an empty "
            "folder."
        )
    for name, expected in _files(record).items():
        if _sha256(out / name) != expected:
            raise InputError(f"out={config.out} is damaged: {name} is not what was exported; remove the folder.")
    return record


def write_folder(run: OpenedRun, module: nn.Module, folder: Path) -> dict[str, Any]:
    """Write all files into an empty folder, and compare what transformers makes of them with the run's."""
    tokenizer, config, reading = run.tokenizer, run.config.model, how_it_reads(run)
    special_ids = {"bos_token_id": reading.first_id, "eos_token_id": tokenizer.eos_id}
    special_ids["pad_token_id"] = tokenizer.eos_id if tokenizer.pad_id is None else tokenizer.pad_id
    module = module.cpu()
    write_tokenizer(run, reading, folder)
    check_tokenizer(run, reading, folder)
    write_code(config, reading, folder)
    write_model(module, config, reading, special_ids, custom_pipelines(reading), folder)
    difference = compare_logits(module, folder, reading, tokenizer.vocab_size)
    write_atomically(folder / CARD, card_text(run, reading, difference))
    if isinstance(run.order, FixedOrder) and not reading.writes:
        order = {"order": reading.order, "positions": run.order.positions_T.tolist()}
        write_atomically(folder / ORDER_FILE, json.dumps(order) + "\n")
    record = _source(run) | {
        "order": reading.order,
        "logits_difference": difference,
        "hindsight": VERSION,
        "git_commit": git_commit(),
        "sha256": {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != CARD},
    }
    write_atomically(folder / RECORD, json.dumps(record, indent=2) + "\n")
    return record


def _files(record: dict[str, Any]) -> dict[str, str]:
    """The hashes in a record by the names of the files; without them, nothing there counts as whole."""
    recorded = record.get("sha256")
    return recorded if isinstance(recorded, dict) and recorded else {RECORD: ""}


def _sha256(path: Path) -> str | None:
    """Hash a file; None if it cannot be read."""
    try:
        with open_regular(path) as file:
            digest = hashlib.sha256()
            while piece := file.read(HASHED_BYTES):
                digest.update(piece)
    except OSError:
        return None
    return digest.hexdigest()


def _source(run: OpenedRun) -> dict[str, Any]:
    """What an export is made of: another of the same is the same."""
    return {
        "run": run.run.name,
        "step": run.weights.step,
        "checkpoint": run.weights.fingerprint,
        **{name: run.run.metadata[name] for name in runs.FINGERPRINTS},
    }
