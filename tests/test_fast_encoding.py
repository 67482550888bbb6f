import itertools
import json
import logging
import multiprocessing
import os
import pickle
import random
import sys
import unicodedata

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

import train_tokenizer
from hindsight.config.conversion import EncoderName
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.tokenization import bpe_training, fast_encoding
from hindsight.tokenization.fast_encoding import (
    HARD_TEXTS,
    LOOKAHEAD,
    SAMPLE_BYTES,
    TiktokenEncoder,
    TokenizersEncoder,
    choose_encoder,
    first_difference,
    has_adjacent_spaces,
)
from hindsight.tokenization.tokenizer import GPT2_PATTERN, Tokenizer

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = bpe_training.SPECIAL_TOKENS
ROLES: dict[str, str | None] = {"bos": "<|bos|>", "eos": "<|eos|>", "pad": "<|pad|>"}
KINDS = ["ours", "permuted", "llama3", "llama3_by_merges"]

any_text = st.text(st.characters(exclude_categories=["Cs"]))
pieces = [
    *fast_encoding._SPACES,
    *SPECIAL,
    fast_encoding._UNUSED_SPECIAL,
    "'s",
    "'LL",
    "a",
    "the",
    "É",
    "e\u0301",
    "漢",
    "٣",
    "½",
]
made_text = st.lists(st.sampled_from([*pieces, "🙂", "\u200d", "1", "2024", ".", "--", "\0"]), max_size=60).map("".join)


def varied_text(n_words, seed=0):
    rng = random.Random(seed)
    stems = [
        "time",
        "arrow",
        "the",
        "don't",
        "We'LL",
        "TIS",
        "été",
        "2024",
        "x=1;",
        "漢字",
        "한국어",
        "عالم",
        "🙂👍🏽",
        "ไทย",
    ]
    ends = [" ", " ", " ", "\n", "\n\n", "  ", "\t", ", ", "\r\n", "    ", "\u3000", ". "]
    syllables = [a + b for a in "bcdfgklmnprst" for b in ["a", "e", "io", "on", "er"]]
    words = ("".join(rng.choices(syllables, k=rng.randint(0, 3))) for _ in range(n_words))
    return "".join(
        (word or rng.choice(stems)) + rng.choice(["", "s", "ing", "'s"]) + rng.choice(ends) for word in words
    )


def llama3_spec(text, ignore_merges):
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
    split = pre_tokenizers.Split(tokenizers.Regex(LLAMA3_PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([text], trainer)
    return json.loads(backend.to_str())


def permuted(spec):
    """The same merges, with the ids of all tokens but the special ones shuffled."""
    spec = json.loads(json.dumps(spec))
    vocab = spec["model"]["vocab"]
    names = [name for name in vocab if name not in SPECIAL]
    ids = [vocab[name] for name in names]
    random.Random(0).shuffle(ids)
    vocab.update(zip(names, ids, strict=True))
    return spec


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    place = tmp_path_factory.mktemp("encoder")
    text = varied_text(4000) + "x'TIS " * 1000
    (place / "corpus.txt").write_text(text, encoding="utf-8")
    config = TokenizerConfig(corpus=str(place / "corpus.txt"), out=str(place / "tokenizer"), vocab_size=700)
    train_tokenizer.main(config)
    ours = json.loads((place / "tokenizer" / "tokenizer.json").read_text())
    return {
        "ours": ours,
        "permuted": permuted(ours),
        "llama3": llama3_spec(text, ignore_merges=True),
        "llama3_by_merges": llama3_spec(text, ignore_merges=False),
    }


@pytest.fixture(scope="module")
def made(specs):
    """Each kind of tokenizer, with tiktoken's encoder and the reference."""
    kinds = {kind: Tokenizer(spec, ROLES, kind) for kind, spec in specs.items()}
    return {kind: (each, TiktokenEncoder(each), TokenizersEncoder(each)) for kind, each in kinds.items()}


def changed(spec, **changes):
    """A tokenizer with other settings, some of them of the model."""
    spec = json.loads(json.dumps(spec))
    for key, value in changes.items():
        (spec if key in spec else spec["model"])[key] = value
    return Tokenizer(spec, ROLES, "changed")


@pytest.mark.parametrize("kind", KINDS)
def test_tiktoken_gives_the_ids_of_tokenizers_for_hard_texts(made, kind):
    tokenizer, ours, reference = made[kind]
    for text in [*HARD_TEXTS, varied_text(3000, seed=1), *SPECIAL, f"a{SPECIAL[1]}b"]:
        expected = tokenizer._tokenizer.encode(text, add_special_tokens=False).ids
        for each in (ours, reference):
            ids = each.encode(text)
            assert ids.dtype == np.uint32
            assert ids.tolist() == expected, (each.name, text[:80])


@settings(deadline=None, derandomize=True, database=None, max_examples=1000)
@given(text=st.one_of(any_text, made_text, st.tuples(any_text, made_text, any_text).map("".join)))
@example("")
def test_any_text_has_the_ids_of_tokenizers_and_comes_back_as_it_was(made, text):
    for tokenizer, ours, reference in made.values():
        assert first_difference(ours, reference, text) is None
        for each in (ours, reference):
            assert tokenizer.detokenize(each.encode(text)) == text


def test_white_space_after_white_space_is_seen_whatever_it_is():
    spaces = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]
    assert len(spaces) > 20
    for left, right in itertools.product(spaces, repeat=2):
        assert has_adjacent_spaces(f"a{left}{right}b".encode()), (left, right)
        assert has_adjacent_spaces(f"{left}{right}".encode())


@pytest.mark.parametrize(
    "text", ["", " ", "a b\nc\td ", "“Is it?” — l'été, d'où… à Noël", "漢字 かな。 한국어 عالم 🙂"]
)
def test_where_spaces_stand_alone_tiktoken_has_a_pattern_without_lookahead(made, text, monkeypatch):
    assert not has_adjacent_spaces(text.encode())
    _, ours, reference = made["ours"]
    assert ours._without_lookahead._pat_str == GPT2_PATTERN.replace(LOOKAHEAD, "") != GPT2_PATTERN
    monkeypatch.setattr(ours, "_encoding", None)  # whoever asks the one with lookahead fails
    assert first_difference(ours, reference, text) is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ours", "llama3"])
def test_every_code_point_has_the_ids_of_tokenizers(made, kind):
    _, ours, reference = made[kind]
    large = [(0x3400, 0x9FFF), (0xAC00, 0xD7A3), (0x20000, 0x3FFFF)]  # CJK and Hangul, each like its neighbour

    def thinned(code):
        kept = unicodedata.category(chr(code)) != "Cn" and not any(low <= code <= high for low, high in large)
        return (kept and unicodedata.category(chr(code)) != "Co") or code % 50 == 0

    codes = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF and thinned(code)]
    assert len(codes) > 50_000
    for start in range(0, len(codes), 500):
        text = "".join(f"a{c}b {c}1{c} '{c}\n" for c in map(chr, codes[start : start + 500]))
        assert first_difference(ours, reference, text) is None


