import json
import shutil

import pytest
import tokenizers
from helpers.small_data import convert_config
from helpers.training_runs import train
from test_inspect_mds import look
from tokenizers import decoders, models, normalizers, pre_tokenizers

import convert_to_mds
import train_tokenizer
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.shards.manifest import Manifest
from hindsight.tokenization.fast_encoding import HARD_TEXTS
from hindsight.tokenization.round_trip import loses_text
from hindsight.tokenization.tokenizer import Tokenizer

END = "<|endoftext|>"


@pytest.fixture
def gpt2(tokenizer_dir, tmp_path):
    """A tokenizer whose one special token is GPT-2's, without any other file."""
    spec = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    names = {token["content"] for token in spec["added_tokens"]}
    spec["added_tokens"] = [token | {"content": END} for token in spec["added_tokens"] if token["content"] == "<|eos|>"]
    spec["added_tokens"][0]["id"] = 0
    tokens = [END, *(token for token in spec["model"]["vocab"] if token not in names)]
    spec["model"]["vocab"] = {token: number for number, token in enumerate(tokens)}
    folder = tmp_path / "gpt2"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    return folder


def write(folder, **files):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def roles_of(folder):
    tokenizer = Tokenizer.load(folder)
    names = (tokenizer.spec["added_tokens"][i]["content"] for i in range(len(tokenizer.spec["added_tokens"])))
    ids = {tokenizer._tokenizer.token_to_id(name): name for name in names}
    return ids[tokenizer.bos_id], ids[tokenizer.eos_id]


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"bos_token": END, "eos_token": {"__type": "AddedToken", "content": END}}},
        {"special_tokens_map": {"bos_token": {"content": END, "lstrip": False}, "eos_token": END}},
        {"tokenizer_config": {"model_max_length": 1024}, "config": {"model_type": "gpt2"}},
        {"config": {"model_type": "gpt_neox", "bos_token_id": 0}},
        {"tokenizer_config": {"tokenizer_class": "GPT2TokenizerFast", "bos_token": None}},
        {"config": {"model_type": "own", "bos_token_id": 0, "eos_token_id": [0, 7]}},
        {},
    ],
)
def test_the_roles_of_a_folder_are_found_wherever_they_are_written(gpt2, files):
    write(gpt2, **files)
    assert roles_of(gpt2) == (END, END)


def test_what_is_written_down_comes_before_what_the_class_says(tokenizer_dir, tmp_path):
    folder = shutil.copytree(tokenizer_dir, tmp_path / "tokenizer")
    write(folder, config={"model_type": "gpt2", "bos_token_id": 4, "eos_token_id": 4})
    assert roles_of(folder) == ("<|bos|>", "<|eos|>")
    write(folder, tokenizer_config={}, special_tokens_map={"bos_token": "<|forward|>", "eos_token": "<|backward|>"})
    assert roles_of(folder) == ("<|forward|>", "<|backward|>")


def test_a_tokenizer_without_a_token_for_a_role_is_still_refused(gpt2):
    spec = json.loads((gpt2 / "tokenizer.json").read_text())
    spec["added_tokens"][0]["content"] = "<|other|>"
    write(gpt2, tokenizer=spec, config={"model_type": "gpt2"})
    with pytest.raises(InputError, match="has no bos and no eos token"):
        Tokenizer.load(gpt2)


def test_gpt2s_folder_is_converted_trained_on_and_inspected_and_its_copy_is_complete(gpt2, corpus, tmp_path, caplog):
    write(gpt2, tokenizer_config={"model_max_length": 1024}, config={"model_type": "gpt2"})
    out = tmp_path / "out"
    convert_to_mds.main(convert_config(corpus, gpt2, out))
    copied = json.loads((out / "tokenizer" / "tokenizer_config.json").read_text())
    assert (copied["bos_token"], copied["eos_token"], copied["model_max_length"]) == (END, END, 1024)
    assert not (out / "tokenizer" / "config.json").exists()
    assert Tokenizer.load(out / "tokenizer").fingerprint == Tokenizer.load(gpt2).fingerprint
    assert look(out, caplog)[1] == 0
    train(out, tmp_path / "runs", "run_name=a", "max_duration=2ba", "samples.interval=1ba", "samples.prompts=[sea]")
    train(out, tmp_path / "runs", "run_name=b", "max_duration=2ba", "direction=backward", f"data.tokenizer={gpt2}")


