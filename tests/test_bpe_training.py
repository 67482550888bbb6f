import hashlib
import json
import logging
import random
import subprocess
import sys
import weakref
from importlib.metadata import version

import pytest
import tokenizers
from helpers.processes import ROOT
from helpers.texts import byte_level, make_corpus, save_reference, texts
from tokenizers import decoders, models, pre_tokenizers, processors

import train_tokenizer
from hindsight.config.corpus import CorpusConfig
from hindsight.config.tokenizer import TokenizerConfig, TrainerName
from hindsight.errors import InputError
from hindsight.text.documents import Corpus
from hindsight.text.sampling import documents_of
from hindsight.tokenization import bpe_training, hf_folder
from hindsight.tokenization.fast_encoding import HARD_TEXTS
from hindsight.tokenization.tokenizer import Tokenizer

needs_ffbpe = pytest.mark.skipif(sys.version_info < (3, 11), reason="ffbpe is for Python 3.11 and later")
TRANSFORMERS_4 = version("transformers").startswith("4.")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt")


def learn_with(trainer, corpus, out, **settings):
    """Train, and give the content of the files of the tokenizer and the record."""
    config = TokenizerConfig(corpus=str(corpus), out=str(out), trainer=trainer, **settings)
    train_tokenizer.main(config)
    return files_of(out), json.loads((out / "hindsight.json").read_text())


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "hindsight.json"}


@pytest.fixture
def varied(tmp_path):
    rng = random.Random(4)
    syllables = [a + b for a in "bcdfglmnprst'" for b in ["a", "e", "io", "on", "é", "漢", "7", "  ", "\n", " - "]]
    text = "".join(rng.choice(syllables) + rng.choice(["", "", " ", "\t"]) for _ in range(20_000))
    hard = (text.replace("\0", "") for text in HARD_TEXTS)  # NUL is refused: it is a sign of other encodings
    (tmp_path / "varied.txt").write_text("\n\n".join([text, *hard, "a" * 20_000 + " " * 20_000]), "utf-8")
    return tmp_path / "varied.txt"


@needs_ffbpe
@pytest.mark.parametrize("vocab_size", [261, 262, 400, 3000])
def test_both_trainers_give_the_same_files(varied, tmp_path, vocab_size, caplog):
    fast, fast_record = learn_with(TrainerName.ffbpe, varied, tmp_path / "fast", vocab_size=vocab_size)
    slow, slow_record = learn_with(TrainerName.tokenizers, varied, tmp_path / "slow", vocab_size=vocab_size)
    auto, auto_record = learn_with(TrainerName.auto, varied, tmp_path / "auto", vocab_size=vocab_size)
    assert fast == slow == auto
    assert list(fast_record["versions"]) == list(auto_record["versions"]) == ["tokenizers", "ffbpe"]
    assert list(slow_record["versions"]) == ["tokenizers"]
    assert {**fast_record, "versions": None} == {**slow_record, "versions": None}
    assert caplog.text == ""


def test_both_trainers_refuse_a_text_that_is_too_small_with_the_same_words(corpus, tmp_path):
    refusals = []
    for trainer in TrainerName:
        with pytest.raises(InputError, match="is more than this text can fill") as refusal:
            learn_with(trainer, corpus, tmp_path / "out", vocab_size=50257)
        refusals.append(str(refusal.value))
    assert len(set(refusals)) == 1


