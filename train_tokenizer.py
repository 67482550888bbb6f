"""Train a byte-level BPE tokenizer on a corpus and save it as a folder that transformers' AutoTokenizer loads.

Words are split by GPT-2's pattern, every byte is in the alphabet, and nothing is normalized, so that any text comes
back as it was. With reference=, the normalizer, pre-tokenizer, decoder and special tokens are those of another
tokenizer (text comes back as its normalizer leaves it); if it lacks a BOS or an EOS token, our five special tokens join
its own and take the roles that it leaves open.
"""

import contextlib
import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from hindsight.command_line import run_script
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.files import is_free, local_path, new_folder
from hindsight.text.digest import Digest, hash_document
from hindsight.text.documents import Corpus
from hindsight.text.problems import Reading
from hindsight.text.sampling import documents_of
from hindsight.tokenization.bpe_training import N_BYTES, SPECIAL_TOKENS, Draft, new_draft, train
from hindsight.tokenization.tokenizer import CONFIG_FILE, TOKENIZER_FILE, Tokenizer, require_byte_level

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger("hindsight")

ROLES = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>"}
RECORD_NAME = "hindsight.json"


def main(config: TokenizerConfig) -> None:
    """Train and save, unless the same tokenizer is there."""
    out = local_path("out", config.out)
    corpus = Corpus(config)
    draft = new_draft() if config.reference is None else load_reference(config.reference)
    check_vocab_size(config.vocab_size, draft)
    record: dict[str, Any] = {"settings": settings_of(config, draft)}
    check_out(out, record)

    sample = Sample(config, corpus)
    if not is_free(out):
        if corpus.stamp is None or _record_in(out).get("stamp") != corpus.stamp:
            check_out(out, record | {"corpus_fingerprint": sample.read().fingerprint})
        log.info("out=%s: already there, nothing to do.", out)
        return
    with new_folder(out) as folder:
        trained, library = train(draft, sample.texts(), config.vocab_size, config.trainer)
        record |= {"corpus_fingerprint": sample.fingerprint, "stamp": corpus.stamp}
        libraries = ["tokenizers", library, *([] if trained.theirs is None else ["transformers"])]
        record["versions"] = {name: version(name) for name in libraries}
        tokenizer = save(trained, folder)
        record["fingerprint"] = tokenizer.fingerprint
        (folder / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    log.info("out=%s: %d token ids, learned from %.1f MB of text.", out, tokenizer.vocab_size, sample.bytes / 1e6)


def add_special_tokens(base: "PreTrainedTokenizerFast") -> None:
    """Add those of our special tokens that a tokenizer lacks, and give them the roles that it leaves open."""
    base.add_tokens(list(SPECIAL_TOKENS), special_tokens=True)
    base.add_special_tokens({role: token for role, token in ROLES.items() if getattr(base, role) is None})
    base.add_special_tokens({"additional_special_tokens": without_role()}, replace_additional_special_tokens=False)


def without_role() -> list[str]:
    """Our special tokens that are no BOS, EOS or padding."""
    return [token for token in SPECIAL_TOKENS if token not in ROLES.values()]


def load_reference(reference: str) -> Draft:
    """Load the tokenizer whose settings are taken over; InputError if there is none or it is not byte-level."""
    from transformers import AutoTokenizer

    if reference.startswith(("/", ".", "~")) and not Path(reference).expanduser().is_dir():
        raise InputError(f"reference={reference} does not exist: give a tokenizer folder, or a name on the Hub.")
    try:
        base = AutoTokenizer.from_pretrained(str(Path(reference).expanduser()))
    except Exception as error:  # whatever the files in question make transformers raise
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"reference={reference} cannot be loaded ({reason}); give a tokenizer folder, or a name on the Hub and a "
            "connection to it."
        ) from error
    if not base.is_fast:
        raise InputError(f"reference={reference} has no tokenizer.json; give a tokenizer that has.")
    require_byte_level(json.loads(base.backend_tokenizer.to_str()), f"reference={reference}")
    if base.bos_token is None or base.eos_token is None:
        add_special_tokens(base)
    base.init_kwargs["split_special_tokens"] = True
    return Draft(json.loads(base.backend_tokenizer.to_str()), base)


