"""What somebody meant who gave a key that does not exist."""

import difflib
from collections.abc import Sequence

MEANT = {
    "learning_rate": ("optim.lr=",),
    "max_lr": ("optim.lr=",),
    "min_lr": ("optim.lr_min=",),
    "wd": ("optim.weight_decay=",),
    "clip": ("optim.grad_clip=",),
    "scheduler": ("optim.schedule=",),
    "lr_scheduler": ("optim.schedule=",),
    "warmup": ("optim.warmup_steps=",),
    "batch": ("batch_size=", "rounds="),
    "bs": ("batch_size=",),
    "micro_batch_size": ("microbatch_size=",),
    "epochs": ("max_duration=5ep",),
    "n_epochs": ("max_duration=5ep",),
    "num_epochs": ("max_duration=5ep",),
    "max_epochs": ("max_duration=5ep",),
    "steps": ("max_duration=1000ba",),
    "n_steps": ("max_duration=1000ba",),
    "num_steps": ("max_duration=1000ba",),
    "max_steps": ("max_duration=1000ba",),
    "iterations": ("max_duration=1000ba",),
    "max_iters": ("max_duration=1000ba",),
    "duration": ("max_duration=1000ba",),
    "tokens": ("max_duration=1_000_000tok",),
    "save_interval": ("checkpoint.interval=",),
    "save_every": ("checkpoint.interval=",),
    "eval_every": ("eval_interval=",),
    "log_every": ("log_interval=",),
    "name": ("run_name=",),
    "output_dir": ("runs_dir=", "out="),
    "save_dir": ("runs_dir=", "out="),
    "output": ("runs_dir=", "out="),
    "out": ("runs_dir=",),
    "out_dir": ("runs_dir=", "out="),
    "resume": ("run_name=",),
    "pretrained": ("model.init_from=",),
    "from_pretrained": ("model.init_from=",),
    "init_weights": ("model.init_from=",),
    "frozen": ("model.freeze=",),
    "freeze_layers": ("model.freeze=",),
    "data": ("data.path=", "corpus=", "path="),
    "dataset": ("data.path=", "corpus=", "path="),
    "data_dir": ("data.path=", "corpus=", "path="),
    "data_path": ("data.path=", "corpus=", "path="),
    "input": ("corpus=", "data.path=", "path="),
    "file": ("corpus=", "path="),
    "folder": ("checkpoint.folder=", "runs=", "path="),
    "dtype": ("precision=",),
    "amp": ("precision=bf16",),
    "seq_len": ("data.context_length=", "context_length=", "block_length="),
    "seq_length": ("data.context_length=", "context_length=", "block_length="),
    "context": ("data.context_length=", "context_length="),
    "block_size": ("data.context_length=", "context_length=", "block_length="),
    "layers": ("model.n_layers=",),
    "num_layers": ("model.n_layers=",),
    "heads": ("model.n_heads=",),
    "hidden_size": ("model.d_model=",),
    "width": ("model.d_model=",),
    "vocab": ("vocab_size=", "model.vocab_size="),
    "prompts": ("samples.prompts=",),
    "jobs": ("workers=", "data.num_workers="),
    "threads": ("workers=", "threads=", "data.num_workers="),
    "num_workers": ("data.num_workers=", "workers="),
    "val_fraction": ("val_share=",),
    "order": ("direction=",),
    "reverse": ("direction=backward",),
    "backward": ("direction=backward",),
}
"""Names that other programs have for what is a key here, or a value of one; the first that a command has is meant."""


def suggest(key: str, known: Sequence[str]) -> str | None:
    """Suggest key= or key=VALUE for a key that does not exist; None if nothing is like it.

    Args:
        key: in full as it was given, such as optim.learning_rate.
        known: all keys of the command, in full.
    """
    last = key.rpartition(".")[2]
    for meant in MEANT.get(last.lower().replace("-", "_"), ()):
        if meant.partition("=")[0] in known:
            return meant
    same_end = [each for each in known if each.rpartition(".")[2] == last]
    ends = {each.rpartition(".")[2]: each for each in reversed(known)}
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    close_end = [ends[each] for each in difflib.get_close_matches(last, [*ends], n=1, cutoff=0.7)]
    longer = [each for each in known if len(last) > 3 and last in each]
    found = next(iter([*same_end, *close, *close_end, *longer]), None)
    return f"{found}=" if found is not None else None
