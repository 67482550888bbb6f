"""A run whose model is to be used: its checkpoint, its tokenizer, and the order in which it reads."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hindsight.config.corpus import TextOrder
from hindsight.config.training import TrainConfig
from hindsight.errors import InputError
from hindsight.evaluation.evaluated_data import load_tokenizer, located, order_of_run
from hindsight.evaluation.stored_weights import StoredWeights, chosen_weights
from hindsight.evaluation.trained_run import TrainedRun
from hindsight.orders.order import Order
from hindsight.shards.manifest import TOKENIZER_FOLDER
from hindsight.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class OpenedRun:
    """A run with what its model needs.

    Args:
        run: what its folder records.
        weights: the chosen checkpoint.
        tokenizer: that of its data.
        tokenizer_folder: where that is; of data on object storage, only until the run is closed.
        order: the order in which the model reads a window.
        text_order: whether the text of each document was reversed before it was tokenized.
    """

    run: TrainedRun
    weights: StoredWeights
    tokenizer: Tokenizer
    tokenizer_folder: Path
    order: Order
    text_order: TextOrder

    @property
    def config(self) -> TrainConfig:
        """Its settings, as far as an evaluation depends on them."""
        return self.run.config


@contextmanager
def opened_run(run: TrainedRun, checkpoint: str, tokenizer: str | None = None) -> Iterator[OpenedRun]:
    """Open a run; what is fetched from object storage is kept until it is closed.

    Args:
        run: what `read_run` says of it.
        checkpoint: newest, backup, or a step.
        tokenizer: folder of its tokenizer; None for where the run found it.

    Raises:
        InputError: there is no such checkpoint, it is damaged, or the tokenizer is not there.
    """
    with chosen_weights(run, checkpoint) as weights, ExitStack() as stack:
        folder = tokenizer or run.config.data.tokenizer
        if folder is None:
            try:
                place = stack.enter_context(located(run, run.config.data.path, "data.path"))
            except InputError as error:
                raise InputError(f"{error} Or give the run's tokenizer by tokenizer=.") from None
            folder = str(Path(place.folder, TOKENIZER_FOLDER))
        if tokenizer is None and not Path(folder).is_dir():
            raise InputError(
                f"{run.where} found its tokenizer in {folder}, which is not there, seen from {Path.cwd()}; give "
                "tokenizer=."
            )
        loaded = load_tokenizer(run, folder, "tokenizer")
        order = order_of_run(run, loaded)
        text_order = TextOrder(run.metadata.get("text_order") or TextOrder.reading.value)
        yield OpenedRun(run, weights, loaded, Path(folder), order, text_order)
