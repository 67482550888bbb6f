"""mode=infill: middles from both sides, the joins that both models prefer, and their ranks."""

import json

import numpy as np
import pytest
import torch
from helpers.token_runs import T, model_of

import benchmarks.infilling
import generate_text
from hindsight.config.corpus import TextOrder
from hindsight.config.generation import GenerateConfig, Mode
from hindsight.errors import InputError
from hindsight.generation.filled_gaps import filled
from hindsight.generation.given import Gap
from hindsight.generation.infilling import Join, Pair, Sides, best_joins, fill, judged, written
from hindsight.generation.judges import Judge, Judges
from hindsight.generation.sampling import Sampling
from hindsight.generation.scores import readers_of, token_nats
from hindsight.orders.known import open_order
from hindsight.text.graphemes import reverse_text
from hindsight.tokenization.tokenizer import Tokenizer

BEFORE, AFTER = "In the beginning was", " dark water while seven"


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir):
    return Tokenizer.load(tokenizer_dir)


@pytest.fixture(scope="module")
def pair(trained, tokenizer):
    forward, backward = (
        readers_of(model_of(trained[name]), open_order(name, T, tokenizer), tokenizer.bos_id, T)[0]
        for name in ("forward", "backward")
    )
    return Pair(forward, backward, tokenizer.eos_id)


@pytest.fixture(scope="module")
def sides(tokenizer):
    before, after = tokenizer.encode_batch([BEFORE, AFTER])
    return Sides.of(before, after, 5, T)


def infill(run, **keys):
    generate_text.main(GenerateConfig(run=str(run), mode=Mode.infill, **keys))


def nats_after(reader, read, token):
    with torch.no_grad():
        logits_V = reader.module(torch.tensor([[reader.reading.start_id, *read]]))[0, -1].double()
    return -float(logits_V.log_softmax(-1)[token])


def own_nats(reader, side, text):
    return sum(nats_after(reader, [*side, *text[:place]], token) for place, token in enumerate(text))


def test_the_best_join_is_the_best_of_all_scored_one_by_one(pair, sides):
    before, after, turned = sides.before, sides.after, sides.after[::-1]
    start, end = [270, 261, 290], [280, 265, 271, 262]
    rate = (own_nats(pair.forward, before, start) + own_nats(pair.backward, turned, end[::-1])) / 7
    costs = {}
    for i in range(4):
        for j in range(5):
            first, last = start[:i], end[4 - j :]
            costs[i, j] = own_nats(pair.forward, before, first) + own_nats(pair.backward, turned, last[::-1])
            costs[i, j] += nats_after(pair.forward, [*before, *first], [*last, *after][0])
            costs[i, j] += nats_after(pair.backward, [*turned, *last[::-1]], [*before, *first][-1]) - rate * (i + j)
    for lengths in (range(1, 8), range(3, 4), range(5, 6), range(7, 8)):
        i, j = min((each for each in costs if sum(each) in lengths), key=costs.__getitem__)
        (found,) = best_joins(pair, sides, [start], [end], lengths, batch_size=1)
        assert found == Join((*start[:i], *end[4 - j :]), i)


def test_joins_do_not_depend_on_what_is_scored_beside_them(pair, sides):
    starts, ends = [[270, 261, 290], [262]], [[280], [265, 271, 262, 290]]
    together = best_joins(pair, sides, starts, ends, range(2, 4), batch_size=8)
    assert len(together) == 4
    rate_free = [best_joins(pair, sides, starts, ends, range(2, 4), batch_size=1)]
    assert rate_free == [together]


def test_middles_are_ranked_by_the_mean_of_both_models_less_what_their_length_costs(pair, sides):
    joins = [Join((270, 261), 1), Join((270,), 1), Join((280, 265, 290), 0)]
    found = judged(pair, sides, joins, batch_size=2)
    n, texts = len(sides.before), [[*sides.before, *join.middle, *sides.after] for join in joins]
    ahead, back = (token_nats(reader, texts, 8) for reader in (pair.forward, pair.backward))
    # All tokens of the middles, but for those at the join inside the first one.
    counted = [*ahead[0][n : n + 1], *back[0][n + 1 : n + 2], ahead[1][n], back[1][n]]
    rate = np.mean([*counted, *ahead[2][n : n + 3], *back[2][n : n + 3]])
    expected = {}
    for join, a, b in zip(joins, ahead, back, strict=True):
        expected[join] = (a[n:].sum() + b[: n + len(join.middle)].sum()) / 2 - rate * len(join.middle)
    assert [each.score for each in found] == pytest.approx(sorted(expected.values()))
    assert {each.join: each.score for each in found} == pytest.approx(expected)


