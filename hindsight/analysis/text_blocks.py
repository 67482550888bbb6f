"""Losses of a group's runs by document and block of text: sums over the tokens in the files of token losses.

Shapes: N blocks of at most BLOCK_TOKENS tokens, in the order of the documents; D documents.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hindsight.analysis.bootstrap import Blocks, Ints
from hindsight.analysis.groups import Group
from hindsight.analysis.inference import Floats
from hindsight.analysis.recorded import BOTH, RecordedRun
from hindsight.analysis.token_losses import TokenLosses
from hindsight.config.evaluation import WINDOWS
from hindsight.errors import InputError

BLOCK_TOKENS = 256
"""Tokens of a document that are resampled together, because losses of neighbours depend on each other."""
FP32_TOLERANCE, TOLERANCE = 1e-4, 1e-3
"""By how much of itself a mean loss may differ on other hardware (TF32), and in bf16 or fp16."""
WITHOUT = "no bootstrap and no cuts of the text"


@dataclass(frozen=True)
class TextLosses:
    """Sums of the losses of runs over blocks of text.

    Args:
        document: number of the document of each block, ascending; (N,).
        tokens: scored tokens; (N,).
        nats: summed losses by order and seed; (N,) each.
        context: the context= with which all were measured.
    """

    document: Ints
    tokens: Floats
    nats: dict[str, dict[int, Floats]]
    context: str = WINDOWS

    @property
    def n_documents(self) -> int:
        """Documents in the split."""
        return len(np.unique(self.document))

    def blocks(self, reference: str, order: str) -> Blocks | None:
        """The gaps of all seeds that both orders have; None if they share none."""
        seeds = [seed for seed in self.nats[reference] if seed in self.nats[order]]
        if not seeds:
            return None
        gaps = np.stack([self.nats[order][seed] - self.nats[reference][seed] for seed in seeds])
        return Blocks(self.document, self.tokens, gaps)

    def document_means(self, order: str, seed: int) -> Floats:
        """Mean loss of each document, nats per token; (D,)."""
        starts_D = np.flatnonzero(np.diff(self.document, prepend=-1))
        return np.add.reduceat(self.nats[order][seed], starts_D) / np.add.reduceat(self.tokens, starts_D)


def read_texts(group: Group) -> tuple[TextLosses | None, str | None]:
    """Read the files of token losses of a group, if every run has one of its last evaluation.

    Returns:
        The losses; or None, and what to do to have them.

    Raises:
        InputError: a file is damaged, or belongs to other data.
    """
    runs = [run for each in group.runs.values() for run in each.values()]
    missing = [run for run in runs if not run.token_losses.exists()]
    if len(missing) == len(runs):
        how = "python evaluate_tokens.py run=FOLDER makes that of a run"
        return None, f"{WITHOUT} without files of token losses; {how}"
    if missing:
        return None, _wanted(missing[0], len(missing), f"has no {missing[0].token_losses.name}")
    files = {(run.order, run.config["seed"]): _opened(run) for run in runs}
    for run in runs:
        step = files[run.order, run.config["seed"]].metadata["step"]
        if step != run.step:
            what = f"was last evaluated at step {run.step}, and its {run.token_losses.name} is of step {step}"
            return None, _wanted(run, 1, what)
    contexts = {file.metadata["context"]: file for file in files.values()}
    if len(contexts) > 1:
        first, second = list(contexts.items())[:2]
        what = f"{first[1].path} was made with context={first[0]}, {second[1].path} with context={second[0]}"
        return None, f"{WITHOUT}: {what}; make all alike with evaluate_tokens.py"
    return _summed(files), None


def _wanted(run: RecordedRun, n_runs: int, what: str) -> str:
    more = f", for this and {n_runs - 1} more" if n_runs > 1 else ""
    return f"{WITHOUT}: {run.folder} {what}; python evaluate_tokens.py run={run.folder}{more}"


def _opened(run: RecordedRun) -> TokenLosses:
    """Open a run's file; InputError if it is damaged, or of anything but its validation data."""
    file = TokenLosses.open(run.token_losses)
    said = file.metadata
    expected = {"split": "val", "seed": run.config["seed"]}
    expected |= {key: run.metadata[key] for key in ("data_fingerprint", "tokenizer_fingerprint")}
    expected["document_mask"] = bool(run.config.get("document_mask"))
    length = run.config.get("data.context_length") or run.config.get("model.context_length")
    expected |= {"context_length": length} if length is not None else {}
    wrong = [
        f"{key}={_short(said[key])}, the run {_short(value)}" for key, value in expected.items() if said[key] != value
    ]
    if said["order"] not in ((run.order, BOTH) if run.is_both else (run.order,)):
        wrong.append(f"order={said['order']}, the run {run.order}")
    if (loss := _other_loss(file, run)) is not None:
        wrong.append(f"a mean loss of {loss:.6f} nats/token, the run {run.loss_nats:.6f} at step {run.step}")
    if wrong:
        raise InputError(
            f"{file.path} is not of the run beside it: it has {wrong[0]}; write it again, "
            f"python evaluate_tokens.py run={run.folder}"
        )
    return file