@pytest.mark.parametrize("run", [" ", "\n", "a", "-", "7", "漢", " \n", fast_encoding._UNUSED_SPECIAL])
def test_a_long_run_has_the_ids_of_tokenizers_alone_and_inside_a_text(made, run):
    long_run = run * (1_000_000 // len(run))
    for kind in ("ours", "llama3"):
        _, ours, reference = made[kind]
        assert first_difference(ours, reference, long_run) is None
        assert first_difference(ours, reference, f"{varied_text(2000)}{long_run}x\ny{varied_text(2000)}") is None


def test_where_tiktoken_gives_up_only_the_piece_in_question_goes_to_the_reference(made, monkeypatch):
    tokenizer, ours, _ = made["ours"]
    text = f"{'word ' * 8000}.\nx{' ' * 1_000_000}x\n{'word ' * 8000}"
    with pytest.raises(ValueError, match="stack size"):
        ours._encoding.encode_to_numpy(text, disallowed_special=())
    expected = tokenizer._tokenizer.encode(text, add_special_tokens=False).ids
    seen = []
    monkeypatch.setattr(ours, "_reference", TokenizersEncoder(tokenizer))
    encode = ours._reference.encode
    monkeypatch.setattr(ours._reference, "encode", lambda piece: (seen.append(piece), encode(piece))[1])
    assert ours.encode(text).tolist() == expected
    assert len(seen) == 1
    assert len(seen[0]) < len(text) - 30_000


def test_text_that_the_pattern_does_not_match_is_not_lost(specs):
    split = {"type": "Split", "pattern": {"Regex": r"\p{L}+|\s+"}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    partial = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    tokenizer = changed(specs["llama3"], pre_tokenizer=partial)
    ours = TiktokenEncoder(tokenizer)
    assert tokenizer.detokenize(ours.encode("a1b 2024 漢 .")) == "a1b 2024 漢 ."
    assert first_difference(ours, TokenizersEncoder(tokenizer), "a1b 2024 漢 .") is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", [EncoderName.auto, EncoderName.tiktoken])
def test_tiktoken_is_chosen_where_it_gives_the_same_ids(made, kind, wanted, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    assert choose_encoder(made[kind][0], wanted, [varied_text(100)]).name == "tiktoken"
    assert caplog.text == ""


def test_tokenizers_is_chosen_where_it_is_wanted(made):
    def unread():
        raise AssertionError
        yield ""

    assert choose_encoder(made["ours"][0], EncoderName.tokenizers, unread()).name == "tokenizers"


def test_no_more_of_the_sample_is_read_than_is_compared(made, monkeypatch):
    compared, taken = [], []
    monkeypatch.setattr(fast_encoding, "HARD_TEXTS", [])
    monkeypatch.setattr(fast_encoding, "_vocabulary_texts", lambda tokenizer: [])
    monkeypatch.setattr(fast_encoding, "first_difference", lambda ours, reference, text: compared.append(text))

    def endless():
        while True:
            taken.append("é" * 50_000)
            yield taken[-1]

    choose_encoder(made["ours"][0], EncoderName.auto, endless())
    assert sum(len(text.encode()) for text in compared) == SAMPLE_BYTES
    assert len(taken) == 3


def test_a_wrong_order_of_merges_is_noticed_and_the_reference_is_used(made, monkeypatch, caplog):
    right = fast_encoding.mergeable_ids

    def exchanged(spec):
        ids = right(spec)
        first, second = list(ids)[260], list(ids)[600]
        ids[first], ids[second] = ids[second], ids[first]
        return ids

    monkeypatch.setattr(fast_encoding, "mergeable_ids", exchanged)
    assert choose_encoder(made["ours"][0], EncoderName.auto, []).name == "tokenizers"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "tiktoken gives other ids (text " in caplog.text
    assert " instead of [" in caplog.text


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("'(?:[sdmt]|ll|ve|re)", "(?i:'(?:[sdmt]|ll|ve|re))"),
        (r" ?\p{L}+", r"\p{L}+"),
        (r"\p{N}+", r"\p{N}{1,3}"),
        (r"\s+(?!\S)", r"\s(?!\S)"),
    ],
)
def test_a_wrong_pattern_is_noticed_and_the_reference_is_used(made, part, wrong, monkeypatch, caplog):
    other = fast_encoding.GPT2_PATTERN.replace(part, wrong)
    assert other != fast_encoding.GPT2_PATTERN
    monkeypatch.setattr(fast_encoding, "GPT2_PATTERN", other)
    assert choose_encoder(made["ours"][0], EncoderName.auto, []).name == "tokenizers"
    assert "tiktoken gives other ids (text " in caplog.text


def test_a_difference_in_the_sample_alone_is_noticed(made, monkeypatch, caplog):
    tokenizer, *_ = made["ours"]
    word = max((name for name in tokenizer.spec["model"]["vocab"] if name.isascii() and name.isalpha()), key=len)
    monkeypatch.setattr(fast_encoding, "GPT2_PATTERN", f"{word[:-1]}|{fast_encoding.GPT2_PATTERN}")
    monkeypatch.setattr(fast_encoding, "_vocabulary_texts", lambda tokenizer: [])
    assert choose_encoder(tokenizer, EncoderName.auto, ["fine"]).name == "tiktoken"
    assert caplog.text == ""
    assert choose_encoder(tokenizer, EncoderName.auto, ["fine", f"\n{word}"]).name == "tokenizers"
    assert f"text '\\n{word}', id number 1: [" in caplog.text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalizer": {"type": "NFC"}}, "has a normalizer, NFC"),
        ({"pre_tokenizer": None}, "pre-tokenizer is None"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}}, "adds a space"),
        ({"merges": []}, "no merge makes its token"),
    ],
)
def test_a_tokenizer_that_tiktoken_has_no_equivalent_of_is_left_to_the_reference(specs, changes, reason, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    if changes.get("pre_tokenizer"):
        changes["pre_tokenizer"]["trim_offsets"] = True
    tokenizer = changed(specs["ours"], **changes)
    assert choose_encoder(tokenizer, EncoderName.auto, []).name == "tokenizers"
    assert reason in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert choose_encoder(tokenizer, EncoderName.tiktoken, []).name == "tokenizers"
    assert caplog.records[-1].levelno == logging.WARNING


def test_without_tiktoken_the_reference_is_used(made, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    assert choose_encoder(made["ours"][0], EncoderName.auto, []).name == "tokenizers"
    assert "tiktoken is not installed" in caplog.text


@pytest.mark.parametrize("which", [1, 2])
def test_a_pickled_encoder_gives_the_same_ids(made, which):
    for kind in KINDS:
        each = made[kind][which]
        copy = pickle.loads(pickle.dumps(each))  # noqa: S301
        for text in [varied_text(100), *SPECIAL]:
            assert copy.encode(text).tolist() == each.encode(text).tolist()


def serial_ids(each, texts, results):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the threads of tokenizers do not survive a fork
    results.put([each.encode(text).tolist() for text in texts])


@pytest.mark.dist
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
@pytest.mark.parametrize("which", [1, 2])
def test_an_encoder_that_has_been_used_works_in_forked_processes(made, which):
    each = made["ours"][which]
    texts = [varied_text(5000, seed) for seed in range(4)]
    expected = [each.encode(text).tolist() for text in texts]
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    children = [fork.Process(target=serial_ids, args=(each, texts, results)) for _ in range(3)]
    for child in children:
        child.start()
    assert [results.get(timeout=60) for _ in children] == [expected] * 3
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0
