"""Where the gap lives: every cut sums to the whole, and says of a made-up gap where it was put."""

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_data import make_text
from helpers.token_files import CONTEXT_LENGTH, losses_of, tokens_of, write_group, write_token_file

from hindsight.analysis import cuts, side_by_side
from hindsight.analysis.cut_sums import power_of_two, power_of_two_labels
from hindsight.analysis.cuts import cuts_of, token_files_of
from hindsight.analysis.token_classes import CLASSES, TokenClasses, text_of, texts_of
from hindsight.errors import InputError

DOCUMENTS = make_text(n_documents=60, seed=1).split("\n\n")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_group(tmp_path_factory.mktemp("losses"), DOCUMENTS)


@pytest.fixture(scope="module")
def found(files):
    return cuts_of(files)


def group_of_two(tmp_path: Path, columns, forward, backward, context_length=CONTEXT_LENGTH):
    """One seed: losses are given by token."""
    token_bytes, special = [b"", b"the", b" sea", b"s", b" 4", b", ", b"\n"], {0: "<|eos|>"}
    n = len(columns["id"])
    columns = {"place": np.arange(n), "bytes": np.ones(n), "rank": np.zeros(n), "likeliest": np.ones(n)} | columns
    window = columns["window_place"]
    contexts = {"forward": window, "backward": context_length - 1 - window}
    return {
        order: {
            0: write_token_file(
                tmp_path / order / "token_losses.parquet",
                token_bytes,
                special,
                columns | {"nats": np.array(nats), "context": contexts[order]},
                order=order,
                context_length=context_length,
            )
        }
        for order, nats in (("forward", forward), ("backward", backward))
    }


def by_label(rows):
    return {row["label"]: row for row in rows}


def test_each_cut_sums_to_the_whole_with_its_tokens_and_its_losses(files, found):
    nats = {order: [file.read(["nats"])["nats"].astype(float) for file in of.values()] for order, of in files.items()}
    gap = np.mean([b.mean() - f.mean() for f, b in zip(nats["forward"], nats["backward"], strict=True)])
    assert found["whole"]["gap_nats"] == pytest.approx(gap, abs=1e-12)
    assert {*found["cuts"]} == {"context", "window_place", "document_place", "frequency", "class", "document"}
    parts = {**found["cuts"], **{split["label"]: [split["rest"], split["left_out"]] for split in found["left_out"]}}
    for name, rows in parts.items():
        assert len(rows) > 1, name
        assert sum(row["n_tokens"] for row in rows) == found["n_tokens"], name
        assert sum(row["contribution_nats"] for row in rows) == pytest.approx(gap, abs=1e-9), name
        for key, order in (("reference_sum_nats", "forward"), ("order_sum_nats", "backward")):
            total = np.mean([values.sum() for values in nats[order]])
            assert sum(row[key] for row in rows) == pytest.approx(total, rel=1e-12), name


def test_the_spread_of_a_bin_is_that_of_its_gap_over_seeds(files, found):
    ids = files["forward"][0].read(["document"])["document"]
    per_seed = []
    for seed in (0, 1, 2):
        forward, backward = (files[order][seed].read(["nats"])["nats"].astype(float) for order in files)
        per_seed.append((backward - forward)[ids == 7].mean())
    row = next(row for row in found["cuts"]["document"] if row["label"].startswith("7: "))
    assert row["gap_nats"] == pytest.approx(np.mean(per_seed))
    assert row["gap_std_nats"] == pytest.approx(np.std(per_seed, ddof=1))


def test_one_seed_has_no_spread(tmp_path):
    found = cuts_of(write_group(tmp_path, DOCUMENTS[:3], seeds=[0]))
    assert found["whole"]["gap_std_nats"] is None
    assert all(row["gap_std_nats"] is None for rows in found["cuts"].values() for row in rows)


