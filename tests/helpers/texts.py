"""What the tests of tokenizers and of vocabularies share: texts, and references."""

import random

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

WORDS = ["time", "arrow", "backward", "forward", "été", "naïve", "the", "and", "42", "don't", "它", "🙂"]
TRICKY = [
    "",
    " ",
    "\n",
    "  two  spaces \n\n\t tab\r\n",
    "a\0b",
    "line\u2028separator\u2029\x85\x1c",
    "<|eos|>",
    "x<|bos|>y <|pad|><|forward|>",
    "👩‍👩‍👧‍👦 🏳️‍🌈",
    "e\u0301 é \u212b ﬁ",
    "\ufeff\U0010ffff\ue000\ufffe",
]


def random_text(rng, n_chars):
    planes = [(1, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]
    return "".join(chr(rng.randint(*rng.choice(planes))) for _ in range(n_chars))


def make_corpus(path, n_documents=60, seed=0):
    rng = random.Random(seed)
    documents = (" ".join(rng.choices(WORDS, k=40)) + f" n{number}\n" for number in range(n_documents))
    path.write_text("\n".join(documents), encoding="utf-8")
    return str(path)


def texts():
    rng = random.Random(1)
    return TRICKY + [random_text(rng, n) for n in (1, 2, 3, 10, 100) for _ in range(40)]


def save_reference(path, backend, **special):
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(path)
    return str(path)


def byte_level(normalizer=None, pattern=None):
    backend = tokenizers.Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    parts = [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")] if pattern else []
    byte_parts = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pattern)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*parts, byte_parts])  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    if normalizer is not None:
        backend.normalizer = normalizer
    return backend
