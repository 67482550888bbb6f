"""What each key of train_composer.py matters for: one table, which every part of the project asks.

- Resume: whether the key may change when a run goes on; a resume that changes a fixed key is refused.
- Pair: whether the two runs of a comparison may differ in it.
- Speed: whether runs that differ in it train at different speeds: the hours of one are then no estimate for the other.

Where the data lies may change freely, because the fingerprints of data and tokenizer in metadata.json are compared.
A new key needs a line here (tests/test_key_roles.py).
"""

from dataclasses import dataclass
from enum import Enum


class ResumeRole(Enum):
    """Whether a key may change when a run goes on."""

    fixed = "fixed"
    may_change = "may change"


class PairRole(Enum):
    """Whether the two runs of a comparison may differ in a key."""

    compared = "compared"
    """They must differ: it is what is compared."""
    equal = "equal"
    """Both runs must have the same value."""
    warned = "warned"
    """They may differ, with a warning: the key should change no more than the rounding of sums."""
    free = "free"
    """They may differ: the key cannot change a loss."""


class SpeedRole(Enum):
    """Whether a key changes the speed of training."""

    same = "same"
    changes = "changes"


@dataclass(frozen=True)
class KeyRoles:
    """What a key matters for."""

    resume: ResumeRole
    pair: PairRole
    speed: SpeedRole


_MODEL = KeyRoles(ResumeRole.fixed, PairRole.equal, SpeedRole.changes)
_OPTIMIZER = KeyRoles(ResumeRole.fixed, PairRole.equal, SpeedRole.same)
_EVALUATION = KeyRoles(ResumeRole.may_change, PairRole.equal, SpeedRole.same)
_COMPUTATION = KeyRoles(ResumeRole.may_change, PairRole.warned, SpeedRole.changes)
_RECORD = KeyRoles(ResumeRole.may_change, PairRole.free, SpeedRole.same)

KEY_ROLES = {
    "direction": KeyRoles(ResumeRole.fixed, PairRole.compared, SpeedRole.same),
    "order": KeyRoles(ResumeRole.fixed, PairRole.compared, SpeedRole.same),
    "document_mask": _MODEL,
    "model.name": _MODEL,
    "model.n_layers": _MODEL,
    "model.d_model": _MODEL,
    "model.context_length": _MODEL,
    "model.vocab_size": _MODEL,
    "model.tied_head": _MODEL,
    "model.dropout": _MODEL,
    "model.embedding_dropout": _MODEL,
    "model.init_from": _OPTIMIZER,
    "model.freeze": _MODEL,
    "model.n_heads": _MODEL,
    "model.n_kv_heads": _MODEL,
    "model.block": _MODEL,
    "model.mlp_ratio": _MODEL,
    "model.activation": _MODEL,
    "model.bias": _MODEL,
    "model.init": _MODEL,
    "model.rope_theta": _MODEL,
    "model.norm_eps": _MODEL,
    "model.logit_softcap": _MODEL,
    "model.cell": _MODEL,
    "model.final_norm": _MODEL,
    "data.path": _RECORD,
    "data.val_path": _RECORD,
    "data.cache_dir": _RECORD,
    "data.cache_limit": _RECORD,
    "data.download_retry": _RECORD,
    "data.download_timeout_s": _RECORD,
    "data.tokenizer": _RECORD,
    "data.context_length": _MODEL,
    "data.stride": _OPTIMIZER,
    "data.num_workers": _RECORD,
    "data.shuffle": _OPTIMIZER,
    "optim.name": _MODEL,
    "optim.lr": _OPTIMIZER,
    "optim.betas": _OPTIMIZER,
    "optim.eps": _OPTIMIZER,
    "optim.muon_momentum": _OPTIMIZER,
    "optim.weight_decay": _OPTIMIZER,
    "optim.decay_all": _OPTIMIZER,
    "optim.grad_clip": _OPTIMIZER,
    "optim.clip": _OPTIMIZER,
    "optim.skip_spikes": _OPTIMIZER,
    "optim.schedule": _OPTIMIZER,
    "optim.warmup_steps": _OPTIMIZER,
    "optim.lr_init": _OPTIMIZER,
    "optim.lr_min": _OPTIMIZER,
    "optim.cooldown_share": _OPTIMIZER,
    "optim.period_steps": _OPTIMIZER,
    "optim.shrink": _OPTIMIZER,
    "optim.power": _OPTIMIZER,
    "max_duration": _EVALUATION,
    "max_time": _RECORD,
    "batch_size": _MODEL,
    "microbatch_size": _COMPUTATION,
    "seed": _OPTIMIZER,
    "run_name": KeyRoles(ResumeRole.fixed, PairRole.free, SpeedRole.same),
    "runs_dir": _RECORD,
    "eval_interval": _EVALUATION,
    "eval_batches": _EVALUATION,
    "device_eval_batch_size": KeyRoles(ResumeRole.may_change, PairRole.warned, SpeedRole.same),
    "log_interval": _RECORD,
    "checkpoint.interval": _RECORD,
    "checkpoint.minutes": _RECORD,
    "checkpoint.keep": _RECORD,
    "checkpoint.backup_interval": _RECORD,
    "checkpoint.folder": _RECORD,
    "precision": _MODEL,
    "compile": _COMPUTATION,
    "parallelism": _COMPUTATION,
    "loss": _COMPUTATION,
    "activation_checkpointing": _COMPUTATION,
    "metrics": KeyRoles(ResumeRole.may_change, PairRole.free, SpeedRole.changes),
    "layer_norms": KeyRoles(ResumeRole.may_change, PairRole.free, SpeedRole.changes),
    "wandb.mode": _RECORD,
    "wandb.project": _RECORD,
    "wandb.entity": _RECORD,
    "tensorboard": _RECORD,
    "samples.interval": _RECORD,
    "samples.prompts": _RECORD,
    "samples.length": _RECORD,
    "samples.temperature": _RECORD,
    "samples.top_k": _RECORD,
    "energy": _RECORD,
    "energy_country": _RECORD,
    "progress_bar": _RECORD,
    "train.more": _RECORD,
    "train.more_lr": _RECORD,
    "evaluate": _RECORD,
    "sanity_check": _RECORD,
}
"""The roles of every key, by its full name."""


def roles_of(key: str) -> KeyRoles:
    """Roles of a key; the strictest for one that is not known, such as a key of a later version."""
    return KEY_ROLES.get(key, _MODEL)
