"""What a tokenizer folder of Hugging Face says: tokenizer.json, and which tokens are BOS, EOS and padding.

The roles are written in tokenizer_config.json, or in special_tokens_map.json, or only in the class that transformers
takes for the model (GPT-2's own folder on the Hub), or as ids in the model's config.json. transformers itself, which
takes seconds to import, is not needed.
"""

import json
import re
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from hindsight.errors import InputError
from hindsight.files import read_json

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
MAP_FILE = "special_tokens_map.json"
MODEL_FILE = "config.json"
VOCAB_FILE, MERGES_FILE = "vocab.json", "merges.txt"
MAX_FILE_BYTES = 1 << 28
"""The largest tokenizer.json of today's models has 35 MB."""
ROLES = ("bos", "eos", "pad")

Roles = dict[str, str | None]
_GPT2: Roles = {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "pad": None}
_BART: Roles = {"bos": "<s>", "eos": "</s>", "pad": "<pad>"}
ROLES_OF_CLASS: dict[str, Roles] = {
    **dict.fromkeys(("gpt2", "gptneo", "gptneox", "gptj", "gptbigcode", "starcoder2", "codegen", "mpt", "phi"), _GPT2),
    **dict.fromkeys(("roberta", "bart", "longformer", "led", "bloom"), _BART),
    "cohere": {"bos": "<BOS_TOKEN>", "eos": "<|END_OF_TURN_TOKEN|>", "pad": "<PAD>"},
}
"""The special tokens that the byte-level classes of transformers have without being told, by the name of the class or
of the model's type."""
USUAL_NAMES = {
    "bos": ("<|bos|>", "<|begin_of_text|>", "<|startoftext|>", "<s>", "<bos>", "[BOS]", "<|endoftext|>"),
    "eos": ("<|eos|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<|endoftext|>"),
    "pad": ("<|pad|>", "<pad>", "[PAD]"),
}
"""Names by which special tokens of a tokenizer.json that stands alone are known."""


def read_folder(folder: Path, where: str) -> tuple[dict[str, Any], str, Roles]:
    """Read a tokenizer folder.

    Returns:
        The content of tokenizer.json, its text, and the special token for each role, None where there is none.

    Raises:
        InputError: it cannot be read; the message begins with `where`.
    """
    config, special, model = (_read(folder / name, where)[1] for name in (CONFIG_FILE, MAP_FILE, MODEL_FILE))
    if not all(isinstance(content, dict) for content in (config, special, model)):
        raise InputError(f"{where} is damaged: a file of it is no JSON object; make or copy the tokenizer again.")
    written, spec = _read(folder / TOKENIZER_FILE, where)
    if not written:
        written = _from_vocabulary(folder, _roles_of_class(config, model), where)
        spec = json.loads(written)
    known = _special_tokens(spec)
    roles = Roles()
    for role in ROLES:
        ids = model.get(f"{role}_token_id")
        candidates = [
            content_of(config.get(f"{role}_token")),
            content_of(special.get(f"{role}_token")),
            _roles_of_class(config, model).get(role),
            known.get(ids[0] if isinstance(ids, list) and ids else ids) if isinstance(ids, int | list) else None,
        ]
        # What is written down is taken at its word; the rest must be a special token.
        written_down = [name for name in candidates[:2] if name is not None]
        guessed = [name for name in (*candidates[2:], *USUAL_NAMES[role]) if name in known.values()]
        roles[role] = next(iter(written_down or guessed), None)
    return spec, written, roles


def complete(folder: Path, roles: Roles, written: str) -> None:
    """Write into a copy of a tokenizer folder what was found elsewhere: tokenizer.json, and the roles."""
    if not (folder / TOKENIZER_FILE).is_file():
        (folder / TOKENIZER_FILE).write_text(written, encoding="utf-8")
    path = folder / CONFIG_FILE
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    missing = {f"{role}_token": name for role, name in roles.items() if name and not config.get(f"{role}_token")}
    if missing or not path.is_file():
        defaults = {} if config.get("tokenizer_class") else {"tokenizer_class": "PreTrainedTokenizerFast"}
        content = json.dumps({**defaults, **config, **missing}, indent=2, ensure_ascii=False)
        path.write_text(content + "\n", encoding="utf-8")


def content_of(token: Any) -> str | None:
    """The name of a special token, which is written as text or as an object."""
    name = token.get("content") if isinstance(token, dict) else token
    return name if isinstance(name, str) else None


def _read(path: Path, where: str) -> tuple[str, Any]:
    """Read a file of JSON: its text and its content; an empty text and an empty dict if it is missing."""
    if not path.is_file():
        return "", {}
    try:
        content = read_json(path, MAX_FILE_BYTES)
        return path.read_text(encoding="utf-8"), content
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: {path.name} cannot be read ({error}); make or copy the tokenizer again.") from error


def _roles_of_class(config: dict[str, Any], model: dict[str, Any]) -> Roles:
    """The roles in the class that transformers would take."""
    for name in (config.get("tokenizer_class"), model.get("tokenizer_class"), model.get("model_type")):
        if isinstance(name, str):
            short = re.sub(r"tokenizer(fast)?$|[_-]", "", name.lower())
            if short in ROLES_OF_CLASS:
                return ROLES_OF_CLASS[short]
    return {}


def _special_tokens(spec: Any) -> dict[Any, str]:
    """The special tokens of a tokenizer.json by their ids; empty if it is damaged, which is told later."""
    try:
        return {token["id"]: token["content"] for token in spec["added_tokens"] if token["special"]}
    except (KeyError, TypeError):
        return {}


def _from_vocabulary(folder: Path, roles: Roles, where: str) -> str:
    """Make a tokenizer.json from GPT-2's older files, vocab.json and merges.txt."""
    paths = [folder / name for name in (VOCAB_FILE, MERGES_FILE)]
    if not all(path.is_file() for path in paths):
        raise InputError(
            f"{where} has no {TOKENIZER_FILE}: give a tokenizer folder, e.g. one that train_tokenizer.py made."
        )
    _read(paths[0], where)
    try:
        vocab, merges = models.BPE.read_file(*map(str, paths))
        backend = tokenizers.Tokenizer(models.BPE(vocab, merges))
    except Exception as error:  # tokenizers raises plain Exceptions
        raise InputError(
            f"{where}: {VOCAB_FILE} or {MERGES_FILE} cannot be read ({error}); copy them again."
        ) from error
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    names = dict.fromkeys([*(name for name in roles.values() if name), *sum(USUAL_NAMES.values(), ())])
    backend.add_special_tokens([name for name in names if name in vocab])
    return backend.to_str()
