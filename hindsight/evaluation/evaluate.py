"""An evaluation from its arguments to its file: run, checkpoint, data -> losses of every token."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from composer.utils import dist

from hindsight.config.evaluation import EvaluateConfig
from hindsight.config.order import order_of
from hindsight.config.training import Precision
from hindsight.conversion.text_source import TextSource
from hindsight.device import device_of_process
from hindsight.errors import InputError
from hindsight.evaluation.evaluated_data import EvaluatedData, open_data
from hindsight.evaluation.losses_in_work import PARTS, Work, assemble
from hindsight.evaluation.output import Output
from hindsight.evaluation.progress import Progress
from hindsight.evaluation.scoring import Pass, Plan, Score, score_batches
from hindsight.evaluation.stored_weights import StoredWeights, chosen_weights
from hindsight.evaluation.token_stream import FileStream, TokenStream, open_text, token_table, tokenize
from hindsight.evaluation.trained_run import TrainedRun
from hindsight.files import locked
from hindsight.provenance import git_commit
from hindsight.ranks import on_rank_0
from hindsight.training.precision import check_precision, is_available
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
    passes: Callable[[TrainedRun, EvaluatedData], list[Pass]]
    score: Callable[[TrainedRun, EvaluatedData, StoredWeights, Precision], Score]


def evaluate(config: EvaluateConfig, run: TrainedRun, tools: Tools) -> list[dict[str, Any]]:
    """Evaluate, unless the same result is there; on all ranks.

    Returns:
        What the file of each pass says of itself, with its `path`.
    """
    batch_size, precision = _batch_size(config, run), _precision(config, run)
    with chosen_weights(run, config.checkpoint) as weights:
        output = Output.of(run, config, weights.step)
        data = open_data(run, config, output.name, batch_size)
        evaluation = Evaluation(config, run, tools, weights, output, data, batch_size, precision)
        for reading in evaluation.passes:
            evaluation.plan(1, reading)  # which refuses windows that cannot slide
        # A text is looked at by one process, which tokenizes it for all.
        texts: list[TextSource] = []
        if data.setup is None:
            on_rank_0(lambda: texts.append(open_text(config, data)))
        stamp = on_rank_0(lambda: texts[0].stamp if texts else None)
        found = evaluation.done(stamp)
        if found is not None and dist.get_global_rank() == 0:
            log.info("%s: already there, nothing to do.", output.name)
        if found is None:
            with _held(output):
                if data.setup is None:
                    tokens = on_rank_0(lambda: tokenize(texts[0], output.work))
                    evaluation = replace(evaluation, data=replace(data, fingerprint=tokens.fingerprint))
                    found, stream = evaluation.done(stamp), FileStream(tokens)
                else:
                    stream = tools.open_split(data.setup)
                found = found or evaluation.make(stream, stamp)
                on_rank_0(lambda: shutil.rmtree(output.work))
        on_rank_0(lambda: [shutil.rmtree(folder, ignore_errors=True) for folder in data.caches])
    return found


@contextmanager
def _held(output: Output) -> Iterator[None]:
    """Keep other evaluations out of the work folder; one in which nothing is done goes where this one is refused."""
    with ExitStack() as stack:
        holding = f"out={output.name}: another process evaluates into it"

        def hold() -> None:
            try:
                stack.enter_context(locked(output.work, holding))
            except OSError as error:
                key = "work_dir" if output.is_remote else "out"
                raise InputError(
                    f"{key}={output.work.parent} cannot be written to ({error.strerror}); choose another."
                ) from None

        on_rank_0(hold)
        try:
            yield
        except InputError:
            if dist.get_global_rank() == 0 and not any(output.work.glob(PARTS)):
                shutil.rmtree(output.work)
            raise


@dataclass(frozen=True)
class Evaluation:
    """An evaluation whose arguments were checked against run, checkpoint and data.

    Args:
        config: its arguments.
        run: the run.
        tools: what is not of the package.
        weights: the checkpoint.
        output: the place of its file.
        data: what is scored.
        batch_size: windows that one device takes at once.
        precision: number format of the computation.
    """

    config: EvaluateConfig
    run: TrainedRun
    tools: Tools
    weights: StoredWeights
    output: Output
    data: EvaluatedData
    batch_size: int
    precision: Precision

    @cached_property
    def passes(self) -> list[Pass]:
        """How the model reads the windows."""
        return self.tools.passes(self.run, self.data)

    def plan(self, n_tokens: int, reading: Pass) -> Plan:
        """Divide a stream into windows; InputError if they cannot slide as context= says."""
        return Plan.of(n_tokens, self.run.context_length, self.config.stride, reading.order.name, self.batch_size)

    def metadata(self, reading: Pass, stamp: str | None) -> dict[str, Any]:
        """What the file of a pass says of itself, but for counts and sums."""
        run, data = self.run, self.data
        return {
            "run": run.name,
            "folder": str(run.folder) if run.folder is not None else run.given.rstrip("/"),
            "order": reading.order.name,
            "run_order": order_of(run.config),
            "seed": run.config.seed,
            "step": self.weights.step,
            "checkpoint": self.weights.fingerprint,
            "split": data.split,
            "tokenizer_fingerprint": data.tokenizer.fingerprint,
            "data": data.path,
            "text_order": data.text_order.value,
            "context": self.config.context,
            "context_length": run.context_length,
            "document_mask": run.config.document_mask,
            "precision": self.precision.name,
            "git_commit": git_commit(),
            **({} if data.fingerprint is None else {"data_fingerprint": data.fingerprint}),
            **({} if data.setup is not None else {"stamp": stamp}),
        }

    def done(self, stamp: str | None) -> list[dict[str, Any]] | None:
        """Look for complete files of all passes, and give what they say; None if one is missing."""

        def look() -> list[dict[str, Any]] | None:
            places = [self.output.of_pass(reading.name) for reading in self.passes]
            found = [
                place.done(self.metadata(reading, stamp)) for place, reading in zip(places, self.passes, strict=True)
            ]
            pairs = zip(places, found, strict=True)
            whole = [{**there, "path": place.name} for place, there in pairs if there is not None]
            return whole if len(whole) == len(places) else None

        return on_rank_0(look)

    def make(self, stream: TokenStream, stamp: str | None) -> list[dict[str, Any]]:
        """Score all tokens, write the files, and give what they say of themselves."""
        score = self.tools.score(self.run, self.data, self.weights, self.precision)
        for reading in self.passes:
            self._make_file(reading, stream, score, stamp)
        found = self.done(stamp)
        assert found is not None
        return found

    def _make_file(self, reading: Pass, stream: TokenStream, score: Score, stamp: str | None) -> None:
        work = Work(self.output.work / (reading.name or "all"), self.plan(stream.n_tokens, reading))
        metadata, tokenizer = self.metadata(reading, stamp), self.data.tokenizer
        self._score_all(work, reading, stream, score, metadata)

        def complete() -> None:
            tokens = token_table(tokenizer)
            path = assemble(work, metadata, *tokens, tokenizer.bytes_per_token, tokenizer.eos_id)
            self.output.of_pass(reading.name).put(path)

        on_rank_0(complete)

    def _score_all(
        self, work: Work, reading: Pass, stream: TokenStream, score: Score, metadata: dict[str, Any]
    ) -> None:
        """Score the windows of a pass, each process its share of the parts that are not made yet."""
        identity = metadata | {"batch_size": self.batch_size, "device": device_of_process().name}
        parts = on_rank_0(lambda: work.begin(identity))
        rank, n_ranks = dist.get_global_rank(), dist.get_world_size()
        mine = parts[len(parts) * rank // n_ranks : len(parts) * (rank + 1) // n_ranks]
        if rank == 0 and len(parts) < work.n_parts:
            made = work.n_parts - len(parts)
            log.info("%s: going on where it was, after %d of %d parts.", self.output.name, made, work.n_parts)
        error = None
        try:
            if not work.folder.is_dir():
                raise InputError(f"{work.folder} is not on all nodes; give an out= (or work_dir=) that they share.")
            with Progress(work, mine, n_ranks, is_shown=rank == 0) as progress:
                for part in mine:
                    rows = []
                    for batch in score_batches(work.plan, work.batches(part), reading, stream, score):
                        rows.append(batch)
                        progress.add(len(batch["id"]))
                    work.save(part, rows)
        except InputError as caught:  # the others must not wait for this process
            error = str(caught)
        errors = [text for text in dist.all_gather_object(error) if text is not None]
        if errors:
            raise InputError(errors[0])


def _batch_size(config: EvaluateConfig, run: TrainedRun) -> int:
    """Windows that one device takes at once: as in the run's evaluation, on as many devices as trained it."""
    world_size = run.metadata.get("world_size")
    devices = world_size if isinstance(world_size, int) and world_size > 0 else 1
    trained = run.config.windows_at_once or -(-run.config.batch_size // devices)
    return config.batch_size or run.config.device_eval_batch_size or trained


def _precision(config: EvaluateConfig, run: TrainedRun) -> Precision:
    """Number format of the computation; InputError for one that this machine does not support."""
    if config.precision is not None:
        check_precision(config.precision)
        return config.precision
    if not is_available(run.config.precision):
        if dist.get_global_rank() == 0:
            log.info(
                "note     the run was evaluated in %s, which this machine does not support, and is in fp32 here",
                run.config.precision.name,
            )
        return Precision.fp32
    return run.config.precision