def test_toy_losses_land_in_the_bins_they_belong_to(tmp_path):
    # Two documents of 4 tokens, EOS counted, in windows of 4: the sea s EOS | 4 sea , EOS
    columns = {
        "id": np.array([1, 2, 3, 0, 4, 2, 5, 0]),
        "document": np.array([0, 0, 0, 0, 1, 1, 1, 1]),
        "document_place": np.array([0, 1, 2, 3] * 2),
        "window_place": np.array([0, 1, 2, 3] * 2),
    }
    forward, backward = [8, 4, 2, 1, 8, 4, 2, 1], [1, 2, 4, 16, 1, 2, 4, 8]
    found = cuts_of(group_of_two(tmp_path, columns, forward, backward, context_length=4))
    assert found["whole"]["gap_nats"] == (38 - 30) / 8
    context = by_label(found["cuts"]["context"])
    assert [context[label]["reference_nats"] for label in ("0", "1", "2 to 3")] == [8, 4, 1.5]
    assert [context[label]["order_nats"] for label in ("0", "1", "2 to 3")] == [12, 4, 1.5]
    assert found["equal_context"]["gap_nats"] == 1
    window = by_label(found["cuts"]["window_place"])
    assert [window[str(k)]["gap_nats"] for k in range(4)] == [-7, -2, 2, 11]
    classes = by_label(found["cuts"]["class"])
    assert {name: (row["n_tokens"], row["gap_nats"]) for name, row in classes.items()} == {
        "word start": (3, pytest.approx(-11 / 3)),
        "inside a word": (1, 2),
        "digit": (1, -7),
        "punctuation": (1, 2),
        "special": (2, 11),
    }
    assert [row["label"] for row in found["cuts"]["document"]] == ["0: the seas<|eos|>", "1: 4 sea, <|eos|>"]
    left_out = by_label(found["left_out"])
    assert left_out["every EOS"]["rest"]["gap_nats"] == (38 - 24 - 28) / 6
    assert left_out["the first token of each document"]["rest"]["gap_nats"] == (38 - 2 - 14) / 6
    both_sides = left_out["the first and the last token of each document, and its EOS"]
    assert both_sides["rest"]["n_tokens"] == 2
    assert both_sides["rest"]["gap_nats"] == -2
    little = left_out["what has fewer than 1 token of context in one of the orders"]
    assert little["rest"]["gap_nats"] == 0


def test_equal_context_undoes_what_only_comes_of_unequal_context(tmp_path):
    # Backward has seen all but the last tokens, forward none but the first: the loss is a function of context alone.
    n = 40
    columns = {
        "id": np.full(n, 1),
        "document": np.zeros(n),
        "document_place": np.arange(n),
        "window_place": np.arange(n) % 4,
    }
    loss = np.array([8.0, 4.0, 2.0, 1.0])
    forward, backward = loss[np.arange(n) % 4], loss[3 - np.arange(n) % 4]
    files = group_of_two(tmp_path, columns, forward, backward + 0.25, context_length=4)
    found = cuts_of(files)
    assert found["equal_context"] == {"gap_nats": 0.25, "gap_std_nats": None, "share_of_tokens": 1}
    assert all(row["gap_nats"] == 0.25 for row in found["cuts"]["context"])
    assert found["cuts"]["window_place"][0]["gap_nats"] == -7 + 0.25


def test_equal_context_weighs_each_context_by_how_often_both_orders_had_it(tmp_path):
    columns = {
        "id": np.full(4, 1),
        "document": np.zeros(4),
        "document_place": np.arange(4),
        "window_place": np.array([0, 0, 0, 1]),
    }
    # Without context, which forward had three times and backward once, backward is harder by 1; with it, by 0.
    files = group_of_two(tmp_path, columns, [2.0, 2.0, 2.0, 1.0], [1.0, 1.0, 1.0, 3.0], context_length=2)
    assert cuts_of(files)["equal_context"]["gap_nats"] == 0.5


