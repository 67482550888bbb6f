"""Orders of units of text: words, sentences and random segments, last first."""

# ruff: noqa: RUF001 - characters of several scripts are what is tested

import copy
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hindsight.generation.sampling import Sampling
from hindsight.generation.writing import last, write
from hindsight.orders.examples import IGNORED, permutations, turn, turn_back
from hindsight.orders.known import open_order
from hindsight.orders.order import Reading
from hindsight.orders.segments import LONGEST
from hindsight.tokenization.tokenizer import Tokenizer

NAMES = ["words", "sentences", "segments:3"]
PIECES = [*'aé水。！….?!"”’»)」  \n\t“', "light", "Mr"]
WORD = r"(?<=[^ \t\n\r\v\f])(?=[ \t\n\r\v\f])"
CLOSERS = r"[\"'”’»›)\]}」』）】》〉]*"
SENTENCE = re.compile(
    rf"[.!?…。！？]{CLOSERS}(?=[ \t\n\r\v\f])|[。！？]{CLOSERS}|(?<![ \t\n\r\v\f])(?=[ \t\r\v\f]*\n[ \t\r\v\f]*\n)"
)


@pytest.fixture(scope="module")
def tokenizers_by_name(tokenizer_dir: Path) -> dict[str, Tokenizer]:
    """The tokenizer of the other tests, and one whose tokens are single bytes."""
    bpe = Tokenizer.load(tokenizer_dir)
    spec = copy.deepcopy(bpe.spec)
    added = {token["content"] for token in spec["added_tokens"]}
    spec["model"] |= {
        "merges": [],
        "vocab": {token: i for token, i in spec["model"]["vocab"].items() if len(token) == 1 or token in added},
    }
    return {"bpe": bpe, "bytes": Tokenizer(spec, bpe.roles, "bytes")}


