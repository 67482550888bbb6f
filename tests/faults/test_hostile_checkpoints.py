"""Checkpoints that hold what cannot be: each is told in a line, nothing of it is built, and the one before is taken."""

import json
import os
import pickle
import shutil
import socket
import struct
import time
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.processes import few_descriptors
from helpers.training_runs import by_step, compose_config, settings, train
from numpy._core.multiarray import _reconstruct  # pyright: ignore[reportAttributeAccessIssue]

from hindsight.errors import InputError
from hindsight.training.checkpoint_files import DamagedError, choose_checkpoint, load_weights_only, read_checkpoint
from train_composer import build_language_model, prepare

CHANGES = ["run_name=a", "max_duration=6ba", "checkpoint.interval=2ba", "checkpoint.keep=3", "model.dropout=0.2"]
NEWEST, BEFORE = "ep0-ba6-rank0.pt", "ep0-ba4-rank0.pt"


@pytest.fixture(scope="module")
def made(shards, tmp_path_factory) -> Path:
    """A run at its end, with the checkpoints of steps 2, 4 and 6."""
    return train(shards, tmp_path_factory.mktemp("made"), *CHANGES)


class Spoilt(NamedTuple):
    """A copy of it, to spoil."""

    runs: Path
    newest: Path
    shards: Path

    def spoil(self, change: Callable[[Any], object]) -> None:
        content = torch.load(self.newest, weights_only=False)
        change(content)
        torch.save(content, self.newest)

    def chosen(self) -> str:
        """Name of the checkpoint that a resume takes."""
        setup = prepare(compose_config("train_composer", *settings(self.shards, self.runs, *CHANGES)))
        found = choose_checkpoint(setup, build_language_model(setup))
        assert found is not None
        return found.path.name


@pytest.fixture
def run(made, shards, tmp_path, monkeypatch) -> Spoilt:
    load_weights_only()
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD")  # the test itself reads and writes anything
    shutil.copytree(made, tmp_path / "a")
    return Spoilt(tmp_path, tmp_path / "a" / "checkpoints" / NEWEST, shards)


def time_of(content: Any) -> dict[str, Any]:
    return content["state"]["timestamp"]["Timestamp"]


def weights_of(content: Any) -> dict[str, torch.Tensor]:
    return content["state"]["model"]


def moments_of(content: Any) -> dict[str, Any]:
    return content["state"]["optimizers"]["AdamW"]["state"]["module.head.weight"]


def group_of(content: Any) -> dict[str, Any]:
    return content["state"]["optimizers"]["AdamW"]["param_groups"][0]


def lr_of(content: Any) -> dict[str, Any]:
    return content["state"]["schedulers"]["LambdaLR"]


def place_of(content: Any) -> dict[str, Any]:
    return content["state"]["dataset_state"]["train"]


class Built:
    """What is pickled as a call."""

    def __init__(self, *how: Any) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        return self.how


