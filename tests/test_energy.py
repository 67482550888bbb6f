"""energy=true: kWh and CO2e of a run, over all its starts; it changes no loss, and asks nobody."""

import json
import socket
from pathlib import Path

import pytest
from helpers.processes import run_command
from helpers.training_runs import by_step, compose_config, losses, records, settings, train

from hindsight import runs
from hindsight.errors import InputError
from hindsight.runs import read_energy
from hindsight.training.energy import CO2E_KG, KWH

ENERGY = ["energy=true", "energy_country=CHE"]


def test_energy_is_summed_over_starts_and_changes_no_loss(shards: Path, tmp_path: Path, monkeypatch):
    for duration in ("max_duration=3ba", "max_duration=6ba"):
        plain = train(shards, tmp_path, "run_name=plain", duration)
    assert not any(KWH in record for record in records(plain))
    monkeypatch.chdir(tmp_path)  # where codecarbon would leave its files
    before = {*tmp_path.iterdir()}
    asked: list[object] = []
    # Both runs are of one process, which needs no connection: what would ask a server is seen, and goes nowhere.
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: asked.append(address))
    folder = train(shards, tmp_path, "run_name=measured", "max_duration=3ba", *ENERGY)
    first = read_energy(folder)
    assert [each["country"] for each in first] == ["CHE"]
    train(shards, tmp_path, "run_name=measured", *ENERGY)
    assert not asked
    assert {*tmp_path.iterdir()} - before == {folder}
    assert losses(folder) == losses(plain)

    starts = read_energy(folder)
    assert starts[0] == first[0]
    assert len(starts) == 2
    total = json.loads((folder / runs.METADATA).read_text())["energy"]
    for name, key in ((KWH, "kwh"), (CO2E_KG, "co2e_kg")):
        assert all(each[key] > 0 for each in starts)
        assert total[key] == pytest.approx(sum(each[key] for each in starts))
        logged = [*by_step(folder, name).values()]
        assert len(logged) == 6
        assert logged == sorted(logged), "it is what the run has spent so far"
        assert starts[0][key] < logged[-1] <= total[key]
    train(shards, tmp_path, "run_name=measured", "max_duration=7ba")
    assert json.loads((folder / runs.METADATA).read_text())["energy"] == total, (
        "a start that measures nothing adds none"
    )
    assert 0.01 < total["co2e_kg"] / total["kwh"] < 0.2, "kg/kWh of Switzerland"


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_of_a_node_measure_it_once_and_say_nothing_of_codecarbons(shards: Path, tmp_path: Path):
    given = settings(shards, tmp_path, "run_name=a", "max_duration=2ba", *ENERGY)
    done = run_command("composer", "-n", "2", "train_composer.py", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("energy   ") == 2, "what is measured, and in the end the sum"
    assert "[codecarbon" not in done.stdout + done.stderr
    (start,) = read_energy(tmp_path / "a")
    assert start["nodes"] == 1, "one process measures for both"
    total = json.loads((tmp_path / "a" / runs.METADATA).read_text())["energy"]["kwh"]
    assert 0 < by_step(tmp_path / "a", KWH)[2] <= start["kwh"] == total


def test_where_it_cannot_be_measured_one_line_says_so(shards: Path, tmp_path: Path):
    with pytest.raises(InputError, match="energy_country=XYZ is no country of codecarbon"):
        train(shards, tmp_path, "energy=true", "energy_country=XYZ")
    for given in ([], ["energy_country=che"], ["energy_country=Switzerland"]):
        with pytest.raises(InputError, match=r"energy=true needs energy_country=, .* such as CHE; it is"):
            compose_config("train_composer", "direction=forward", "energy=true", *given)
    assert not [*tmp_path.iterdir()]


def test_a_damaged_record_of_energy_is_told(tmp_path: Path):
    (tmp_path / runs.ENERGY).write_text('{"starts": [{"kwh": "much"}]}')
    with pytest.raises(InputError, match="is damaged; remove it"):
        read_energy(tmp_path)
