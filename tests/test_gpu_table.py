import json

from benchmarks.gpu_table import main, rows_of_pair, rows_of_tests


def variant(name: str, seconds: float, mfu: float) -> dict[str, object]:
    return {
        "variant": name,
        "how": "bf16, compiled",
        "mfu": mfu,
        "tokens_per_second": 1000 / seconds,
        "step_seconds": seconds,
        "peak_memory_mib": 5000.0,
        "first_step_seconds": 30.0,
    }


def test_what_is_there_is_shown_and_judged(tmp_path, capsys):
    report = {
        "setup": {"device": "cuda", "model": {"name": "gpt2"}, "batch_size": 32, "context_length": 1024},
        "machine": "a GPU, torch 2.11.0",
        "variants": [variant("bare", 0.1, 0.51), variant("trainer", 0.11, 0.46), variant("huggingface", 0.2, 0.25)],
        "compared_with_recorded": ["Nothing is over 10% slower."],
    }
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "throughput.json").write_text(json.dumps(report))
    (tmp_path / "stages.tsv").write_text("plain\t0\t90\ntests\t1\t30\nforward\t124\t70\nbackward\t125\t0\n")
    (tmp_path / "log.txt").write_text("== tests, at most 9 s: pytest\n1 failed, 2 passed, 3 deselected in 20.01s\n")
    steps = [{"direction": "forward", "step": 1, "train/tokens_per_second": 5.0}]
    (tmp_path / "pair.jsonl").write_text("\n".join(map(json.dumps, steps)))
    main(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a GPU, torch 2.11.0"
    assert lines[-1] == "Nothing is over 10% slower."
    assert [line for line in lines if line.startswith("| ")] == [
        "| what | measured | target | met |",
        "| plain: bare (bf16, compiled), gpt2, 32 x 1024 | MFU 0.510, 10,000 tokens/s, 5,000 MiB, first step after "
        "30 s | MFU ≥ 0.5 | yes |",
        "| plain: trainer (bf16, compiled), gpt2, 32 x 1024 | MFU 0.460, 9,091 tokens/s, 5,000 MiB, first step after "
        "30 s | MFU ≥ 0.5 | NO |",
        "| plain: huggingface (bf16, compiled), gpt2, 32 x 1024 | MFU 0.250, 5,000 tokens/s, 5,000 MiB, first step "
        "after 30 s |  |  |",
        "| plain: tokens/s in the Trainer over the bare loop's | 0.909 | ≥ 0.97 | NO |",
        "| plain: Hugging Face's step over ours | 2.00 |  |  |",
        "| forward on real text, 1 steps | no evaluation, 5 tokens/s |  |  |",
        "| tests marked gpu | 1 failed, 2 passed, 3 deselected | none failed | NO |",
        "| stage plain | done, 90 s | done | yes |",
        "| stage tests marked gpu | failed with status 1, 30 s | done | NO |",
        "| stage train forward | took too long, 70 s | done | NO |",
        "| stage train backward | no time was left, 0 s | done | NO |",
    ]


def test_tests_that_were_stopped_are_counted_by_their_lines(tmp_path):
    log = (
        "\n== tests, at most 150 s: python -m pytest\nearlier\n9 passed in 1.00s\n"
        "\n== tests, at most 150 s: python -m pytest\ncollecting ... collected 70 items / 60 deselected\n\n"
        "tests/test_a.py::test_a[x-gpu] PASSED     [ 10%]\n"
        "tests/test_a.py::test_b[a b] FAILED       [ 20%]\n"
        "tests/test_a.py::test_c PASSED            [ 30%]\n"
        "tests/test_a.py::test_d SKIPPED (why)     [ 40%]\n"
        "tests/test_step.py::test_200_steps[gpu] "
    )
    (row,) = rows_of_tests(log + "\n== forward, at most 70 s: python train_composer.py\n12 passed in 1.00s\n")
    assert str(row) == (
        "| tests marked gpu | 2 passed, 1 failed, 1 skipped, then stopped in tests/test_step.py::test_200_steps[gpu] "
        "| none failed | NO |"
    )
    slow = "\n== slow_tests, at most 200 s: python -m pytest\n=== 3 passed, 1 skipped in 80.00s (0:01:20) ===\n"
    assert [row.met for row in rows_of_tests(log + slow)] == [False, True]
    (none,) = rows_of_tests("== slow_tests, at most 200 s: python -m pytest\nModuleNotFoundError: no composer\n")
    assert (none.value, none.met) == ("none ended, then stopped", False)


def test_a_cut_line_and_a_record_without_tokens_per_second_leave_the_rest_of_the_pair(tmp_path):
    lines = [
        '{"direction": "forward", "step": 1, "train/tokens_per_second": 5.0}',
        '{"direction": "forward", "step": 2, "eval/loss_na',
        '{"direction": "backward", "step": 2, "eval/loss_nats": 3.0}',
        "[1]",
        '{"direction": "back',
    ]
    (tmp_path / "pair.jsonl").write_text("\n".join(lines))
    assert [(row.name, row.value) for row in rows_of_pair(tmp_path)] == [
        ("forward on real text, 1 steps", "no evaluation, 5 tokens/s"),
        ("backward on real text, 2 steps", "3.0000 nats/token, ? tokens/s"),
    ]
