from pathlib import Path

import pytest
import torch
from helpers.training_runs import by_step, train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def final_loss(shards: Path, runs: Path, name: str, *changes: str) -> float:
    run = train(shards, runs, "direction=backward", f"run_name={name}", "max_duration=60ba", *changes)
    return by_step(run, "eval/loss_nats")[60]


def test_mixed_precision_and_compile_end_near_the_loss_of_fp32(shards, tmp_path):
    changes = ["optim.lr=0.01"]
    fp32 = final_loss(shards, tmp_path, "fp32", *changes)
    for name, change in {"bf16": "precision=bf16", "fp16": "precision=fp16", "compiled": "compile=true"}.items():
        assert final_loss(shards, tmp_path, name, *changes, change) == pytest.approx(fp32, abs=0.05)


def test_a_resumed_run_on_a_gpu_has_the_evaluation_of_an_uninterrupted_one(shards, tmp_path):
    changes = ["model.dropout=0.2", "checkpoint.interval=25ba", "optim.schedule=constant", "optim.cooldown_share=0"]
    whole = final_loss(shards, tmp_path, "whole", *changes)
    final_loss(shards, tmp_path, "parts", *changes, "max_duration=25ba")
    assert final_loss(shards, tmp_path, "parts", *changes) == pytest.approx(whole, rel=1e-6)