def test_a_vocabulary_and_merges_alone_give_the_same_ids(gpt2, corpus, tmp_path):
    spec = json.loads((gpt2 / "tokenizer.json").read_text())
    older = tmp_path / "older"
    older.mkdir()
    write(older, vocab=spec["model"]["vocab"], config={"model_type": "gpt2"})
    merges = "\n".join(" ".join(merge) for merge in spec["model"]["merges"])
    (older / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    old, new = Tokenizer.load(older), Tokenizer.load(gpt2)
    for text in [*HARD_TEXTS, corpus.read_text()]:
        assert old.encode_batch([text]) == new.encode_batch([text])
    assert (old.bos_id, old.eos_id, old.vocab_size) == (new.bos_id, new.eos_id, new.vocab_size)
    convert_to_mds.main(convert_config(corpus, older, tmp_path / "out"))
    assert Tokenizer.load(tmp_path / "out" / "tokenizer").fingerprint == old.fingerprint
    (older / "merges.txt").write_text("#version: 0.2\nx\n")
    with pytest.raises(InputError, match=r"vocab.json or merges.txt cannot be read"):
        Tokenizer.load(older)


def llama2():
    """Llama 2's settings: BPE with a token for each byte, no pre-tokenizer, a space put first."""
    special = ["<unk>", "<s>", "</s>"]
    names = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a"]
    vocab = {name: number for number, name in enumerate(names)}
    backend = tokenizers.Tokenizer(models.BPE(vocab, [], unk_token=special[0], fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    backend.normalizer = normalizers.Sequence(steps)  # pyright: ignore[reportAttributeAccessIssue]
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(parts)  # pyright: ignore[reportAttributeAccessIssue]
    backend.add_special_tokens(special)
    return backend


def unigram():
    backend = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("a", -2.0)], 0, False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    backend.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return backend


@pytest.mark.parametrize(
    ("make", "given", "roles"),
    [
        (llama2, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, ("<s>", "</s>")),
        (unigram, {"eos_token": "</s>", "pad_token": "<pad>"}, ("<|bos|>", "</s>")),
    ],
)
def test_a_reference_that_is_not_byte_level_lends_its_special_tokens(make, given, roles, corpus, tmp_path, caplog):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    caplog.set_level("INFO", "hindsight")
    PreTrainedTokenizerFast(tokenizer_object=make(), **given).save_pretrained(tmp_path / "reference")
    out = tmp_path / "out"
    config = TokenizerConfig(corpus=str(corpus), out=str(out), vocab_size=320, reference=str(tmp_path / "reference"))
    train_tokenizer.main(config)
    assert "is not byte-level: its special tokens (" in caplog.text
    tokenizer = Tokenizer.load(out)
    assert tokenizer.vocab_size == 320
    assert not loses_text(tokenizer)
    assert roles_of(out) == roles
    theirs = AutoTokenizer.from_pretrained(out)
    assert (theirs.bos_token, theirs.eos_token) == roles
    assert theirs("the sea")["input_ids"] == tokenizer.encode_batch(["the sea"])[0]
    train_tokenizer.main(config)
    assert "already there, nothing to do" in caplog.text
    convert_to_mds.main(convert_config(corpus, out, tmp_path / "data"))
    assert Manifest.load(tmp_path / "data").vocab_size == 320


def with_transformers(folder, text, **settings):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)(text, **settings)


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """Tokenizers with BOS put first or not, of our own, and of a reference."""

    def train_one(add_bos, reference=None):
        out = tmp_path_factory.mktemp("trained") / "tokenizer"
        settings = {"add_bos": add_bos, "reference": reference and str(reference)}
        train_tokenizer.main(TokenizerConfig(corpus=str(corpus), out=str(out), vocab_size=300, **settings))
        return out

    own = train_one(add_bos=False)
    return {"own": (own, train_one(add_bos=True)), "reference": (train_one(False, own), train_one(True, own))}


@pytest.mark.parametrize("kind", ["own", "reference"])
def test_a_model_of_transformers_gets_no_token_types_from_our_tokenizer(trained, kind):
    for folder in trained[kind]:
        assert sorted(with_transformers(folder, "the sea")) == ["attention_mask", "input_ids"]


@pytest.mark.parametrize("kind", ["own", "reference"])
def test_in_other_programs_the_name_of_a_special_token_is_that_token_and_in_ours_it_is_text(trained, kind):
    for folder in trained[kind]:
        tokenizer = Tokenizer.load(folder)
        given = with_transformers(folder, "sea<|eos|>", add_special_tokens=False)["input_ids"]
        assert given[-1] == tokenizer.eos_id
        assert tokenizer.eos_id not in tokenizer.tokenize("sea<|eos|>")[0].tolist()
        assert "split_special_tokens" not in json.loads((folder / "tokenizer_config.json").read_text())


@pytest.mark.parametrize("kind", ["own", "reference"])
def test_bos_is_put_first_on_demand_and_conversions_stay_as_they_are(trained, kind, corpus, tmp_path):
    without, with_bos = trained[kind]
    tokenizer = Tokenizer.load(with_bos)
    ids = tokenizer.tokenize("the sea")[0].tolist()
    assert with_transformers(without, "the sea")["input_ids"] == ids
    assert with_transformers(with_bos, "the sea")["input_ids"] == [tokenizer.bos_id, *ids]
    for folder in (without, with_bos):
        convert_to_mds.main(convert_config(corpus, folder, tmp_path / folder.parent.name))
    first, second = (Manifest.load(tmp_path / folder.parent.name) for folder in (without, with_bos))
    assert first.splits == second.splits


def test_an_older_folder_of_ours_is_the_same_tokenizer(tokenizer_dir, tmp_path, corpus, shards, caplog):
    caplog.set_level("INFO", "hindsight")
    folder = shutil.copytree(tokenizer_dir, tmp_path / "older")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["model_input_names"]
    write(folder, tokenizer_config=config | {"split_special_tokens": True})
    assert Tokenizer.load(folder).fingerprint == Tokenizer.load(tokenizer_dir).fingerprint
    train_tokenizer.main(TokenizerConfig(corpus=str(corpus), out=str(folder), vocab_size=300))
    convert_to_mds.main(convert_config(corpus, folder, shards))
    assert caplog.text.count("already there, nothing to do") == 2
