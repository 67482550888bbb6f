"""The model card of an exported folder: what the model reads, how to prompt it, and what it came from.

What comes from the run's records may come from somebody else, and is shown as code.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hindsight import runs
from hindsight.config.keys import flatten
from hindsight.config.order import BOTH
from hindsight.evaluation.opened_run import OpenedRun
from hindsight.evaluation.trained_run import TrainedRun
from hindsight.export.code_files import TASK
from hindsight.export.reading import BACKWARD, HowItReads
from hindsight.json_lines import read_backward, step_of
from hindsight.orders.both import NAMES
from hindsight.orders.order import FixedOrder
from hindsight.provenance import VERSION
from hindsight.shown_text import visible, without_credentials

CARD = "README.md"
ORDER_FILE = "order.json"
SHOWN_GROUPS = ("model.", "optim.")
SHOWN_KEYS = ("document_mask", "batch_size", "max_duration", "precision", "seed", "data.context_length", "data.stride")
NOT_SHOWN = "model.init_from"
"""Settings that the card shows, and one of their groups that it does not: paths are nobody else's business."""


def card_text(run: OpenedRun, reading: HowItReads, difference: float) -> str:
    """Write the card.

    Args:
        run: the run.
        reading: how its model reads.
        difference: of the exported model's logits from the run's, as a share of the largest.
    """
    sections = [
        _front_matter(run, reading),
        f"{_first_line(reading)}\n",
        f"# {run.run.name}\n",
        _how_to_prompt(run, reading),
        _losses(run, reading),
        _data(run, reading),
        _settings(run),
        _origin(run, difference),
    ]
    return "\n".join(sections)


def _front_matter(run: OpenedRun, reading: HowItReads) -> str:
    tags = ["hindsight", reading.order.replace(":", "-"), *(["reversed-text"] if reading.is_reversed_text else [])]
    lines = ["library_name: transformers", *(["pipeline_tag: text-generation"] if reading.writes_as_given else [])]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---", ""])


def _first_line(reading: HowItReads) -> str:
    if not reading.writes:
        return (
            f"**This model reads the tokens of a window in another order, `{reading.order}`**: given ordinary text, "
            "its predictions mean nothing."
        )
    if reading.is_reversed_text:
        ways = {BACKWARD: " and reads their tokens from the end", BOTH: " and reads their tokens from either end"}
        turned = ways.get(reading.order, "")
        return f"**This model was trained on texts that were reversed, character by character**{turned}: turn yours."
    if reading.order == BOTH:
        return "**This model reads and writes both forward and backward**: the first token of its input says which."
    if reading.order == BACKWARD:
        return (
            "**This model reads and writes backward**: it predicts the previous token, not the next one. Give it the "
            "tokens of a text in reverse order, or use the pipeline below."
        )
    return "A language model that predicts the next token."


def _how_to_prompt(run: OpenedRun, reading: HowItReads) -> str:
    code = ", trust_remote_code=True" if run.config.model.own_model_type is not None else ""
    T = reading.context_length
    lines = ["## How to prompt it", ""]
    if not reading.writes:
        lines += _other_order(run, reading)
    if reading.writes_as_given:
        lines += ["```python", "from transformers import pipeline", ""]
        lines += [f'write = pipeline("text-generation", model=FOLDER{code})']
        lines += ['write("In the beginning", max_new_tokens=20)']
        lines += ["```", ""]
    if reading.writes_turned:
        what = "continues a text" if _grows_at_its_end(reading) else "writes what came before a text"
        lines += [f"This {what}, and shows both in reading order:", "", "```python"]
        lines += ["from transformers import pipeline", ""]
        lines += [
            f'write = pipeline("{TASK}", model=FOLDER, trust_remote_code=True)',
            'write(" and it was good.", max_new_tokens=20)',
        ]
        lines += ["```", "", _by_hand(reading), ""]
    lines += [
        f"Inputs begin with the token `{_first_token(run, reading)}`, which the tokenizer puts first, and have at most "
        f"{T} tokens with it: no window of training was longer.",
        "",
    ]
    return "\n".join(lines)


def _by_hand(reading: HowItReads) -> str:
    start = f"the token `{NAMES[BACKWARD]}`" if reading.order == BOTH else "the first token"
    steps = ["reverse the text by its characters (grapheme clusters)"] if reading.is_reversed_text else []
    steps += ["tokenize it without special tokens"]
    steps += ["reverse the ids"] if BACKWARD in reading.start_ids else []
    return f"By hand: {', '.join(steps)}, put {start} before it, `generate`, and undo the same in what was written."


def _grows_at_its_end(reading: HowItReads) -> bool:
    return reading.is_reversed_text and BACKWARD in reading.start_ids


def _other_order(run: OpenedRun, reading: HowItReads) -> list[str]:
    where = (
        f"`{ORDER_FILE}` has the positions of a window in the order in which they are read."
        if isinstance(run.order, FixedOrder)
        else "Which token comes next depends on the tokens themselves: on where words, sentences or segments begin."
    )
    return [
        f"A window is {reading.context_length} tokens of text. Put its tokens into the order of training, and the "
        f"first token before them; logits number t are then of the token that is read as number t. {where}",
        "",
    ]