def test_deciles_go_by_the_mass_of_tokens_from_the_most_frequent(files, found):
    rows = found["cuts"]["frequency"]
    counts = np.sort(np.bincount(files["forward"][0].read(["id"])["id"]))[::-1]
    assert rows[0]["label"] == "1 (most frequent)"
    assert sum(row["n_tokens"] for row in rows) == counts.sum()
    # Each is a tenth but for the id that lies across its bound.
    starts = np.cumsum([row["n_tokens"] for row in rows]) / counts.sum()
    assert np.abs(starts - np.arange(1, 11) / 10).max() <= counts[0] / counts.sum()


def test_a_planted_token_and_a_planted_passage_are_found(tmp_path):
    token_bytes, special, columns = tokens_of(DOCUMENTS)
    planted = token_bytes.index(b" water")
    n = len(columns["id"])
    start = 5 * 64
    files = {}
    for order in ("forward", "backward"):
        losses = losses_of(columns, order, seed=0, gap_nats=0)
        if order == "backward":
            losses["nats"] = losses["nats"] + 3 * (columns["id"] == planted)
            losses["nats"][start : start + 64] += 7
        files[order] = {0: write_token_file(tmp_path / order, token_bytes, special, columns | losses, order=order)}
    found = cuts_of(files)
    assert found["tokens"]["contribution_harder"][0]["label"] == " water"
    worst = found["passages"]["order_harder"][0]
    assert worst["row"] == start
    assert worst["gap_nats"] == pytest.approx(worst["gap_sum_nats"] / 64)
    text = "".join(token["text"] for token in worst["tokens"])
    whole = "".join(token_bytes[i].decode() if i else "<|eos|>" for i in columns["id"].tolist())
    assert worst["before"] + text + worst["after"] in whole
    shown = found["passages"]["shown"]
    assert shown["row"] >= n // 3
    assert shown["row"] % CONTEXT_LENGTH == 0
    assert len(shown["tokens"]) == 400


def test_all_is_the_same_in_chunks_of_any_size_and_memory_is_bounded(files, found, monkeypatch):
    def in_chunks_of(size: int):
        return side_by_side.side_by_side([file for of in files.values() for file in of.values()], 2, size)

    assert {len(chunk.ids) for chunk in in_chunks_of(64)} <= {64, found["n_tokens"] % 64}
    # The function itself, with chunks that are small enough for these files.
    monkeypatch.setattr(cuts, "side_by_side", lambda given: side_by_side.side_by_side(given, 2, 64))
    again = cuts_of(files)
    assert again["cuts"]["class"] == found["cuts"]["class"]
    for name, rows in found["cuts"].items():
        assert [row["gap_nats"] for row in again["cuts"][name]] == pytest.approx([row["gap_nats"] for row in rows])


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    # The function itself, with chunks of which these files have many.
    monkeypatch.setattr(cuts, "side_by_side", lambda given: side_by_side.side_by_side(given, 2, 1024))
    peaks = []
    for n_times in (8, 64):
        files = write_group(tmp_path / str(n_times), ["\n\n".join(DOCUMENTS)] * n_times, seeds=[0])
        cuts_of(files)  # imports
        tracemalloc.start()
        cuts_of(files)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    rows = files["forward"][0].rows
    assert rows > 100_000
    assert peaks[1] < peaks[0] + 4 * rows  # where all losses alone have 8 bytes a row and order


@pytest.mark.parametrize("key", ["data_fingerprint", "split", "step", "context"])
def test_a_file_of_other_data_is_refused_and_named(tmp_path, files, key):
    changed: dict[str, Any] = {key: 30 if key == "step" else "other"}
    other = write_group(tmp_path, DOCUMENTS, seeds=[1], **changed)
    with pytest.raises(InputError, match=rf"backward-1/token_losses.parquet is a token file .* {key}="):
        cuts_of({"forward": files["forward"], "backward": files["backward"] | {1: other["backward"][1]}})


def test_a_file_with_other_tokens_is_refused_though_it_says_that_it_is_of_the_same_data(tmp_path, files):
    token_bytes, special, columns = tokens_of(DOCUMENTS)
    changed = columns | {"id": columns["id"].copy()}
    changed["id"][900] = 1 + columns["id"][900] % 3
    losses = losses_of(columns, "backward", 1)
    path = tmp_path / "changed.parquet"
    other = write_token_file(path, token_bytes, special, changed | losses, order="backward", seed=1)
    with pytest.raises(InputError, match=r"changed.parquet is a token file of other data than .*their tokens differ"):
        cuts_of({"forward": files["forward"], "backward": files["backward"] | {1: other}})