def test_every_middle_is_the_begin_of_one_text_and_the_end_of_another(pair, sides, tokenizer):
    sampling, seeds = Sampling(1.0, None), range(3)
    found = fill(pair, sides, sampling, seeds, batch_size=2)
    starts = written(pair.forward, sides.before, 5, pair, sampling, seeds, 8)
    ends = written(pair.backward, sides.after, 5, pair, sampling, seeds, 8)
    assert len({tuple(text) for text in starts + ends}) == 6
    assert len({each.join.middle for each in found}) == len(found) > 1
    for each in found:
        first, last = each.join.middle[: each.join.n_forward], each.join.middle[each.join.n_forward :]
        assert 1 <= len(each.join.middle) <= 5
        assert any(tuple(text[: len(first)]) == first for text in starts)
        assert any(tuple(text[len(text) - len(last) :]) == last for text in ends)


@pytest.mark.parametrize(
    ("n_before", "n_after", "length", "expected"),
    [(3, 4, 5, (3, 4, 5)), (50, 50, 10, (5, 5, 10)), (50, 2, 10, (8, 2, 10)), (2, 50, 99, (2, 8, 10))],
)
def test_sides_keep_what_is_next_to_the_gap(n_before, n_after, length, expected):
    beginning, ending = [*range(n_before)], [*range(n_after)]
    sides = Sides.of(beginning, ending, length, 20)
    assert (len(sides.before), len(sides.after), sides.length) == expected
    assert sides.before == beginning[n_before - expected[0] :]
    assert sides.after == ending[: expected[1]]


def test_a_gap_is_filled_on_the_command_line_and_in_a_file_alike(trained, tmp_path, capsys):
    keys = {"other": str(trained["backward"]), "length": 6, "samples": 3, "seed": 4}
    infill(trained["forward"], prompt=BEFORE, ending=AFTER, **keys)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split("\t") == ["score_nats", "forward_nats", "backward_nats", "middle"]
    (tmp_path / "gaps.jsonl").write_text(2 * (json.dumps({"prompt": BEFORE, "ending": AFTER}) + "\n"))
    out = tmp_path / "out.jsonl"
    infill(trained["forward"], prompts=str(tmp_path / "gaps.jsonl"), out=str(out), **keys)
    first, second = (json.loads(line) for line in out.read_text().splitlines())
    assert first == second
    assert (first["prompt"], first["ending"]) == (BEFORE, AFTER)
    assert first["models"]["backward"]["run"] == str(trained["backward"])
    assert len(first["middles"]) == len(rows) == 3
    for row, each in zip(rows, first["middles"], strict=True):
        score, _, _, middle = row.split("\t")
        assert float(score) == pytest.approx(each["score_nats"], abs=1e-3)
        assert middle == each["middle"].replace("\n", "\\n").replace("\r", "").replace("\t", "\\t")
        assert 1 <= each["tokens"] <= 6
    assert [each["score_nats"] for each in first["middles"]] == sorted(each["score_nats"] for each in first["middles"])


def test_a_run_of_both_directions_fills_alone(read_both_ways, capsys):
    infill(read_both_ways, prompt=BEFORE, ending=AFTER, length=4)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_text_longer_than_the_context_is_cut_and_it_is_said(trained, caplog):
    caplog.set_level("WARNING", "hindsight")
    infill(trained["forward"], other=str(trained["backward"]), prompt=9 * BEFORE, ending=AFTER, length=99)
    assert f"the models see {T} tokens: at most {T // 2} for the middle" in caplog.text


