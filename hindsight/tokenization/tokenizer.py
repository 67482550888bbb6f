"""A tokenizer: text -> token ids -> text, and the bytes that each id stands for.

It is read from a folder of Hugging Face (tokenizer.json, tokenizer_config.json). Only byte-level tokenizers are
accepted: they encode any text, and each of their tokens stands for a known number of bytes.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from hindsight.errors import InputError
from hindsight.tokenization.folder import Roles, read_folder
from hindsight.tokenization.patterns import require_quick_patterns

if TYPE_CHECKING:
    from torch import Tensor

MAX_IDS = 1 << 24
"""More ids than any vocabulary has; tables of them are in memory."""
PIECE_CHARS = 1 << 15
"""Least length, in characters, of the pieces into which long texts are cut."""

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
"""The words of a text, for GPT-2 and for ByteLevel with use_regex in `tokenizers`; GPT-2's encoder.py, shortened."""

_PRINTABLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_CHARACTERS = "".join(chr(byte if byte in _PRINTABLE else 0x100 + _OTHERS.index(byte)) for byte in range(256))
"""The characters for bytes 0 to 255 in byte-level tokens: printable Latin-1 for itself, from U+0100 for the others."""
_BYTE_OF = dict.fromkeys(range(256), "\uffff") | {
    ord(character): byte for byte, character in enumerate(BYTE_CHARACTERS)
}

# GPT-2's pattern always begins a new word behind such a line feed, whatever surrounds it; few other places are as safe.
_SEAM = re.compile(r"\S\n(?=\S)")


class Tokenizer:
    """A byte-level tokenizer; `Tokenizer.load` reads one.

    Args:
        spec: content of tokenizer.json.
        special: names of the special tokens for the roles bos, eos and pad.
        where: how messages name the tokenizer.
        written: the text of tokenizer.json, if it was read; it is not serialized again then.
    """

    def __init__(self, spec: dict[str, Any], special: Roles, where: str, written: str | None = None) -> None:
        require_byte_level(spec, where)
        require_quick_patterns(spec, where)
        self._made_of = (spec, special, where)
        self.roles: Roles = special
        """Names of the special tokens for the roles bos, eos and pad."""
        self.dropout: float = spec["model"].get("dropout") or 0.0
        """Share of the merges that tokenizer.json leaves out at random; here it is always 0."""
        if self.dropout:
            written = None
        self.spec: dict[str, Any] = {**spec, "model": {**spec["model"], "dropout": None}} if self.dropout else spec
        """Content of tokenizer.json, without dropout."""
        self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(self.spec) if written is None else written)
        self._tokenizer.encode_special_tokens = True  # "<|eos|>" in a text is seven characters
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size: int = max(ids.values()) + 1
        """Number of token ids."""
        if self.vocab_size > MAX_IDS:
            raise InputError(f"{where} has the id {self.vocab_size - 1}; ids must be below {MAX_IDS}.")
        if not ids.keys() >= set(tokenizers.pre_tokenizers.ByteLevel.alphabet()):
            raise InputError(
                f"{where} lacks some of the 256 bytes, and would lose them; train one with train_tokenizer.py."
            )
        missing = [name for name in ("bos", "eos") if special[name] is None or special[name] not in ids]
        if missing:
            raise InputError(
                f"{where} has no {' and no '.join(missing)} token; make a tokenizer that has with train_tokenizer.py, "
                "if need be with this one as reference=."
            )
        self.bos_id: int = ids[special["bos"] or ""]
        """Id that starts every input of a model."""
        self.eos_id: int = ids[special["eos"] or ""]
        """Id that ends every document."""
        self.pad_id: int | None = ids.get(special["pad"] or "")
        """Id of padding; None if the tokenizer has none."""
        canonical = {key: value for key, value in spec.items() if key not in ("padding", "truncation")}
        content = json.dumps([canonical, special["bos"], special["eos"]], sort_keys=True, separators=(",", ":"))
        self.fingerprint: str = hashlib.sha256(content.encode()).hexdigest()
        """Hash of everything that the ids of a text depend on."""
        self._plain = {token["id"]: token["content"] for token in spec["added_tokens"] if not token["special"]}
        self.bytes_per_token: NDArray[np.int64] = _bytes_per_token(spec, ids, self.vocab_size)
        """(vocab_size,) UTF-8 bytes that each id stands for; 0 for special tokens."""
        self.cuttable: bool = can_be_cut(spec)
        """Whether `cut` leaves the ids of a text as they are."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, self._made_of  # a pickled tokenizers.Tokenizer forgets encode_special_tokens

    @classmethod
    def load(cls, folder: str | Path, key: str = "tokenizer") -> "Tokenizer":
        """Read a tokenizer folder; InputError, naming the configuration key, if it cannot be used."""
        where = f"{key}={folder}"
        spec, written, special = read_folder(Path(folder).expanduser(), where)
        try:
            return cls(spec, special, where, written)
        except InputError:
            raise
        except Exception as error:  # tokenizers raises plain Exceptions, and a damaged file may cause any other
            raise InputError(f"{where} is damaged ({error!r}); make or copy the tokenizer again.") from error

    def save(self, path: Path) -> None:
        """Write tokenizer.json, without padding and truncation."""
        self._tokenizer.save(str(path))

    def bytes_of(self, token_id: int) -> bytes:
        """Give the bytes that an id stands for; b"" for special tokens and unused ids."""
        if not self.bytes_per_token[token_id]:
            return b""
        if token_id in self._plain:  # an added token stands for the characters of its name
            return self._plain[token_id].encode()
        name = self._tokenizer.id_to_token(token_id)
        try:
            return bytes_of(name)
        except ValueError:  # a token that no byte-level text can give
            return name.encode()

    def name_of(self, token_id: int) -> str:
        """Write a token for a reader: its text in quotes, or its bytes if they are not complete characters."""
        content = self.bytes_of(token_id)
        if not content:
            return self._tokenizer.id_to_token(token_id) or f"id {token_id}"
        try:
            return repr(content.decode())
        except UnicodeDecodeError:
            return repr(content)

    def special_id(self, name: str) -> int | None:
        """Give the id of a special token; None if there is none of this name."""
        special = {token["content"]: token["id"] for token in self.spec["added_tokens"] if token["special"]}
        return special.get(name)

    def is_fragment(self, token_id: int) -> bool:
        """Whether an id stands for bytes that are not complete UTF-8 characters."""
        try:
            self.bytes_of(token_id).decode()
        except UnicodeDecodeError:
            return True
        return False

    def tokenize(self, text: str) -> "Tensor":
        """Give the ids of a text as int64 (1, T), without BOS or EOS.

        Names of special tokens inside the text are ordinary characters.
        """
        import torch  # imported late: conversions need no torch

        return torch.tensor([self._tokenizer.encode(text, add_special_tokens=False).ids], dtype=torch.int64)

    def detokenize(self, ids: "Tensor | NDArray | Sequence[int]") -> str:
        """Give the text of ids, (T,) or (1, T), without special tokens; incomplete characters become U+FFFD."""
        return self._tokenizer.decode(np.asarray(ids).reshape(-1).tolist(), skip_special_tokens=True)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Give the ids of each text, in parallel, without BOS or EOS."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def cut(self, text: str) -> Iterator[str]:
        """Cut a long text into pieces whose ids, concatenated, are those of the text."""
        return cut(text) if self.cuttable else iter([text])


def cut(text: str) -> Iterator[str]:
    """Cut a long text where GPT-2's pattern always begins a new word, so that words and ids stay the same."""
    start = 0
    while len(text) - start > PIECE_CHARS and (seam := _SEAM.search(text, start + PIECE_CHARS)) is not None:
        yield text[start : seam.end()]
        start = seam.end()
    yield text[start:]