def _first_token(run: OpenedRun, reading: HowItReads) -> str:
    return NAMES["forward"] if reading.order == BOTH else run.tokenizer.roles["bos"] or ""


def _losses(run: OpenedRun, reading: HowItReads) -> str:
    found = evaluation_at(run.run, run.weights.step)
    if not found:
        return "## Losses\n\nThe run was not evaluated up to this step.\n"
    names = {"": "", **{f"{way}/": f", {way}" for way in reading.start_ids if len(reading.start_ids) > 1}}
    rows = [
        f"| {metric.replace('_', ' ')}{said} | {found[key]:.6g} |"
        for prefix, said in names.items()
        for metric in runs.METRIC_NAMES
        if runs.is_number(found.get(key := f"{runs.EVAL}{prefix}{metric}"))
    ]
    part = run.config.eval_batches
    whole = "the whole validation set" if part is None else f"the first {part} batches of the validation set"
    return "\n".join(
        [
            "## Losses",
            "",
            f"On {whole}, at step {found['step']} (these weights: step {run.weights.step}), nats per token, each "
            f"window of {reading.context_length} tokens by itself:",
            "",
            "| metric | value |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def _data(run: OpenedRun, reading: HowItReads) -> str:
    metadata = run.run.metadata
    name = Path(run.config.data.path.rstrip("/")).name
    counts = [f"{metadata[key]:,} {said}" for key, said in _COUNTS.items() if runs.is_number(metadata.get(key))]
    return "\n".join(
        [
            "## Data",
            "",
            f"- data: {_code(name)}, fingerprint {_code(metadata['data_fingerprint'])}",
            f"- tokenizer: {run.tokenizer.vocab_size:,} ids, fingerprint {_code(metadata['tokenizer_fingerprint'])}",
            *([f"- validation set: {', '.join(counts)}"] if counts else []),
            f"- order: {_code(reading.order)}; text {'reversed' if reading.is_reversed_text else 'in reading order'}",
            "",
        ]
    )


_COUNTS = {"val_documents": "documents", "val_tokens": "tokens", "val_bytes": "bytes"}


def _settings(run: OpenedRun) -> str:
    folder = run.run.folder
    values = flatten({"model": vars(run.config.model)}) if folder is None else runs.read_config(folder)
    shown = [
        f"{key}: {json.dumps(value)}"
        for key, value in values.items()
        if key in SHOWN_KEYS or (key.startswith(SHOWN_GROUPS) and key != NOT_SHOWN)
    ]
    return "\n".join(["## Settings", "", "```yaml", *map(_plain, shown), "```", ""])


def _origin(run: OpenedRun, difference: float) -> str:
    metadata = run.run.metadata
    versions = {key.removeprefix("versions."): value for key, value in metadata.items() if key.startswith("versions.")}
    lines = [
        "## Origin",
        "",
        f"Trained with Hindsight, commit {_code(metadata.get('git_commit') or 'unknown')}, for {run.weights.step} "
        f"steps{_beginning(metadata)}, and exported by version {VERSION}: the logits that transformers computes were "
        f"compared with the run's (largest difference: {difference:.1e} of the largest logit). The question is that of "
        "[arXiv:2401.17505](https://arxiv.org/abs/2401.17505).",
        "",
    ]
    if versions:
        lines += [
            f"Versions in training: {_code(', '.join(f'{name} {value}' for name, value in versions.items()))}.",
            "",
        ]
    return "\n".join(lines)


def _beginning(metadata: dict[str, Any]) -> str:
    """Say what weights the run began with, if they were not drawn: by a name, or the last part of a path."""
    keys = ("from", "run", "step", "commit", "folder")
    initial = {key: metadata.get(f"{runs.INITIAL_WEIGHTS}.{key}") for key in keys}
    if initial["run"]:
        return f" from step {_code(initial['step'])} of the run {_code(initial['run'])}"
    if initial["commit"]:
        # The address of a snapshot in the Hub's cache ends with the commit; all else that has one is a name on the Hub.
        is_path = str(initial["from"]).rstrip("/").endswith(f"/{initial['commit']}")
        name = "weights of the Hub" if is_path else _code(initial["from"])
        return f" from {name}, commit {_code(initial['commit'])}"
    return f" from weights in a folder {_code(Path(str(initial['folder'])).name)}" if initial["folder"] else ""


def evaluation_at(run: TrainedRun, step: int) -> dict[str, Any]:
    """Give the line of metrics.jsonl with the last evaluation up to a step; empty if there was none."""
    with TemporaryDirectory() as fetched:
        path = Path(fetched, runs.METRICS)
        if run.folder is not None:
            path = run.folder / runs.METRICS
        elif run.remote is not None and runs.METRICS in run.remote.sizes():
            run.remote.download(runs.METRICS, path)
        for record in read_backward(path):
            found = step_of(record)
            if found is not None and found <= step and runs.is_number(record.get(runs.EVAL_LOSS)):
                return record
    return {}


def _code(value: Any) -> str:
    return f"`{_plain(str(value))}`"


def _plain(text: str) -> str:
    return visible(without_credentials(" ".join(text.split()))).replace("`", "'")