def settings_of(config: TokenizerConfig, draft: Draft) -> dict[str, Any]:
    """All that the tokenizer depends on, the corpus aside."""
    theirs = draft.theirs
    content = "" if theirs is None else theirs.backend_tokenizer.to_str() + json.dumps(theirs.special_tokens_map)
    return {
        "vocab_size": config.vocab_size,
        "reference": hashlib.sha256(content.encode()).hexdigest() if content else None,
        "sample_bytes": config.sample_bytes,
        **config.reading(),
        "on_error": config.on_error.value,
        "seed": config.seed,
    }


def check_vocab_size(vocab_size: int, draft: Draft) -> None:
    """Raise InputError if the bytes and the special tokens alone exceed the vocabulary."""
    n_special = len(draft.special)
    if vocab_size < N_BYTES + n_special:
        raise InputError(
            f"vocab_size={vocab_size} is too small: {N_BYTES} bytes and {n_special} special tokens need at "
            f"least {N_BYTES + n_special}."
        )


def check_out(out: Path, record: dict[str, Any]) -> None:
    """Raise InputError if `out` holds something else than what this record describes, as far as it goes."""
    if is_free(out):
        return
    there = _record_in(out)
    for key, value in record.items():
        if there.get(key) != value:
            what = "a tokenizer made from another corpus or with other settings" if there else "something else"
            raise InputError(f"out={out} holds {what}; choose another out, or remove it.")


def _record_in(out: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((out / RECORD_NAME).read_text(encoding="utf-8"))
    return {}


class Sample:
    """The documents to learn from, counted and hashed while they are read.

    Args:
        config: how much of the corpus.
        corpus: the corpus.
    """

    def __init__(self, config: TokenizerConfig, corpus: Corpus) -> None:
        self.config = config
        self.corpus = corpus
        self.bytes = 0
        self._digest = Digest()
        self._reading = Reading()

    @property
    def fingerprint(self) -> str:
        """Hash of what was read."""
        return self._digest.fingerprint

    def texts(self) -> Iterator[str]:
        """Yield the documents, with a progress bar; InputError if there is none."""
        files = self.corpus.files
        plain = all(file.compression is None and file.kind != ".parquet" for file in files)
        total = self.config.sample_bytes or (sum(file.size for file in files) or None if plain else None)
        with tqdm(total=total, desc="reading", unit="B", unit_scale=True, disable=None) as bar:
            for document in documents_of(self.corpus, self.config.sample_bytes, self.config.seed, self._reading):
                self.bytes += len(document.raw)
                self._digest = self._digest.then(Digest.of([hash_document(document.raw)]))
                bar.update(len(document.raw))
                yield document.text
        for problem in self._reading.problems:
            log.warning("%s", problem.message)
        if not self.bytes:
            raise InputError(f"corpus={self.config.corpus} is empty: it holds no document; give one with text.")

    def read(self) -> "Sample":
        """Only count and hash."""
        deque(self.texts(), maxlen=0)
        return self


def save(draft: Draft, folder: Path) -> Tokenizer:
    """Write a tokenizer so that transformers' AutoTokenizer loads it; the files are those that transformers writes.

    Returns:
        What `Tokenizer.load` gives for the folder.
    """
    if draft.theirs is not None:
        draft.theirs.save_pretrained(folder, legacy_format=False)
        roles = {role: getattr(draft.theirs, role) for role in ROLES}
    else:
        roles = ROLES
        form = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        others = {"additional_special_tokens": without_role()}
        _write(
            folder / CONFIG_FILE,
            {
                "added_tokens_decoder": {
                    token["id"]: {key: value for key, value in token.items() if key != "id"} for token in draft.special
                },
                **ROLES,
                **others,
                "clean_up_tokenization_spaces": False,
                "extra_special_tokens": {},
                "model_max_length": int(1e30),  # none
                "split_special_tokens": True,  # AutoTokenizer too shall take "<|eos|>" in a text for seven characters
                "tokenizer_class": "PreTrainedTokenizerFast",
            },
        )
        _write(
            folder / "special_tokens_map.json",
            {role: {"content": name, **form} for role, name in ROLES.items()} | others,
        )
    special = {role.removesuffix("_token"): name for role, name in roles.items()}
    tokenizer = Tokenizer(draft.spec, special, "the new tokenizer")
    tokenizer.save(folder / TOKENIZER_FILE)
    # How transformers writes the roles is its own affair: see that they are read as they were meant.
    return tokenizer if draft.theirs is None else Tokenizer.load(folder, key="out")


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_script("train_tokenizer", main)
