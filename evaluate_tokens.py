"""Score every token with the model of a run, print the metrics, and write one parquet file, a row for each token.

    python evaluate_tokens.py runs/NAME
    composer -n 2 evaluate_tokens.py run=runs/NAME context=sliding:64
    python evaluate_tokens.py run=runs/NAME corpus=another_book.txt

docs/evaluation.md says what is in the file. What is shared is hindsight/evaluation; here model, loss and loader, which
the package does not import, are put together.
"""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
import logging
import sys
from typing import TYPE_CHECKING, Any

from hindsight import interrupts
from hindsight.command_line import run_script
from hindsight.config.evaluation import EvaluateConfig
from hindsight.evaluation.trained_run import TrainedRun, read_run
from hindsight.quick_imports import quick_imports

if TYPE_CHECKING:
    from hindsight.config.training import Precision
    from hindsight.evaluation.evaluated_data import EvaluatedData
    from hindsight.evaluation.scoring import Batch, Pass, Score
    from hindsight.evaluation.stored_weights import StoredWeights
    from hindsight.evaluation.token_stream import TokenStream
    from hindsight.training.setup import RunSetup

log = logging.getLogger("hindsight")

LAST_WORDS = ": what is done stays, and the same command goes on."
WAIT_S = 86400.0
"""Seconds that processes wait for each other: one may have slower hardware, or tokenize a text for all."""


def main(config: EvaluateConfig) -> None:
    """Evaluate, unless the same result is there, and print the metrics."""
    run = read_run(config.run)
    with quick_imports():
        from composer.utils import dist

        from hindsight.evaluation.evaluate import Tools, evaluate
        from hindsight.evaluation.summary import metric_lines
        from hindsight.ranks import init_process_group

    interrupts.handle_signals_again()  # importing Composer sets signal handlers
    try:
        with interrupts.giving_up_after(0):
            init_process_group(WAIT_S)
            for file in evaluate(config, run, Tools(open_split, passes, score_by)):
                if dist.get_global_rank() == 0:
                    log.info("%s", "\n".join(metric_lines(run, file, metrics_of(file))))
    except interrupts.GaveUp as reason:
        if dist.get_world_size() > 1:
            interrupts.leave_at_once(reason)
        log.info("Interrupted by %s%s", reason, LAST_WORDS)
        interrupts.ignore_signals()
        sys.exit(interrupts.EXIT_INTERRUPTED)


def open_split(setup: "RunSetup") -> "TokenStream":
    """Open the tokens of the one split that the setup has, by the loader of training."""
    from hindsight.evaluation.token_stream import SplitStream
    from hindsight.ranks import on_each_node
    from load_text_streaming import build_dataset, check_h5

    (split,) = setup.windows
    on_each_node(lambda: check_h5(setup))
    dataset = build_dataset(setup, split, shuffle=False)
    return SplitStream(setup.windows[split], lambda number: dataset.get_item(number)["tokens"])


def passes(run: TrainedRun, data: "EvaluatedData") -> "list[Pass]":
    """Say how the model reads the windows: as it was trained, with order=both once in each direction."""
    from hindsight.evaluation.scoring import Pass
    from hindsight.loading.collate import Collate
    from hindsight.orders.order import readings_of

    tokenizer = data.tokenizer
    eos_id = tokenizer.eos_id if run.config.document_mask else None
    return [
        Pass(name, each.order, Collate(each.order, each.start_id, run.context_length, eos_id))
        for name, each in readings_of(data.order, tokenizer.bos_id).items()
    ]


def score_by(run: TrainedRun, data: "EvaluatedData", weights: "StoredWeights", precision: "Precision") -> "Score":
    """Build the model with its weights; what it gives scores a batch as the run's evaluation does."""
    import torch

    from hindsight.device import device_of_process
    from hindsight.orders.both import vocab_size_for
    from hindsight.training.precision import computing_in
    from language_model import LanguageModel, build_model
    from loss_utils import target_nats, target_ranks

    config, device = run.config, device_of_process()
    module = build_model(config.model, vocab_size_for(data.order, data.tokenizer.vocab_size), config.seed)
    model = device.module_to_device(LanguageModel(module, data.tokenizer.bytes_per_token)).eval()
    weights.load(model)

    def score(batch: "Batch") -> "tuple[torch.Tensor, torch.Tensor]":
        batch = device.batch_to_device(batch)
        targets_BT = batch["targets"]
        with torch.no_grad(), computing_in(precision):
            logits_NV, targets_N = model.logits(batch).flatten(0, 1), targets_BT.flatten()
            nats_N, ranks_N = target_nats(logits_NV, targets_N), target_ranks(logits_NV, targets_N)
        return nats_N.cpu().view(targets_BT.shape), ranks_N.cpu().view(targets_BT.shape)

    return score


def metrics_of(file: dict[str, Any]) -> dict[str, float]:
    """Compute the metrics over all rows of a file from what it says of itself."""
    import torch

    from loss_utils import metric_values

    sums = file["sums"]
    return metric_values(
        torch.tensor([sums["nats"], sums["likeliest"], file["rows"], sums["bytes"]], dtype=torch.double)
    )


def begin() -> None:
    """Handle signals from here on."""
    interrupts.handle_signals()
    interrupts.leave_while_starting(LAST_WORDS)
    interrupts.stop_with_launcher()


if __name__ == "__main__":
    begin()
    run_script("evaluate_tokens", main, alone="run")
