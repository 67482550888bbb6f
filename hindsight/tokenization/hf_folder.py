"""Tokenizer folders of Hugging Face: writing one, loading one as a reference, copying one, and the record in it.

The files are those that transformers writes, so that its AutoTokenizer loads them. transformers itself is imported only
for a reference, because that takes seconds. hindsight.json, beside them, records how the tokenizer was made.
"""

import contextlib
import json
import logging
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import processors

from hindsight.config.corpus import TextOrder
from hindsight.config.tokenizer import BYTES
from hindsight.errors import InputError
from hindsight.files import open_regular
from hindsight.tokenization.bpe_training import SPECIAL_TOKENS, Draft, drop_empty_post_processor, new_draft
from hindsight.tokenization.folder import CONFIG_FILE, TOKENIZER_FILE, complete, read_folder
from hindsight.tokenization.tokenizer import Tokenizer, is_byte_level

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger("hindsight")

ROLES = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>"}
"""The special token for each role, by transformers' name of the role."""
MODEL_INPUTS = ["input_ids", "attention_mask"]
"""What a tokenizer of transformers gives to a model. By default there would also be token_type_ids, for which GPT-2
adds an embedding to every position."""
RECORD_NAME = "hindsight.json"
FILES = ("tokenizer*.json", "*_tokens*.json", "vocab.json", "merges.txt", RECORD_NAME)
"""Patterns for the files of a tokenizer, in a folder that may also hold a model."""


def load_reference(reference: str) -> Draft:
    """Load the tokenizer whose settings a new one gets; InputError if there is none.

    Of one that is not byte-level (Llama 2, Unigram, WordPiece) only the special tokens are taken over: its other
    settings lose text, or leave the bytes of a token unknown.
    """
    from transformers import AutoTokenizer

    if reference.startswith(("/", ".", "~")) and not Path(reference).expanduser().is_dir():
        raise InputError(f"reference={reference} does not exist: give a tokenizer folder, or a name on the Hub.")
    for path in Path(reference).expanduser().glob("*.json"):
        if not (path.is_file() or path.is_dir()):
            raise InputError(f"reference={reference}: {path.name} is no regular file; give a tokenizer folder.")
    try:
        base = AutoTokenizer.from_pretrained(str(Path(reference).expanduser()))
    except Exception as error:  # transformers raises errors of many kinds for a bad folder or name
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"reference={reference} cannot be loaded ({reason}); give a tokenizer folder, or a name on the Hub and a "
            "connection to it."
        ) from error
    if not base.is_fast:
        raise InputError(f"reference={reference} has no tokenizer.json; give a tokenizer that has.")
    if not is_byte_level(json.loads(base.backend_tokenizer.to_str())):
        return _draft_with_special_tokens(reference, base)
    if getattr(base.backend_tokenizer.model, "dropout", None):
        base.backend_tokenizer.model.dropout = None  # the same text always gets the same tokens
    if base.bos_token is None or base.eos_token is None:
        add_special_tokens(base)
    drop_empty_post_processor(base)
    base.init_kwargs["model_input_names"] = MODEL_INPUTS
    base.init_kwargs.pop("split_special_tokens", None)
    return Draft(json.loads(base.backend_tokenizer.to_str()), base, origin=_content_of(base))


def _draft_with_special_tokens(reference: str, base: "PreTrainedTokenizerFast") -> Draft:
    """Make a byte-level tokenizer without a vocabulary that has the special tokens of another, and their roles."""
    origin = _content_of(base)
    if base.bos_token is None or base.eos_token is None:
        add_special_tokens(base)
    added = json.loads(base.backend_tokenizer.to_str())["added_tokens"]
    special = [token["content"] for token in sorted(added, key=lambda token: token["id"]) if token["special"]]
    roles = {role: getattr(base, role) for role in ROLES if getattr(base, role) is not None}
    special += [name for name in roles.values() if name not in special]
    log.info(
        "reference=%s is not byte-level: its special tokens (%s) are taken over; its normalizer, words and model are "
        "not, because text would be lost. The new tokenizer is byte-level BPE with GPT-2's words.",
        reference,
        ", ".join(special),
    )
    return replace(new_draft(special), roles=roles, origin=origin)


def _content_of(base: "PreTrainedTokenizerFast") -> str:
    return base.backend_tokenizer.to_str() + json.dumps(special_tokens_of(base))


def add_special_tokens(base: "PreTrainedTokenizerFast") -> None:
    """Add those of our special tokens that a tokenizer lacks, and give them the roles that none of its tokens has."""
    base.add_tokens(list(SPECIAL_TOKENS), special_tokens=True)
    base.add_special_tokens({role: token for role, token in ROLES.items() if getattr(base, role) is None})
    key = key_without_role()
    base.add_special_tokens({key: tokens_without_role()}, **{f"replace_{key}": False})