def _other_loss(file: TokenLosses, run: RecordedRun) -> float | None:
    """Mean loss of a file whose weights are not those that the run was evaluated with; None if they may be.

    It can be told where the run was evaluated on the same tokens with the same context.
    """
    said = file.metadata
    is_same = said["context"] == WINDOWS and said["step"] == run.step and run.config.get("eval_batches") is None
    if not is_same or not file.rows:
        return None
    loss = said["sums"]["nats"] / file.rows
    precisions = {run.config.get("precision", "fp32"), said.get("precision", "fp32")}
    tolerance = FP32_TOLERANCE if precisions == {"fp32"} else TOLERANCE
    return loss if abs(loss - run.loss_nats) > tolerance * abs(run.loss_nats) else None


def _short(value: Any) -> str:
    return str(value)[:12]


def _summed(files: dict[tuple[str, int], TokenLosses]) -> TextLosses:
    first: tuple[Ints, Ints] | None = None
    nats: dict[str, dict[int, Floats]] = {}
    for (order, seed), file in files.items():
        keys, tokens, sums = _sums_of(file)
        if first is None:
            first = keys, tokens
        elif not (np.array_equal(first[0], keys) and np.array_equal(first[1], tokens)):
            raise InputError(
                f"{file.path} is damaged: it has other tokens than those of the other runs of the same data."
            )
        nats.setdefault(order, {})[seed] = sums
    assert first is not None
    return TextLosses(first[0] >> 32, first[1].astype(np.float64), nats, next(iter(files.values())).metadata["context"])


def _sums_of(file: TokenLosses) -> tuple[Ints, Ints, Floats]:
    """Sum a file up, block by block: document << 32 | block in it, tokens, nats."""
    parts: list[tuple[Ints, Ints, Floats]] = []
    if not file.rows:
        raise InputError(f"{file.path} is damaged: it has no rows; write it again with evaluate_tokens.py.")
    for batch in file.batches(("document", "document_place", "nats")):
        key_I = (batch["document"].astype(np.int64) << 32) + batch["document_place"] // BLOCK_TOKENS
        starts = np.flatnonzero(np.diff(key_I, prepend=-1))
        counts = np.diff(starts, append=len(key_I))
        parts.append((key_I[starts], counts, np.add.reduceat(batch["nats"].astype(np.float64), starts)))
    keys, tokens, sums = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    starts = np.flatnonzero(np.diff(keys, prepend=-1))  # a block may be in two batches
    if (np.diff(keys) < 0).any() or not np.isfinite(sums).all():
        raise InputError(f"{file.path} is damaged: its rows are not in order, or a loss is no number.")
    return keys[starts], np.add.reduceat(tokens, starts), np.add.reduceat(sums, starts)