@pytest.mark.parametrize("trainer", TrainerName)
def test_the_files_are_those_that_transformers_writes_for_the_same_settings(varied, tmp_path, trainer):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    files, record = learn_with(trainer, varied, tmp_path / "ours", vocab_size=400)
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    empty = PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, model_input_names=hf_folder.MODEL_INPUTS
    )
    hf_folder.add_special_tokens(empty)
    documents = documents_of(Corpus(CorpusConfig(corpus=str(varied))), None, 0)
    expected = empty.train_new_from_iterator(([document.text] for document in documents), 400, show_progress=False)
    bpe_training.drop_empty_post_processor(expected)
    expected.save_pretrained(tmp_path / "theirs", legacy_format=False)
    theirs = files_of(tmp_path / "theirs")
    if TRANSFORMERS_4:
        assert files == theirs
    else:  # 5 keeps the special tokens in tokenizer.json alone, and renames what is left of the settings
        assert files["tokenizer.json"] == theirs["tokenizer.json"]
    assert record["fingerprint"] == Tokenizer.load(tmp_path / "ours").fingerprint
    assert record["fingerprint"] == Tokenizer.load(tmp_path / "theirs").fingerprint

    loaded = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert type(loaded) is PreTrainedTokenizerFast
    assert loaded.special_tokens_map == expected.special_tokens_map
    assert loaded.added_tokens_decoder == expected.added_tokens_decoder
    assert loaded.get_vocab() == expected.get_vocab()
    for name in (
        "model_max_length",
        "model_input_names",
        "split_special_tokens",
        "clean_up_tokenization_spaces",
        "padding_side",
    ):
        assert getattr(loaded, name) == getattr(expected, name)
    for text in texts():
        assert loaded(text).input_ids == expected(text).input_ids


def test_tokenizers_are_the_same_whatever_the_versions_of_the_libraries(corpus, tmp_path):
    files, record = learn_with(TrainerName.auto, corpus, tmp_path / "ours", vocab_size=290)
    assert {name: hashlib.sha256(content).hexdigest()[:12] for name, content in files.items()} == {
        "tokenizer.json": "4b6d606c09cf",
        "tokenizer_config.json": "869503ee2d72",
        "special_tokens_map.json": "9612b3372e5e",
    }
    mask = tokenizers.AddedToken("<mask>", lstrip=True, special=True)
    special = {"eos_token": "<end>", "additional_special_tokens": [mask]}
    reference = save_reference(tmp_path / "reference", byte_level(), **special)
    lent, lent_record = learn_with(TrainerName.auto, corpus, tmp_path / "lent", vocab_size=290, reference=reference)
    assert hashlib.sha256(lent["tokenizer.json"]).hexdigest()[:12] == "35329c6fdd30"
    hashes = record["fingerprint"], lent_record["fingerprint"], lent_record["settings"]["reference"]
    assert " ".join(content[:12] for content in hashes) == "f857b3a101f5 7012140018f1 3a0e8cc57364"


def falls_back(caplog, corpus, folder, reason):
    """Whether both ways to ask for ffbpe end with the tokenizer of the other trainer, and a line that says why."""
    slow, _ = learn_with(TrainerName.tokenizers, corpus, folder / "slow", vocab_size=300)
    for trainer in (TrainerName.auto, TrainerName.ffbpe):
        caplog.clear()
        with caplog.at_level(logging.INFO, "hindsight"):
            files, record = learn_with(trainer, corpus, folder / trainer.name, vocab_size=300)
        assert files == slow
        assert list(record["versions"]) == ["tokenizers"]
        assert reason in caplog.text
    assert "WARNING" in caplog.text


def test_without_ffbpe_tokenizers_learns_and_the_log_says_so(corpus, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "ffbpe", None)  # an import of it fails, as where it is not installed
    falls_back(caplog, corpus, tmp_path, "ffbpe is not installed: tokenizers, which is slower, trains.")


@needs_ffbpe
def test_merges_that_differ_are_noticed_and_tokenizers_learns(varied, tmp_path, monkeypatch, caplog):
    right = bpe_training.ffbpe_merges  # the real one does not differ; a later one might

    def exchanged(texts, n_merges):
        merges = right(texts, n_merges)
        return [*merges[:-2], merges[-1], merges[-2]]

    monkeypatch.setattr(bpe_training, "ffbpe_merges", exchanged)
    falls_back(caplog, varied, tmp_path, "(other merges): tokenizers, which is slower, trains.")


