"""An evaluation from its arguments to its file: run, checkpoint, data -> losses of every token."""

import logging
import shutil
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from composer.utils import dist, get_device

from hindsight.config.evaluation import EvaluateConfig
from hindsight.config.order import order_of
from hindsight.config.training import Precision
from hindsight.errors import InputError
from hindsight.evaluation.evaluated_data import EvaluatedData, open_data
from hindsight.evaluation.losses_in_work import Work, assemble
from hindsight.evaluation.output import Output
from hindsight.evaluation.progress import Progress
from hindsight.evaluation.recorded_run import RecordedRun
from hindsight.evaluation.scoring import Pass, Plan, Score, score_batches
from hindsight.evaluation.stored_weights import StoredWeights, chosen_weights
from hindsight.evaluation.token_stream import FileStream, TokenStream, open_text, token_table, tokenize
from hindsight.files import locked
from hindsight.provenance import git_commit
from hindsight.ranks import on_rank_0
from hindsight.training.setup import RunSetup

log = logging.getLogger("hindsight")


@dataclass(frozen=True)
class Tools:
    """What is not of the package: how the model, its loss and the loader are made.

    Args:
        open_split: the run with one split -> its tokens.
        passes: the run and the data -> how the model reads the windows.
        score: the run, its data, its weights, precision -> what scores a batch.
    """

    open_split: Callable[[RunSetup], TokenStream]
    passes: Callable[[RecordedRun, EvaluatedData], list[Pass]]
    score: Callable[[RecordedRun, EvaluatedData, StoredWeights, Precision], Score]


def evaluate(config: EvaluateConfig, run: RecordedRun, tools: Tools) -> list[dict[str, Any]]:
    """Evaluate, unless the same result is there; on all ranks.

    Returns:
        What the file of each pass says of itself, with its `path`.
    """
    batch_size, precision = _batch_size(config, run), _precision(config, run)
    with chosen_weights(run, config.checkpoint) as weights:
        output = Output.of(run, config, weights.step)
        data = open_data(run, config, output.name, batch_size)
        readings = tools.passes(run, data)
        for reading in readings:
            Plan.of(1, run.context_length, config.stride, reading.order.name, batch_size)  # whether it fits
        known = _metadata(config, run, data, weights, precision)
        with ExitStack() as stack:
            if data.setup is None:  # a text is looked at by one process, which tokenizes it for all
                opened: list[Any] = []
                on_rank_0(lambda: opened.append(open_text(config, data.tokenizer, data.settings)))
                known["stamp"] = on_rank_0(lambda: opened[0].stamp)
            found = _done(output, readings, known)
            if found is None:
                stack.enter_context(_held(output))
                if data.setup is None:
                    tokens = on_rank_0(lambda: tokenize(opened[0], output.work))
                    data, stream = replace(data, fingerprint=tokens.fingerprint), FileStream(tokens)
                    known["data_fingerprint"] = data.fingerprint
                    found = _done(output, readings, known)
                else:
                    stream = tools.open_split(data.setup)
                if found is None:
                    score = tools.score(run, data, weights, precision)
                    for reading in readings:
                        plan = Plan.of(
                            stream.n_tokens, run.context_length, config.stride, reading.order.name, batch_size
                        )
                        _score_all(plan, reading, stream, score, output, known | _of(reading), data)
                    found = _done(output, readings, known)
                on_rank_0(lambda: shutil.rmtree(output.work))
            elif dist.get_global_rank() == 0:
                log.info("%s: already there, nothing to do.", output.name)
        on_rank_0(lambda: _remove(data.caches))
    assert found is not None
    return found