def token_of(content: bytes) -> str:
    """Write bytes as a byte-level token."""
    return content.decode("latin-1").translate(BYTE_CHARACTERS)


def bytes_of(token: str) -> bytes:
    """Give the bytes that a byte-level token stands for; ValueError if it is no byte-level token."""
    try:
        return token.translate(_BYTE_OF).encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"{token!r} does not stand for bytes") from None


def can_be_cut(spec: dict[str, Any]) -> bool:
    """Whether a tokenizer finds words by GPT-2's pattern and nothing else, as `cut` assumes."""
    words = spec.get("pre_tokenizer") or {}
    gpt2 = words.get("type") == "ByteLevel" and words.get("use_regex", True) and not words.get("add_prefix_space", True)
    return bool(gpt2) and not spec.get("normalizer") and all(token["special"] for token in spec["added_tokens"])


def is_byte_level(spec: dict[str, Any]) -> bool:
    """Whether the tokens of a tokenizer.json stand for bytes, by its decoder."""
    decoder = spec.get("decoder") or {}
    return "ByteLevel" in [decoder.get("type"), *(step.get("type") for step in decoder.get("decoders", []))]


def require_byte_level(spec: dict[str, Any], where: str) -> None:
    """Raise InputError unless the tokens of a tokenizer.json stand for bytes."""
    decoder = spec.get("decoder") or {}
    if not is_byte_level(spec):
        raise InputError(
            f"{where} is not byte-level (its decoder is {decoder.get('type')}), so that the bytes of a token are not "
            "known; choose a byte-level tokenizer, as those of GPT-2 or Llama 3, or train one with train_tokenizer.py."
        )


def _bytes_per_token(spec: dict[str, Any], ids: dict[str, int], vocab_size: int) -> NDArray[np.int64]:
    table = np.zeros(vocab_size, np.int64)
    for token, token_id in ids.items():
        table[token_id] = len(token)  # byte-level: each byte is written as one character
    for token in spec["added_tokens"]:
        table[token["id"]] = 0 if token["special"] else len(token["content"].encode())
    return table
