"""The tokenizer of a run as transformers loads it: it puts the id first with which every window of training began.

Without it a model sees inputs that it never saw in training: the loss of a small one rose from 5.0905 to 5.1288 nats.
"""

import json
from pathlib import Path
from typing import Any

from hindsight.errors import InputError
from hindsight.evaluation.opened_run import OpenedRun
from hindsight.export.reading import HowItReads
from hindsight.files import write_atomically
from hindsight.orders.both import NAMES
from hindsight.tokenization.bpe_training import Draft
from hindsight.tokenization.fast_encoding import HARD_TEXTS
from hindsight.tokenization.folder import CONFIG_FILE
from hindsight.tokenization.hf_folder import put_bos_first, save


def write_tokenizer(run: OpenedRun, reading: HowItReads, folder: Path) -> None:
    """Write the tokenizer of a run; of order=both, its BOS is the token that begins texts read forward."""
    tokenizer, spec = run.tokenizer, run.tokenizer.spec
    bos, eos = tokenizer.roles["bos"] or "", tokenizer.roles["eos"] or ""
    # Those of order=both may be ids behind the tokenizer's own, which have no name there.
    names = {tokenizer.bos_id: bos, tokenizer.eos_id: eos}
    names |= {start_id: NAMES[direction] for direction, start_id in _starts_of_both(reading).items()}
    for token_id, name in names.items():
        spec = _with_special(spec, name, token_id)
    roles = {"bos_token": names[reading.first_id], "eos_token": eos, "pad_token": tokenizer.roles["pad"] or eos}
    save(put_bos_first(Draft(spec, roles=roles)), folder)
    path = folder / CONFIG_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    # Rows of a batch must end, and not begin, with the same place: generation goes on at their ends.
    content |= {"model_max_length": reading.context_length, "padding_side": "left"}
    write_atomically(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def check_tokenizer(run: OpenedRun, reading: HowItReads, folder: Path) -> None:
    """Raise InputError unless transformers gives texts the ids of the run's tokenizer, behind the first."""
    from transformers import AutoTokenizer

    backend = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    for text in HARD_TEXTS:
        ids = backend.encode(text).ids
        if ids != [reading.first_id, *run.tokenizer.tokenize(text)[0].tolist()]:
            raise InputError(
                f"run={run.run.given}: transformers splits {text[:40]!a} otherwise than the run's tokenizer; "
                "this tokenizer cannot be exported."
            )


def _starts_of_both(reading: HowItReads) -> dict[str, int]:
    return reading.start_ids if len(reading.start_ids) > 1 else {}


def _with_special(spec: dict[str, Any], name: str, token_id: int) -> dict[str, Any]:
    """Add a special token to a tokenizer.json unless it is there."""
    if any(token["id"] == token_id for token in spec["added_tokens"]):
        return spec
    form = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {**spec, "added_tokens": [*spec["added_tokens"], {"id": token_id, "content": name, **form}]}
