"""What an evaluation says at its end."""

from typing import Any

from hindsight import runs
from hindsight.config.evaluation import WINDOWS
from hindsight.evaluation.trained_run import TrainedRun
from hindsight.json_lines import read_backward, step_of


def metric_lines(run: TrainedRun, file: dict[str, Any], values: dict[str, float]) -> list[str]:
    """Say what was scored, the metrics over all of it, and where its losses are.

    Args:
        run: the run.
        file: what the file says of itself, with its path.
        values: its metrics, by METRIC_NAMES.
    """
    sums, documents = file["sums"], file["documents"]
    lines = [
        f"run      {file['run']}, {file['order']}, step {file['step']}",
        f"scored   {file['split']} of {file['data']}: {documents:,} {'document' if documents == 1 else 'documents'}, "
        f"{file['rows']:,} tokens, {sums['bytes']:,} bytes; {file['context']} of {file['context_length']} tokens",
        f"losses   {values['loss_nats']:.6f} nats/token · perplexity {values['perplexity']:.4f} · accuracy "
        f"{values['accuracy']:.4%} · {values['bits_per_byte']:.6f} bits/byte · "
        f"{sums['nats'] / documents:.4f} nats/document",
    ]
    is_own = file["data_fingerprint"] == run.metadata[runs.FINGERPRINTS[0]] and file["split"] == "val"
    loss = _recorded_loss(run, file) if is_own and file["context"] == WINDOWS else None
    if loss is not None:
        part = run.config.eval_batches
        of_what = f", on its first {part} batches" if part is not None else ""
        lines.append(f"its own  {loss:.6f} nats/token, in the run's evaluation at this step{of_what}")
    return [*lines, f"file     {file['path']}"]


def _recorded_loss(run: TrainedRun, file: dict[str, Any]) -> float | None:
    """Loss of the run's own evaluation at a file's step, with order=both in its direction.

    None if there was none, or the run's folder is not here.
    """
    step = file["step"]
    key = runs.EVAL_LOSS if file["run_order"] == file["order"] else f"{runs.EVAL}{file['order']}/loss_nats"
    for record in read_backward(run.folder / runs.METRICS) if run.folder is not None else ():
        if step_of(record) == step:
            loss = record.get(key)
            return loss if runs.is_number(loss) else None
    return None