def test_reversed_text_swaps_the_sides_and_turns_the_middle(pair, tokenizer):
    judges = [Judge(reader, "a", 1, reader.name) for reader in (pair.forward, pair.backward)]
    plain, turned = (Judges(judges, tokenizer, order) for order in (TextOrder.reading, TextOrder.reversed))
    config = GenerateConfig(run="a", mode=Mode.infill, length=5, temperature=0.0)
    (found,) = filled(turned, pair, Gap(AFTER, BEFORE, ""), config)
    (same,) = filled(plain, pair, Gap(reverse_text(BEFORE), reverse_text(AFTER), ""), config)
    assert found == same
    assert turned.turned(tokenizer.detokenize(found.join.middle)) == reverse_text(
        plain.turned(tokenizer.detokenize(same.join.middle))
    )


def test_what_cannot_be_filled_is_refused(trained, tmp_path):
    both = {"prompt": BEFORE, "ending": AFTER}
    with pytest.raises(InputError, match=r"reads forward only.*other="):
        infill(trained["forward"], **both)
    with pytest.raises(InputError, match="ending= is required"):
        infill(trained["forward"], other=str(trained["backward"]), prompt=BEFORE)
    with pytest.raises(InputError, match="prompt= is empty"):
        infill(trained["forward"], other=str(trained["backward"]), prompt="", ending=AFTER)
    with pytest.raises(InputError, match="direction=forward is one of two"):
        infill(trained["forward"], direction="forward", **both)
    (tmp_path / "gaps.jsonl").write_text('{"prompt": "a", "ending": "b"}\n{"prompt": "a", "ending": ""}\n')
    with pytest.raises(InputError, match=r"gap 2: ending= is empty"):
        infill(trained["forward"], other=str(trained["backward"]), prompts=str(tmp_path / "gaps.jsonl"))


def test_directions_that_do_not_do_are_refused_before_a_model_is_built(trained, monkeypatch):
    monkeypatch.setattr("language_model.load_trained", lambda run: pytest.fail("a model was built"))
    with pytest.raises(InputError, match=r"reads forward only.*other="):
        infill(trained["forward"], prompt=BEFORE, ending=AFTER)
    with pytest.raises(InputError, match=r"direction=forward is for a run of order=both"):
        generate_text.main(GenerateConfig(run=str(trained["forward"]), mode=Mode.score, text="a", direction="forward"))


def test_fewer_middles_than_samples_are_told(trained, caplog, capsys):
    caplog.set_level("WARNING", "hindsight")
    keys = {"other": str(trained["backward"]), "prompt": BEFORE, "ending": AFTER, "samples": 3}
    infill(trained["forward"], **keys, length=1, temperature=0.0)
    n_middles = len(capsys.readouterr().out.splitlines()) - 1
    assert 0 < n_middles < 3
    assert f"{n_middles} middles, fewer than samples=3" in caplog.text
    caplog.clear()
    infill(trained["forward"], **keys, length=6)
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert not caplog.text


def test_a_person_sees_whole_texts(trained, capsys, monkeypatch):
    keys = {"other": str(trained["backward"]), "prompt": BEFORE, "ending": AFTER, "samples": 3}
    infill(trained["forward"], **keys)
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    infill(trained["forward"], **keys)
    assert capsys.readouterr().out.splitlines() == [
        f"{float(score):9.4f}  {BEFORE}[{middle}]{AFTER}" for score, _, _, middle in rows
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: python -m benchmarks.infilling FORWARD_RUN BACKWARD_RUN"),
        (["nowhere", "nowhere"], "benchmarks.infilling: run=nowhere does not exist"),
        (["forward", "backward"], "its validation data has no sentence of 0 to 0 tokens"),
    ],
)
def test_the_benchmark_tells_in_a_line_what_it_cannot_measure(trained, arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(benchmarks.infilling, "LENGTHS", range(1))
    with pytest.raises(SystemExit) as ended:
        benchmarks.infilling.main([str(trained.get(each, each)) for each in arguments])
    told = capsys.readouterr()
    assert (ended.value.code, told.out, told.err.count("\n")) == (2, "", 1)
    assert message in told.err