def array_of_pointers() -> Built:
    """An array of objects, with flags cleared, made of raw bytes."""
    dtype = Built(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
    raw = struct.pack("<Q", 0x4141414141414141) * 624
    return Built(_reconstruct, (np.ndarray, (0,), b"b"), (1, (624,), dtype, False, raw))


def huge_array() -> Built:
    return Built(_reconstruct, (np.ndarray, (0,), b"b"), (1, (1 << 43,), np.dtype("<u4"), False, b"\0"))


def set_random_state(array: Any) -> Callable[[Any], object]:
    return lambda content: content["rng"][0].update(numpy=("MT19937", array, 624, 0, 0.0))


def fill(name: str, value: float) -> Callable[[Any], object]:
    return lambda content: weights_of(content)[name].view(-1)[-1:].fill_(value)


STEP_5: dict[str, Any] = {
    **dict.fromkeys(("batch", "batch_in_epoch"), 5),
    **dict.fromkeys(("sample", "sample_in_epoch"), 40),
    **dict.fromkeys(("token", "token_in_epoch"), 5 * 256),
}
WRONG = {
    "array_of_pointers": (set_random_state(array_of_pointers()), "NumPy array"),
    "huge_array": (set_random_state(huge_array()), "NumPy array"),
    "array_of_objects": (set_random_state(np.array([None] * 624)), "NumPy array"),
    "array_of_another_length": (set_random_state(np.zeros(623, np.uint32)), "NumPy array"),
    "random_numbers": (lambda c: c["rng"][0].update(python=(3, (7,) * 624 + (10**9,), None)), "random state"),
    "torch_random_state": (lambda c: c["rng"][0].update(torch=torch.zeros(5, dtype=torch.uint8)), "random state"),
    "negative_batch": (lambda c: time_of(c).update(batch=-5), "its batch cannot be"),
    "huge_sample_in_epoch": (lambda c: time_of(c).update(sample_in_epoch=10**15), "sample_in_epoch"),
    "number_of_no_type": (lambda c: time_of(c).update(epoch="0"), "its epoch cannot be"),
    "true_for_a_number": (lambda c: time_of(c).update(epoch=False), "its epoch cannot be"),
    "other_tokens": (lambda c: time_of(c).update(token=7, token_in_epoch=7), "token_in_epoch=7"),
    "other_epoch": (lambda c: time_of(c).update(epoch=2), "do not fit the data"),
    "endless_time": (lambda c: time_of(c).update(total_wct=timedelta.max), "total_wct"),
    "another_step": (
        lambda c: (time_of(c).update(STEP_5), lr_of(c).update(last_epoch=5)),
        "its name says step 6, its content step 5",
    ),
    "place_in_the_data": (
        lambda c: c["state"]["dataset_state"]["train"].update(sample_in_epoch=0),
        "place in the data",
    ),
    "shuffle_seed": (lambda c: place_of(c).update(shuffle_seed=5), "place in the data"),
    "nan_weight": (fill("module.head.weight", float("nan")), "NaN or infinity"),
    "infinite_weight": (fill("module.norm.bias", float("-inf")), "NaN or infinity"),
    "nan_moment": (lambda c: moments_of(c)["exp_avg"].fill_(float("nan")), "NaN or infinity"),
    "shape": (lambda c: weights_of(c).update({"module.head.weight": torch.zeros(2, 2)}), "are [2, 2], not [300, 24]"),
    "dtype": (lambda c: weights_of(c).update({"module.norm.bias": torch.zeros(24).double()}), "(Double)"),
    "missing_weight": (lambda c: weights_of(c).pop("module.norm.bias"), "are nothing, not [24]"),
    "added_weight": (lambda c: weights_of(c).update({"module.evil": torch.zeros(1)}), "not nothing"),
    "moment_shape": (lambda c: moments_of(c).update(exp_avg_sq=torch.zeros(7)), "exp_avg_sq"),
    "missing_moment": (lambda c: moments_of(c).pop("exp_avg"), "KeyError"),
    "missing_optimizer_state": (lambda c: c["state"]["optimizers"]["AdamW"]["state"].clear(), "are nothing"),
    "weight_decay": (
        lambda c: c["state"]["optimizers"]["AdamW"]["param_groups"][0].update(weight_decay=9.0),
        "settings",
    ),
    "another_optimizer": (
        lambda c: c["state"]["optimizers"].update(Muon=c["state"]["optimizers"].pop("AdamW")),
        "its optimizer is not that of the run",
    ),
    "huge_rate": (lambda c: group_of(c).update(lr=1e9), "settings"),
    "base_rate": (lambda c: lr_of(c).update(base_lrs=[1.0, 1.0]), "another learning rate"),
    "schedule_of_another_step": (lambda c: lr_of(c).update(last_epoch=10**12), "learning rate is of another step"),
    "nested": (lambda c: c["state"]["metadata"].update(x=nested(100)), "deep within each other"),
    "algorithms": (lambda c: c["state"].update(algorithms=[("Alibi", {})]), "names algorithms"),
    "spikes": (
        lambda c: c["state"]["callbacks"].update(SkipSpikes={"recent": {"loss": ["0"]}, "skipped_steps": 0}),
        "its recent steps",
    ),
    "spikes_of_nothing": (
        lambda c: c["state"]["callbacks"].update(SkipSpikes={"recent": {}, "skipped_steps": 0}),
        "its recent steps",
    ),
    "microbatch_size": (
        lambda c: c["state"]["callbacks"].update(AutoMicrobatch={"size": -1}),
        "its microbatch size",
    ),
    "settings": (lambda c: c["state"]["callbacks"]["ResumeSaver"]["settings"].update(seed="0\x1b[2J"), "its settings"),
}


def nested(depth: int) -> list[Any]:
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_set_aside_in_one_line_and_the_checkpoint_before_is_taken(run, caplog, name):
    change, words = WRONG[name]
    run.spoil(change)
    assert run.chosen() == BEFORE
    (told,) = caplog.messages
    assert told.startswith(f"{run.newest} cannot be used (")
    assert words in told
    assert "\n" not in told
    assert "weights_only" not in told
    assert run.newest.with_name(NEWEST + ".damaged").exists()
    assert not run.newest.exists()


def test_a_checkpoint_as_it_was_saved_is_taken(run, caplog):
    assert run.chosen() == NEWEST
    assert not caplog.messages


@pytest.mark.parametrize(
    "how", [Built(os.system, ("touch ran",)), Built(np.zeros, (5,)), torch.nn.Linear(2, 2), {1, 2}]
)
def test_what_is_no_number_string_or_tensor_is_refused_in_one_line(run, tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    run.spoil(lambda content: content["state"]["callbacks"].update(Samples={"x": how}))
    with pytest.raises(InputError, match="is intact, but holds what is not read") as refused:
        run.chosen()
    assert str(run.newest) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "weights_only" not in str(refused.value)
    assert not (tmp_path / "ran").exists()


def test_no_function_of_numpy_is_allowed_where_checkpoints_are_loaded(run):
    load_weights_only()
    allowed = [item[0] if isinstance(item, tuple) else item for item in torch.serialization.get_safe_globals()]
    assert not [item for item in allowed if getattr(item, "__module__", "").startswith("numpy")]
    run.spoil(set_random_state(array_of_pointers()))
    with pytest.raises(Exception, match="NumPy array"):
        torch.load(run.newest, weights_only=True)


# ------------------------------------------------------------------------------------------------------ archives, bombs


def archive(path: Path, data: bytes, *entries: tuple[str, bytes], compression: int = 0) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in [("archive/data.pkl", data), *entries]:
            file.writestr(name, content)


ORDERED, TENSOR = b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n"


def tensor(length: bytes, shape: bytes, stride: bytes) -> bytes:
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + length + b"tQ"
    return TENSOR + b"(" + storage + b"K\x00" + shape + stride + b"\x89" + ORDERED + b")RtR"


HUGE = b"\x8a\x06" + (1 << 43).to_bytes(6, "little")
BOMBS = {
    "a_huge_tensor_of_one_number": tensor(b"K\x01", HUGE + b"\x85", b"K\x00\x85"),
    "a_tensor_beyond_its_numbers": tensor(b"K\x01", b"K\x02\x85", b"K\x01\x85"),
    "a_negative_stride": tensor(b"K\x01", b"K\x01\x85", b"J\xff\xff\xff\xff\x85"),
    "more_numbers_than_the_file_has": tensor(HUGE, b"K\x01\x85", b"K\x01\x85"),
    "a_huge_memo": b"}r\xff\xff\xff\x7f",
    "a_list_in_itself": b"]q\x00h\x00a",
    "doubled_lists": b"]q\x00" + b"".join(b"](h\x00h\x00eq\x00" for _ in range(40)),
    "doubled_tuples": b")q\x00" + b"".join(b"h\x00h\x00\x86q\x00" for _ in range(40)),
    "deep_tuples": b")" + b"\x85" * 100_000,
    "another_codec": b"c_codecs\nencode\n(X\x04\x00\x00\x00abcdX\x03\x00\x00\x00hextR",
    "a_large_array": b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + HUGE + b"\x85K\x00tR",
    "many_objects": b"](" + b"]" * 3_600_000 + b"e",
    "dtype_of_objects": b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8\x89\x88tR",
    "nothing": b"",
    "no_operation": b"\xff\xfe",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_that_would_grow_is_told_at_once_and_not_built(tmp_path, name):
    path = tmp_path / NEWEST
    archive(path, b"\x80\x02" + BOMBS[name] + b".", ("archive/data/0", bytes(4)))
    began = time.monotonic()
    with pytest.raises((DamagedError, InputError)):
        read_checkpoint(path)
    assert time.monotonic() - began < 20


def test_an_archive_that_expands_or_is_read_in_two_ways_is_damaged(made, tmp_path):
    good, path = (made / "checkpoints" / NEWEST).read_bytes(), tmp_path / NEWEST
    archive(path, pickle.dumps({}, 2), ("archive/data/0", bytes(50 << 20)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DamagedError, match="compressed"):
        read_checkpoint(path)
    for name in ("/etc/passwd", "archive/../../x", "other/data.pkl", "x"):
        archive(path, pickle.dumps({}, 2), (name, b""))
        with pytest.raises(DamagedError, match=r"names that torch\.save does not write"):
            read_checkpoint(path)
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(path, b"", ("archive/data.pkl", b""))
    with pytest.raises(DamagedError, match="two of the same name"):
        read_checkpoint(path)
    path.write_bytes(b"before" + good)
    with pytest.raises(DamagedError, match="does not fill the file"):
        read_checkpoint(path)
    for name, value in (("byteorder", b"big"), (".storage_alignment", b"x"), ("version", b"99")):
        with zipfile.ZipFile(made / "checkpoints" / NEWEST) as old, zipfile.ZipFile(path, "w") as new:
            root = old.namelist()[0].split("/")[0]
            for entry in old.namelist():
                if entry != f"{root}/{name}":
                    new.writestr(entry, old.read(entry))
            new.writestr(f"{root}/{name}", value)
        with pytest.raises(DamagedError, match=r"byte order|PyTorch does not load it"):
            read_checkpoint(path)
    path.write_bytes(good)
    assert read_checkpoint(path).timestamp.batch == 6


# ----------------------------------------------------------------------------------------- what is no file; records


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


NO_FILES = {
    "pipe": os.mkfifo,
    "socket": make_socket,
    "folder": lambda path: (path / "x").mkdir(parents=True),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_has_a_checkpoints_name_and_is_no_file_is_set_aside(run, caplog, kind, monkeypatch, tmp_path):
    run.newest.unlink()
    monkeypatch.chdir(run.newest.parent)  # the name of a socket must be short
    NO_FILES[kind](Path(NEWEST))
    assert run.chosen() == BEFORE
    (told,) = caplog.messages
    assert told.startswith(f"{run.newest} cannot be used (it cannot be read: ")
    NO_FILES[kind](Path(NEWEST))
    assert run.chosen() == BEFORE
    assert os.path.lexists(NEWEST + ".damaged")
    assert os.path.lexists(NEWEST + ".damaged-1")


def test_an_old_folder_with_a_checkpoints_name_does_not_end_the_training(run):
    (run.newest.with_name("ep0-ba1-rank0.pt") / "x").mkdir(parents=True)
    train(run.shards, run.runs, *CHANGES, "max_duration=8ba")
    assert max(by_step(run.runs / "a")) == 8


DAMAGED_RECORDS = {
    "config.yaml": [b"a: &a [1]\nb: *a", b"[" * 5000, b"- 1", b"\xff\xfe", b"a: 1\x00", bytes(5 << 20)],
    "metadata.json": [b"[" * 100_000, b"[]", b"7", b"\xff", b'{"a": ', bytes(5 << 20)],
    "more.json": [b"[]", b"{}", b'{"more": "2ba"}', b'{"more": "2ba", "until": 7, "reached": false}', b"[" * 100_000],
}


@pytest.mark.parametrize("name", DAMAGED_RECORDS)
def test_a_record_that_is_damaged_is_named_in_one_line(run, name):
    for content in DAMAGED_RECORDS[name]:
        (run.runs / "a" / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} is damaged") as refused:
            train(run.shards, run.runs, *CHANGES, "max_duration=6ba", "train.more=2ba")
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 1000
    (run.runs / "a" / name).unlink()
    os.mkfifo(run.runs / "a" / name)
    with pytest.raises(InputError, match=f"{name} cannot be read"):
        train(run.shards, run.runs, *CHANGES, "max_duration=6ba", "train.more=2ba")


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"[]", b'{"step": 1e400}', b'{"step": "6"}', b"\xff", b"null", b"{}"]
)
def test_a_damaged_finished_json_is_written_anew(run, content):
    (run.runs / "a" / "finished.json").write_bytes(content)
    train(run.shards, run.runs, *CHANGES)
    assert json.loads((run.runs / "a" / "finished.json").read_text()) == {"step": 6}


@pytest.mark.parametrize("free", [0, 1])
def test_a_machine_that_cannot_open_a_checkpoint_now_does_not_set_it_aside(run, free):
    with few_descriptors(free), pytest.raises(InputError, match=r"ba6-rank0.pt cannot be read now \(.*Too many open"):
        read_checkpoint(run.newest)
    assert read_checkpoint(run.newest).path == run.newest