def _score_all(
    plan: Plan,
    reading: Pass,
    stream: TokenStream,
    score: Score,
    output: Output,
    metadata: dict[str, Any],
    data: EvaluatedData,
) -> None:
    """Score the windows of a pass, each process its share of the parts that are not made yet, and put its file."""
    work = Work(output.work / (reading.name or "all"), plan)
    identity = metadata | {"batch_size": plan.batch_size, "device": get_device(None).name}
    parts = on_rank_0(lambda: work.begin(identity))
    rank, n_ranks = dist.get_global_rank(), dist.get_world_size()
    mine = parts[len(parts) * rank // n_ranks : len(parts) * (rank + 1) // n_ranks]
    if rank == 0 and len(parts) < work.n_parts:
        log.info(
            "%s: going on where it was, after %d of %d parts.", output.name, work.n_parts - len(parts), work.n_parts
        )
    error = None
    try:
        with Progress(plan, work, mine, n_ranks, is_shown=rank == 0) as progress:
            for part in mine:
                rows = []
                for batch in score_batches(plan, work.batches(part), reading, stream, score):
                    rows.append(batch)
                    progress.add(len(batch["id"]))
                work.save(part, rows)
    except InputError as caught:  # the others must not wait for this process
        error = str(caught)
    errors = [text for text in dist.all_gather_object(error) if text is not None]
    if errors:
        raise InputError(errors[0])

    def complete() -> None:
        table, tokenizer = token_table(data.tokenizer), data.tokenizer
        path = assemble(work, metadata, *table, tokenizer.bytes_per_token, tokenizer.eos_id)
        output.of_pass(reading.name).put(path)

    on_rank_0(complete)


def _metadata(
    config: EvaluateConfig, run: RecordedRun, data: EvaluatedData, weights: StoredWeights, precision: Precision
) -> dict[str, Any]:
    """What a file says of itself, but for its pass, counts and sums."""
    found = {
        "run": run.name,
        "folder": str(run.folder) if run.folder is not None else run.given.rstrip("/"),
        "run_order": order_of(run.config),
        "seed": run.config.seed,
        "step": weights.step,
        "checkpoint": weights.fingerprint,
        "split": data.split,
        "tokenizer_fingerprint": data.tokenizer.fingerprint,
        "data": data.path,
        "context": config.context,
        "context_length": run.context_length,
        "document_mask": getattr(run.config, "document_mask", False),
        "precision": precision.name,
        "git_commit": git_commit(),
    }
    return found if data.fingerprint is None else {**found, "data_fingerprint": data.fingerprint}


def _of(reading: Pass) -> dict[str, Any]:
    return {"order": reading.order.name}


def _done(output: Output, readings: list[Pass], known: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Look for complete files of all passes, and give what they say; None if one is missing."""

    def look() -> list[dict[str, Any]] | None:
        found = []
        for reading in readings:
            place = output.of_pass(reading.name)
            found.append((place.done(known | _of(reading)), place.name))
        whole = [{**there, "path": name} for there, name in found if there is not None]
        return whole if len(whole) == len(readings) else None

    return on_rank_0(look)


def _held(output: Output) -> Any:
    """Keep other evaluations out of the work folder, which rank 0 holds for all."""
    stack = ExitStack()
    on_rank_0(lambda: stack.enter_context(locked(output.work, f"out={output.name}: another process evaluates into it")))
    return stack if dist.get_global_rank() == 0 else nullcontext()


def _batch_size(config: EvaluateConfig, run: RecordedRun) -> int:
    """Windows that one device takes at once: as in the run's evaluation, on as many devices as trained it."""
    world_size = run.metadata.get("world_size")
    devices = world_size if isinstance(world_size, int) and world_size > 0 else 1
    trained = run.config.microbatch_size or -(-run.config.batch_size // devices)
    return config.batch_size or run.config.device_eval_batch_size or trained


def _precision(config: EvaluateConfig, run: RecordedRun) -> Precision:
    """Number format of the computation; InputError for one that this machine has not."""
    has_gpu = get_device(None).name == "gpu"
    if config.precision is not None:
        if config.precision is not Precision.fp32 and not has_gpu:
            raise InputError(f"precision={config.precision.name} needs a GPU; use precision=fp32 here.")
        return config.precision
    if run.config.precision is not Precision.fp32 and not has_gpu:
        if dist.get_global_rank() == 0:
            log.info(
                "note     the run was evaluated in %s, and is in fp32 here, without a GPU", run.config.precision.name
            )
        return Precision.fp32
    return run.config.precision


def _remove(folders: tuple[Path, ...]) -> None:
    """Remove what was downloaded for this evaluation."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