def key_without_role() -> str:
    """Name in transformers of the special tokens without a role; version 5 renamed it.

    To be deleted with transformers 4: https://github.com/huggingface/transformers/blob/main/MIGRATION_GUIDE_V5.md.
    """
    return "additional_special_tokens" if version("transformers").startswith("4.") else "extra_special_tokens"


def special_tokens_of(hf_tokenizer: "PreTrainedTokenizerFast") -> dict[str, Any]:
    """The special tokens by role, and those without one last, as transformers 4 lists them in `special_tokens_map`."""
    others = getattr(hf_tokenizer, key_without_role())
    tokens = hf_tokenizer.special_tokens_map
    roles = {role: token for role, token in tokens.items() if role != "additional_special_tokens"}
    return roles | ({"additional_special_tokens": others} if others else {})


def tokens_without_role() -> list[str]:
    """List our special tokens other than BOS, EOS and padding."""
    return [token for token in SPECIAL_TOKENS if token not in ROLES.values()]


def save(draft: Draft, folder: Path) -> Tokenizer:
    """Write a tokenizer folder, byte for byte as transformers would write it.

    Returns:
        The tokenizer, as `Tokenizer.load` reads it from the folder.
    """
    if draft.hf_tokenizer is not None:
        draft.hf_tokenizer.save_pretrained(folder, legacy_format=False)
        roles = {role: getattr(draft.hf_tokenizer, role) for role in ROLES}
    else:
        roles = draft.roles or ROLES
        form = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        names = [token["content"] for token in draft.special]
        others = {"additional_special_tokens": [name for name in names if name not in roles.values()]}
        _write(
            folder / CONFIG_FILE,
            {
                "added_tokens_decoder": {
                    token["id"]: {key: value for key, value in token.items() if key != "id"} for token in draft.special
                },
                **roles,
                **others,
                "clean_up_tokenization_spaces": False,
                "extra_special_tokens": {},
                "model_max_length": int(1e30),  # none
                "model_input_names": MODEL_INPUTS,
                "tokenizer_class": "PreTrainedTokenizerFast",
            },
        )
        _write(
            folder / "special_tokens_map.json",
            {role: {"content": name, **form} for role, name in roles.items()} | others,
        )
    special = {role.removesuffix("_token"): roles.get(role) for role in ROLES}
    tokenizer = Tokenizer(draft.spec, special, "the new tokenizer")
    tokenizer.save(folder / TOKENIZER_FILE)
    # transformers wrote the roles in its own way: loading the folder checks that we read them as they were meant.
    return tokenizer if draft.hf_tokenizer is None else Tokenizer.load(folder, key="out")


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def put_bos_first(draft: Draft) -> Draft:
    """Have transformers put BOS before every text; what is converted here gets none, as every window begins with it."""
    roles = draft.roles or ROLES
    bos = roles["bos_token"] if draft.hf_tokenizer is None else str(draft.hf_tokenizer.bos_token)
    number = {token["content"]: token["id"] for token in draft.spec["added_tokens"]}[bos]
    template = processors.TemplateProcessing(
        single=[bos, "$A"], pair=[bos, "$A", f"{bos}:1", "$B:1"], special_tokens=[(bos, number)]
    )
    backend = tokenizers.Tokenizer.from_str(json.dumps(draft.spec))
    backend.post_processor = template  # pyright: ignore[reportAttributeAccessIssue]
    return replace(draft, spec=json.loads(backend.to_str()))


def copy_tokenizer(folder: Path, copy: Path) -> None:
    """Copy a tokenizer folder, without a model that may lie in it."""
    copy.mkdir(exist_ok=True)
    for path in sorted({path for pattern in FILES for path in folder.glob(pattern) if path.is_file()}):
        shutil.copyfile(path, copy / path.name)
    _, written, roles = read_folder(folder, f"tokenizer={folder}")
    complete(copy, roles, written)


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of how a tokenizer was made; an empty one if it is missing or cannot be read."""
    with contextlib.suppress(OSError, ValueError), open_regular(folder / RECORD_NAME) as file:
        return json.loads(file.read().decode())
    return {}


def text_order_of(folder: Path) -> TextOrder | None:
    """Give the order of the text that a tokenizer was trained on; None if its record does not tell, or none was."""
    record = read_record(folder)
    settings = record.get("settings") if isinstance(record, dict) else None
    if not isinstance(settings, dict) or settings.get("vocab_size") == BYTES:
        return None
    # Records from before this key, and of text in reading order, have none.
    return TextOrder.reversed if settings.get("text_order") == TextOrder.reversed.value else TextOrder.reading


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of how a tokenizer was made."""
    (folder / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