@needs_ffbpe
def test_words_that_differ_are_noticed_and_tokenizers_learns(varied, tmp_path, monkeypatch, caplog):
    # Both find the same words now; a later ffbpe or tokenizers might not.
    monkeypatch.setattr(bpe_training, "GPT2_PATTERN", bpe_training.GPT2_PATTERN.replace("ll|", ""))
    falls_back(caplog, varied, tmp_path, "other words in")


@needs_ffbpe
@pytest.mark.parametrize(("written", "words"), [("a b\n", "1 merges for"), ("a bc\n", "not known"), ("a\n", "unpack")])
def test_an_ffbpe_that_fails_is_noticed_and_tokenizers_learns(varied, tmp_path, monkeypatch, caplog, written, words):
    import ffbpe

    # The real one does not fail; these are files that a later one might write.
    monkeypatch.setattr(ffbpe.BpeModel, "save_merges_txt", lambda self, path, format: path.write_text(written))
    falls_back(caplog, varied, tmp_path, words)


@needs_ffbpe
@pytest.mark.parametrize("special", ["<s>", "s", "\u0120the", "\u0120<"])
def test_a_reference_with_the_words_of_gpt2_gives_the_same_files_by_both_trainers(corpus, tmp_path, special):
    backend = byte_level()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    backend.add_special_tokens([special])
    backend.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=f"{special} $A", special_tokens=[(special, backend.token_to_id(special))]
    )
    reference = save_reference(tmp_path / "reference", backend, bos_token=special, eos_token=special)
    fast, fast_record = learn_with(TrainerName.auto, corpus, tmp_path / "fast", vocab_size=320, reference=reference)
    slow, slow_record = learn_with(
        TrainerName.tokenizers, corpus, tmp_path / "slow", vocab_size=320, reference=reference
    )
    assert fast == slow
    assert ("ffbpe" in fast_record["versions"]) == (special == "<s>")  # the others may be what merges give
    assert list(slow_record["versions"]) == ["tokenizers", "transformers"]
    assert fast_record["fingerprint"] == slow_record["fingerprint"]


@needs_ffbpe
@pytest.mark.parametrize("trainer", [TrainerName.auto, TrainerName.ffbpe])
def test_a_reference_with_other_words_is_learned_by_tokenizers(corpus, tmp_path, trainer, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    backend = byte_level(pattern=r"\p{L}+|\d|\s+|.")
    reference = save_reference(tmp_path / "reference", backend, bos_token="<s>", eos_token="</s>")  # noqa: S106 - a token
    _, record = learn_with(trainer, corpus, tmp_path / "out", vocab_size=290, reference=reference)
    assert list(record["versions"]) == ["tokenizers", "transformers"]
    assert "ffbpe cannot train for this reference=" in caplog.text
    assert ("WARNING" in caplog.text) == (trainer is TrainerName.ffbpe)


@needs_ffbpe
def test_documents_are_read_once_and_one_at_a_time(monkeypatch):
    alive, most = weakref.WeakSet(), 0

    class Text(str):
        __slots__ = ("__weakref__",)

    def documents():
        nonlocal most
        for number in range(40):
            text = Text(f"time and arrow n{number} \n" * 500)
            alive.add(text)
            yield text
            del text
            most = max(most, len(alive))

    monkeypatch.setattr(bpe_training, "CHECK_CHARS", 20_000)  # two documents, so that few are held for the trial
    for trainer in TrainerName:
        most = 0
        bpe_training.train(bpe_training.new_draft(), documents(), 270, trainer)
        assert most <= 4


def test_no_reference_no_import_of_transformers_or_torch(corpus, tmp_path):
    code = (
        "import sys, train_tokenizer; from hindsight.config.tokenizer import TokenizerConfig; "
        "train_tokenizer.main(TokenizerConfig(corpus=sys.argv[1], out=sys.argv[2], vocab_size=300)); "
        "assert not {'transformers', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, corpus, str(tmp_path / "out")], cwd=ROOT, check=True)