def words_of(text: str) -> list[str]:
    """The words of a text, each with the white space before it."""
    return re.split(WORD, text)


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, each with the white space before it."""
    ends = [0, *sorted({match.end() for match in SENTENCE.finditer(text)} - {0, len(text)}), len(text)]
    return [text[start:end] for start, end in pairwise(ends)]


def window_of(tokenizer: Tokenizer, documents: list[str]) -> NDArray[np.int64]:
    """The tokens of documents, each with its EOS."""
    ids = [[*tokenizer.tokenize(text)[0].tolist(), tokenizer.eos_id] for text in documents]
    return np.array([token for document in ids for token in document], np.int64)


def text_of(tokenizer: Tokenizer, tokens: list[int]) -> str:
    """The text of tokens, with a sign for EOS."""
    shown = [b"\0" if token == tokenizer.eos_id else tokenizer.bytes_of(token) for token in tokens]
    return b"".join(shown).decode()


documents = st.lists(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), min_size=1, max_size=3)


@pytest.mark.parametrize("name", ["bpe", "bytes"])
@pytest.mark.parametrize(("order", "units_of"), [("words", words_of), ("sentences", sentences_of)])
@given(texts=documents)
def test_units_are_read_last_first_each_in_reading_order(name, order, units_of, texts, tokenizers_by_name):
    tokenizer = tokenizers_by_name[name]
    window = window_of(tokenizer, texts)
    read = window[open_order(order, len(window), tokenizer).permutation(window)]
    units = [unit for text in texts for unit in [*units_of(text), "\0"]]
    assert text_of(tokenizer, read.tolist()) == "".join(reversed(units))


@pytest.mark.parametrize(
    ("text", "words", "sentences"),
    [
        ("One two.  Three", ["One", " two.", "  Three"], ["One two.", "  Three"]),
        ("“Go!” she said. No", ["“Go!”", " she", " said.", " No"], ["“Go!”", " she said.", " No"]),
        ("他去了。「好！」我说。", ["他去了。「好！」我说。"], ["他去了。", "「好！」", "我说。"]),
        ("A line\nwrapped\n\nTitle", ["A", " line", "\nwrapped", "\n\nTitle"], ["A line\nwrapped", "\n\nTitle"]),
        ("Mr. Pickwick 3.14", ["Mr.", " Pickwick", " 3.14"], ["Mr.", " Pickwick 3.14"]),
    ],
)
@pytest.mark.parametrize("name", ["bpe", "bytes"])
def test_what_words_and_sentences_are(name, text, words, sentences, tokenizers_by_name):
    tokenizer = tokenizers_by_name[name]
    assert (words_of(text), sentences_of(text)) == (words, sentences)
    for order, units in (("words", words), ("sentences", sentences)):
        window = window_of(tokenizer, [text])[:-1]
        read = window[open_order(order, len(window), tokenizer).permutation(window)]
        assert text_of(tokenizer, read.tolist()) == "".join(reversed(units))


class Texts:
    """Tokens that hold several words, or parts of them; 0 is special."""

    def __init__(self, *tokens: bytes) -> None:
        self.tokens, self.vocab_size = (b"", *tokens), len(tokens) + 1

    def bytes_of(self, token_id: int) -> bytes:
        return self.tokens[token_id]

    def special_id(self, name: str) -> int | None:
        return None


@pytest.mark.parametrize(
    ("tokens", "order", "read"),
    [
        ([b"end", b".\n", b"The", b" x"], "words", [3, 2, 0, 1]),  # the white space stays with what it is a token with
        ([b"end", b".\n", b"\n", b"The"], "words", [2, 3, 0, 1]),
        ([b"of the", b"re", b" x"], "words", [2, 0, 1]),  # a word that begins inside a token goes on
        ([b"end", b".\n", b"The", b" x"], "sentences", [2, 3, 0, 1]),
        ([b"a\xe3\x80", b"\x82b", b"c"], "sentences", [0, 1, 2]),
        ([b"a\xe3", b"\x80\x82", b"\xe4", b"\xbb\x96", b"c"], "sentences", [2, 3, 4, 0, 1]),
        ([b"a.\xe2\x80", b"\x9d", b" x"], "sentences", [2, 0, 1]),
        ([b"a\xe2", b"\x80", b"\x9d", b" x"], "sentences", [0, 1, 2, 3]),
    ],
)
def test_a_unit_is_made_of_whole_tokens_and_a_character_of_several_stays_together(tokens, order, read):
    texts = Texts(*tokens)
    assert open_order(order, 9, texts).permutation(np.arange(1, len(tokens) + 1)).tolist() == read


@pytest.mark.parametrize("order", NAMES)
@given(data=st.data(), lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_units_are_a_permutation_of_any_window_and_what_is_turned_comes_back(order, data, lengths, tokenizers_by_name):
    tokenizer = tokenizers_by_name["bpe"]
    opened = open_order(order, 40, tokenizer)
    window_BT = torch.full((len(lengths), 40), IGNORED)
    for window_T, length in zip(window_BT, lengths, strict=True):
        ids = st.lists(st.integers(0, tokenizer.vocab_size - 1), min_size=length, max_size=length)
        window_T[:length] = torch.tensor(data.draw(ids), dtype=torch.int64)
    positions_BT = permutations(window_BT, opened)
    assert torch.equal(turn_back(turn(window_BT, opened), positions_BT), window_BT)
    assert torch.equal(positions_BT.sort().values, torch.arange(40).expand_as(window_BT))
    for positions_T, window_T, length in zip(positions_BT, window_BT, lengths, strict=True):
        alone = opened.permutation(window_T[:length].numpy())
        assert positions_T.tolist() == [*alone.tolist(), *range(length, 40)]


def test_segments_have_1_to_25_tokens_end_with_a_document_and_depend_on_the_tokens_and_the_seed():
    texts = Texts(*[b"x"] * 9)
    rng = np.random.default_rng(0)
    window = rng.integers(1, 10, 20_000)
    order = open_order("segments:5", len(window), texts)
    read = order.permutation(window)
    starts = np.flatnonzero(np.diff(read, prepend=-9) != 1)
    lengths = np.diff([*starts, len(read)])
    assert (lengths.min(), lengths.max()) == (1, LONGEST)
    assert abs(lengths.mean() - 13) < 0.5
    assert (order.permutation(window) == read).all()
    assert (open_order("segments:6", len(window), texts).permutation(window) != read).any()
    window[7_000] = 0
    read = order.permutation(window)
    assert (read[:12_999] > 7_000).all()
    assert read[12_999] == 7_000, "the end of a document is a unit of its own"
    other = rng.integers(1, 10, 100)
    assert (order.permutation(other) != order.permutation(other[::-1].copy())).any()


class Script(torch.nn.Module):
    """Says these tokens one after the other, whatever was read."""

    def __init__(self, tokens: list[int], start: int) -> None:
        super().__init__()
        self.weight, self.tokens, self.start = torch.nn.Parameter(torch.zeros(())), tokens, start
        self.read: list[list[int]] = []

    def forward(self, inputs_BT: torch.Tensor) -> torch.Tensor:
        self.read.append(inputs_BT[0].tolist())
        following = torch.full_like(inputs_BT, self.tokens[inputs_BT.shape[1] - self.start])
        return torch.nn.functional.one_hot(following, 400).float() * 1000


@pytest.mark.parametrize(
    ("order", "shown"), [("words", "He did not go. The end."), ("segments:1", " go. not didHe The end.")]
)
def test_a_model_of_words_writes_them_before_the_prompt_and_they_are_shown_in_reading_order(
    order, shown, tokenizers_by_name
):
    tokenizer = tokenizers_by_name["bytes"]
    prompt_1T = tokenizer.tokenize(" The end.")
    written = tokenizer.tokenize(" go. not did He" if order == "words" else " go. not didHe")[0].tolist()
    model = Script([*written, tokenizer.eos_id], prompt_1T.shape[1] + 1)
    reading, prompt = Reading(open_order(order, 64, tokenizer), tokenizer.bos_id), prompt_1T[0].tolist()
    (text,) = last(write(model, prompt, reading, tokenizer.eos_id, 30, 64, Sampling(1.0, None), [0]))
    assert tokenizer.detokenize(text.known).strip() == shown.strip()
    if order == "words":
        assert tokenizer.detokenize(model.read[0][1:]) == " end. The"
