"""Exported folders on a hub."""

import huggingface_hub
import pytest
from helpers.exports import export
from helpers.hub import Hub
from helpers.processes import run_command

from hindsight.errors import InputError


@pytest.mark.slow
@pytest.mark.dist
def test_a_folder_is_pushed_to_a_hub_whole_and_by_a_token_that_is_never_shown(trained, tmp_path, monkeypatch):
    given = [f"run={trained['gru']}", f"out={tmp_path / 'out'}", "push=me/gru-back"]
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", "")
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        done = run_command("python", "export_hf.py", *given)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "push=me/gru-back needs a token: log in with `hf auth login`, or set HF_TOKEN." in done.stderr
        assert not (tmp_path / "out").exists()
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        done = run_command("python", "export_hf.py", *given)
        assert done.returncode == 0, done.stderr
        assert f"pushed   {hub.endpoint}/me/gru-back/commit/" in done.stdout
    assert hub.tokens == {"Bearer hf_secret"}
    assert "hf_secret" not in done.stdout + done.stderr
    assert hub.created == [{"name": "gru-back", "organization": "me", "private": True}]
    assert hub.files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {"modeling_hindsight_rnn.py", "model.safetensors", "README.md"} <= hub.files.keys()


def test_where_the_hub_fails_the_folder_stays_and_the_same_command_uploads_it(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    def push_to(endpoint: str) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        export(trained["gru"], tmp_path / "out", "push=me/gru-back", "private=false")

    with pytest.raises(InputError, match=r"^push=me/gru-back: the Hub did not take it \(.*\); nothing was written\.$"):
        push_to("http://127.0.0.1:9")
    assert not (tmp_path / "out").exists()
    with Hub(refuses="/commit/") as hub, pytest.raises(InputError, match="and the same command uploads it"):
        push_to(hub.endpoint)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    with Hub() as hub:
        push_to(hub.endpoint)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    assert hub.files.keys() == {path.name for path in before}
    assert hub.created[0]["private"] is False
