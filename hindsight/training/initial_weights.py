"""Begin a run with weights that were trained before, in place of drawn ones (model.init_from).

Ids that the weights know keep their rows in the embedding and the head. Each id that the data's tokenizer has beyond
gets the mean of these rows: its logit is then about the mean of the others, so that k of them in a vocabulary of n take
at most k/(n + k) of the probability before they are trained, and the loss of the others grows by at most ln(1 + k/n)
nats (John Hewitt, "Initializing New Word Embeddings for Pretrained Language Models", 2021).

Shapes: V ids, D d_model.
"""

import hashlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hindsight.config.evaluation import NEWEST
from hindsight.errors import InputError
from hindsight.evaluation.stored_weights import chosen_weights
from hindsight.hf_weights import EMBEDDING, HEAD
from hindsight.ranks import on_rank_0, send_weights
from hindsight.training.checkpoint_content import plain_name
from hindsight.training.init_source import Source, check_source, open_source
from hindsight.training.setup import RunSetup
from hindsight.training.stored_folder import weights_in

Read = Callable[[], dict[str, Tensor]]
MODULE = "module"
"""Name of a GPT or RNN inside the model that Composer trains."""


def begin_with(setup: RunSetup, model: nn.Module) -> dict[str, Any]:
    """Give a model the weights of model.init_from, on all ranks.

    Args:
        setup: the run.
        model: its model, which keeps its drawn weights where model.init_from is null.

    Returns:
        What metadata.json says of them; empty if there are none.

    Raises:
        InputError: there are no such weights, or they do not fit the run.
    """
    given = setup.config.model.init_from
    if given is None:
        return {}
    module = model.get_submodule(MODULE)

    def opened() -> tuple[Source, int]:
        source = open_source(given)
        return source, check_source(source, setup)

    source, n_known = on_rank_0(opened)
    with _weights_of(source, setup) as (read, origin):
        record = on_rank_0(lambda: _fill(module, read(), n_known, setup.tokenizer.vocab_size, source.where))
    send_weights(module)
    return {"from": given, **origin, **record, "fingerprint": on_rank_0(lambda: fingerprint_of(module))}


@contextmanager
def _weights_of(source: Source, setup: RunSetup) -> Generator[tuple[Read, dict[str, Any]], None, None]:
    """Give what reads the weights by our names on rank 0, and say where they are from."""
    if source.run is None:
        folder = source.folder
        assert folder is not None
        # A snapshot of the Hub is in a folder of the commit's name.
        is_snapshot = folder.parent.name == "snapshots"
        origin = {"commit": folder.name} if is_snapshot else {"folder": str(folder.resolve())}
        yield lambda: weights_in(folder, setup.config.model, source.where), origin
        return
    try:
        with chosen_weights(source.run, NEWEST) as stored:
            state = stored.state or {}
            yield (
                lambda: {plain_name(name).removeprefix(f"{MODULE}."): state[name] for name in state},
                {"run": source.run.name, "step": stored.step},
            )
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(source.where) else f"{source.where}: {text}") from None


def _fill(module: nn.Module, weights: dict[str, Tensor], n_known: int, n_tokens: int, where: str) -> dict[str, Any]:
    """Copy weights into a model; rows of ids that they do not know are the mean of the others.

    Args:
        module: the model.
        weights: by our names.
        n_known: ids, from 0 on, that mean the same to both.
        n_tokens: ids of the data's tokenizer; the model may have more.
        where: how messages name the weights.

    Returns:
        How many rows were copied, were added, and are left out.
    """
    own = module.state_dict()
    rows = (EMBEDDING, HEAD)
    if missing := own.keys() - weights.keys():
        raise InputError(f"{where} has no {min(missing)}; it holds the weights of another model.")
    for name, weight in own.items():
        found = weights[name]
        if found.shape[1 if name in rows else 0 :] != weight.shape[1 if name in rows else 0 :]:
            raise InputError(
                f"{where} has weights of another shape than it says: {name} is {list(found.shape)}, not "
                f"{list(weight.shape)}; copy it again."
            )
        if not torch.isfinite(found).all():
            raise InputError(f"{where}: {name} has NaN or infinity; give weights that were trained to the end.")
    there, here = weights[EMBEDDING].shape[0], own[EMBEDDING].shape[0]
    if weights[HEAD].shape[0] != there:
        raise InputError(f"{where} has {there} rows in the embedding, but {weights[HEAD].shape[0]} in the head.")
    # Rows behind the tokenizer's ids are padding, or begin the inputs of order=both; they go on as they are.
    copied = [i for i in range(min(here, there)) if i < n_known or i >= n_tokens]
    added = sorted(set(range(here)) - set(copied))
    for name, weight in own.items():
        if name in rows:
            weight[copied] = weights[name][copied].to(weight.dtype)
            if added:
                weight[added] = mean_row(weights[name][: min(n_known, there)])
        else:
            weight.copy_(weights[name])
    return {"rows_copied": len(copied), "rows_added": len(added), "rows_left_out": there - len(copied)}


def mean_row(rows_VD: Tensor) -> Tensor:
    """Return mean_D, added up row by row by NumPy: the same, bit for bit, with any number of threads."""
    return torch.from_numpy(rows_VD.float().numpy().mean(axis=0, dtype=np.float64).astype(np.float32))


def fingerprint_of(module: nn.Module) -> str:
    """Hash the weights of a model by their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(module.state_dict().items()):
        digest.update(f"{name} {list(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
