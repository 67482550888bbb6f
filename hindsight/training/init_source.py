"""Where the weights of model.init_from are, and whether they fit the run; nothing here imports torch.

A folder of Hugging Face says its sizes in config.json and has its tokenizer beside; a run of ours says its sizes in
config.yaml, and the fingerprint of its tokenizer in metadata.json. What both say is compared before anything is built.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hindsight import runs
from hindsight.config.model import Block, GPTConfig, ModelConfig, RNNConfig
from hindsight.errors import InputError
from hindsight.evaluation.trained_run import TrainedRun, read_run
from hindsight.files import read_json
from hindsight.shards.manifest import TOKENIZER_FOLDER
from hindsight.tokenization.extension import ids_before
from hindsight.training.hf_sizes import ratio_of, sizes_of
from hindsight.training.setup import RunSetup

log = logging.getLogger("hindsight")

CONFIG_JSON = "config.json"
MAX_CONFIG_BYTES = 1 << 20
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
HUB_FILES = ["*.json", "merges.txt", "*.safetensors"]
"""What is fetched of a model on the Hub; where it has no safetensors, OLD_HUB_FILES too."""
OLD_HUB_FILES = ["pytorch_model*.bin"]


@dataclass(frozen=True)
class Source:
    """What holds the weights.

    Args:
        given: the value of model.init_from.
        model: what they are the weights of.
        folder: a folder of Hugging Face here; None for a run.
        run: a run of ours; None for a folder.
    """

    given: str
    model: ModelConfig
    folder: Path | None = None
    run: TrainedRun | None = None

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"model.init_from={self.given}"


def check_early(setup: RunSetup, is_fetched: bool = False) -> None:
    """Check the weights that a new run is to begin with; InputError if they do not fit.

    A run that may go on needs none, and is looked at when its checkpoints are.

    Args:
        setup: the run.
        is_fetched: whether weights elsewhere are looked at too, and those on the Hub downloaded.
    """
    given, may_go_on = setup.config.model.init_from, setup.config.checkpoint.folder is not None
    if given is None or may_go_on or (setup.folder / runs.CONFIG).exists():
        return
    if is_fetched or _is_path(given) or _folder(given).is_dir():
        check_source(open_source(given), setup)


def open_source(given: str) -> Source:
    """Read what is known of weights beside them; those on the Hub are downloaded.

    Raises:
        InputError: there are none, or they are those of a model that is not known here.
    """
    where, folder = f"model.init_from={given}", _folder(given)
    if "://" in given or (folder / runs.CONFIG).is_file():
        try:
            run = read_run(given)
        except InputError as error:
            raise InputError(f"{where}: {str(error).removeprefix(f'run={given} ')}") from None
        return Source(given, run.config.model, run=run)
    if not folder.is_dir():
        if _is_path(given):
            raise InputError(f"{where} does not exist; give a folder of Hugging Face, a name on the Hub, or a run.")
        folder = _from_hub(given, where)
    if not (folder / CONFIG_JSON).is_file():
        raise InputError(
            f"{where} has neither {CONFIG_JSON}, as folders of Hugging Face have, nor {runs.CONFIG}, as runs have; "
            "give one of these."
        )
    try:
        content = read_json(folder / CONFIG_JSON, MAX_CONFIG_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: {CONFIG_JSON} cannot be read ({error}); copy the folder again.") from None
    return Source(given, sizes_of(content, where), folder=folder)


def check_source(source: Source, setup: RunSetup) -> int:
    """Check the sizes and the tokenizer of weights against those of a run.

    Returns:
        How many ids, from 0 on, mean the same in both.

    Raises:
        InputError: they do not fit.
    """
    model = setup.config.model
    there, here = _architecture(source.model), _architecture(model)
    if there["kind"] != here["kind"]:
        raise InputError(
            f"{source.where} holds a {there['kind']}, and model={model.name} is a {here['kind']}; give a model= of its "
            "kind."
        )
    if source.folder is not None and there.get("block") == Block.gpt2.name:
        there["bias"] = here.get("bias")  # GPT-2's always has biases; those of a model without are zeros
    wanted = {key: value for key, value in there.items() if here.get(key) != value}
    if wanted:
        given = " ".join(f"model.{key}={_as_typed(value)}" for key, value in wanted.items())
        raise InputError(f"{source.where} is of other sizes than model={model.name}; give {given}.")
    return _ids_in_common(source, setup)


def _ids_in_common(source: Source, setup: RunSetup) -> int:
    if source.run is None:
        assert source.folder is not None
        return ids_before(setup.tokenizer, source.folder, source.where)
    if source.run.metadata[runs.FINGERPRINTS[1]] == setup.tokenizer.fingerprint:
        return setup.tokenizer.vocab_size
    data = source.run.config.data
    folder = data.tokenizer or str(Path(data.path, TOKENIZER_FOLDER))
    if not Path(folder).is_dir():
        raise InputError(
            f"{source.where} has another tokenizer than the data, and {folder}, where its own was, is no folder here; "
            "give data of its tokenizer."
        )
    return ids_before(setup.tokenizer, Path(folder), source.where)


def _architecture(model: ModelConfig) -> dict[str, Any]:
    """The keys on which the shapes of a model depend, and what it computes with its weights, each as it counts."""
    found: dict[str, Any] = {"n_layers": model.n_layers, "d_model": model.d_model, "tied_head": model.tied_head}
    if isinstance(model, RNNConfig):
        return {"kind": "GRU or LSTM", **found, "cell": model.cell.name, "final_norm": model.final_norm}
    assert isinstance(model, GPTConfig)
    found |= {"block": model.block.name, "n_heads": model.n_heads, "bias": model.has_bias, "norm_eps": model.norm_eps}
    found["mlp_ratio"] = ratio_of(model.d_hidden, model.d_model)
    if model.block is not Block.llama:
        found["activation"] = model.activation.name
    if model.block is Block.gpt2:
        found["context_length"] = model.context_length
    else:
        found |= {"n_kv_heads": model.n_key_value_heads, "rope_theta": model.rope_theta}
        found["logit_softcap"] = model.logit_softcap
    return {"kind": "GPT", **found}


def _as_typed(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _folder(given: str) -> Path:
    return Path(given).expanduser()


def _is_path(given: str) -> bool:
    """Whether a value can be nothing but a path: no name on the Hub, or one in a folder that is here."""
    return "://" not in given and (
        HUB_NAME.fullmatch(given) is None or ("/" in given and _folder(given).parent.is_dir())
    )


def _from_hub(name: str, where: str) -> Path:
    """Download a model from the Hub, or find it in the cache of earlier downloads."""
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        if not isinstance(try_to_load_from_cache(name, CONFIG_JSON), str):
            log.info("%s is no folder here: looks for it on the Hub, which may take a while", where)
        folder = Path(snapshot_download(name, allow_patterns=HUB_FILES))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*HUB_FILES, *OLD_HUB_FILES]))
    except Exception as error:  # of requests, the Hub and the file system, without a common ancestor
        reason = f"{type(error).__name__}: {' '.join(str(error).split()).partition('. ')[0][:200]}"
        if isinstance(error, LocalEntryNotFoundError):
            reason = "it cannot be reached, and there is no copy in its cache"
        elif isinstance(error, RepositoryNotFoundError):
            reason = "there is no such model, or not without a login that may read it: `hf auth login`"
        raise InputError(
            f"{where} is no folder here, and the Hub does not give it ({reason}); give a folder, or a name on the Hub "
            "and a connection to it."
        ) from None
    return folder