def test_files_of_a_group_are_found_only_where_every_run_has_one_of_its_last_evaluation(files):
    folders = {order: {str(s): str(file.path.parent) for s, file in of.items()} for order, of in files.items()}
    group: dict[str, Any] = {"reference": "forward", "order": "backward", "seeds": [0, 1, 2], "runs": folders}
    group |= {"is_both": False, "text": {"context": "windows"}}
    paths = token_files_of(group)
    assert paths is not None
    assert paths["backward"][2] == files["backward"][2].path
    assert token_files_of(group | {"text": None}) is None
    assert token_files_of(group | {"seeds": []}) is None
    folders["backward"]["2"] = "nowhere"
    assert token_files_of(group) is None


def test_a_run_of_both_orders_has_a_file_for_each(tmp_path):
    for order in ("forward", "backward"):
        (tmp_path / f"token_losses-{order}.parquet").touch()
    runs = {order: {"0": str(tmp_path)} for order in ("forward", "backward")}
    group: dict[str, Any] = {"reference": "forward", "order": "backward", "seeds": [0], "runs": runs, "is_both": True}
    group["text"] = {"context": "windows"}
    paths = token_files_of(group)
    assert paths is not None
    assert [paths[order][0].name for order in runs] == ["token_losses-forward.parquet", "token_losses-backward.parquet"]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["Don", "'", "t", " stop"], ["word start", "punctuation", "word start", "word start"]),
        (["don", "'t", " 'tis"], ["word start", "inside a word", "word start"]),
        (["\n", "The", "re", " ", "x"], ["white space", "word start", "inside a word", "white space", "word start"]),
        ([" 1", "9", "th", "½"], ["digit", "digit", "word start", "digit"]),
        (
            [" é", "\n", b"\xe6", b"\xb0\xb4", "!"],
            ["word start", "white space", "word start", "inside a word", "punctuation"],
        ),
        (["<|eos|>", "a", "<|eos|>", "b"], ["special", "word start", "special", "word start"]),
    ],
)
def test_classes_of_tokens_in_a_text(tokens, expected):
    token_bytes = [b"", *(token if isinstance(token, bytes) else token.encode() for token in tokens)]
    ids = np.array([0 if text == "<|eos|>" else number for number, text in enumerate(tokens, start=1)])
    classes = TokenClasses(token_bytes, {0: "<|eos|>"})
    assert [CLASSES[k] for k in classes.of(ids, None)] == expected
    # In pieces of one token, the last one of the piece before is all that is known of it.
    singly = [classes.of(ids[i : i + 1], int(ids[i - 1]) if i else None)[0] for i in range(len(ids))]
    assert [CLASSES[k] for k in singly] == expected


def test_a_character_that_lies_across_tokens_is_whole_in_a_text_and_bytes_in_a_token():
    token_bytes, special = [b"", b"\xc3", b"\x84L", b"\xff"], {0: "<|eos|>"}
    assert text_of([1, 2, 0, 3], token_bytes, special) == "\u00c4L<|eos|>\\xff"
    assert [*texts_of([1, 2, 0], token_bytes, special)] == ["\\xc3", "\\x84L", "<|eos|>"]


def test_powers_of_two_bound_the_bins_that_are_named_by_them():
    values = np.arange(20)
    labels = power_of_two_labels(6)
    assert labels[:4] == ["0", "1", "2 to 3", "4 to 7"]
    for value, k in zip(values, power_of_two(values), strict=True):
        low, high = labels[k].split(" to ") if " to " in labels[k] else (labels[k], labels[k])
        assert int(low) <= value <= int(high)
    assert power_of_two(np.array([2**40 - 1, 2**40])).tolist() == [40, 41]
    assert not math.isnan(power_of_two(np.array([0]))[0])
