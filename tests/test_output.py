"""What people see of a command: no credentials, nothing that a terminal obeys, and nothing where nobody reads."""

import json
import logging
import os
import subprocess
import sys

import pytest
from helpers.processes import ROOT

from hindsight import output
from hindsight.command_line import run_script
from hindsight.config.conversion import ConvertConfig
from hindsight.config.training import WandbConfig
from hindsight.errors import InputError
from hindsight.s3 import S3Folder
from hindsight.shown_text import holds_credentials, visible, without_credentials

PLANTED = "PLANTED"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://user:PLANTED@host:9000/b", "http://***@host:9000/b"),
        ("s3://AKIA:PLANTED@bucket/a@b", "s3://***@bucket/a@b"),
        ("s3://AKIA:PLAN/TED/PLANTED@bucket/a", "s3://***@bucket/a"),
        ("s3://PLANTED@bucket/a", "s3://***@bucket/a"),
        ("hf://user:PLANTED@datasets/x", "hf://***@datasets/x"),
        ("https://host/x?X-Amz-Signature=PLANTED&a=b", "https://host/x?***"),
        ("azure://box/x?sv=1&sig=PLANTED", "azure://box/x?***"),
        ("https://host/x?AWSAccessKeyId=PLANTED&Expires=1", "https://host/x?***"),
        ("https://host/x?a=b&access_token=PLANTED", "https://host/x?***"),
        ("s3://bucket/202?/x?X-Amz-Security-Token=PLANTED", "s3://bucket/202?***"),
    ],
)
def test_an_address_is_shown_without_its_credentials_wherever_it_stands(address, shown):
    assert holds_credentials(address)
    for text in ("{}", "'{}'", "corpus={} cannot be read", 'at "{}", twice: {}'):
        said = without_credentials(text.format(address, address))
        assert said == text.format(shown, shown)
        assert str(InputError(text.format(address, address))) == said


@pytest.mark.parametrize(
    "address",
    [
        *("s3://bucket/a@b.txt", "http://host:9000/a@b", "s3://bucket/a:b@c", "a:b@c", "tcp://node1:8786", "x?key=a"),
        *("s3://b/part-?/design/*.txt", "s3://b/shard-??-tokens.jsonl", "s3://bucket/2024-0?/keywords/*.gz"),
        *("https://x.org/?design=1", "https://x.org/?a=1&keyword=sea", "s3://b/?/key=1/x", "s3://b/?" + "key" * 30_000),
        "see https://x.org/? The key=a",
    ],
    ids=lambda address: address[:40],
)
def test_an_address_without_credentials_stays_as_it_is(address):
    assert not holds_credentials(address)
    assert without_credentials(address) == address


ADDRESS = f"s3://AKIA:{PLANTED}/x@bucket/folder"
COMMANDS = {
    "convert_to_mds": ["corpus=a", "tokenizer=b", "out=c"],
    "train_tokenizer": ["corpus=a", "out=b"],
    "make_corpus": ["out=a"],
    "inspect_mds": ["path=a"],
    "compare_directions": ["runs=[a,b]", "out=c"],
    "train_composer": ["direction=forward", "data.path=a", "checkpoint.folder=b", "wandb.project=c", "data.val_path=d"],
    "throughput": ["out=a"],
}


def refusal_of(script, arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [f"{script}.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        run_script(script, lambda _: pytest.fail("main was called"))
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    return captured.out + captured.err


@pytest.mark.parametrize("script", COMMANDS)
def test_credentials_in_any_key_are_refused_before_anything_is_written_and_not_repeated(
    script, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    good = COMMANDS[script]
    for number, argument in enumerate(good):
        key = argument.partition("=")[0]
        if key != "direction":
            bad = [*good[:number], f"{key}={ADDRESS}", *good[number + 1 :]]
            said = refusal_of(script, bad, monkeypatch, capsys)
            assert "must not hold keys" in said
            assert PLANTED not in said
    for bad in (f"seeed={ADDRESS}", f"seed={ADDRESS}", f"+out={ADDRESS}", ADDRESS, f"out=[{ADDRESS}"):
        assert PLANTED not in refusal_of(script, [*good, bad], monkeypatch, capsys)
    assert list(tmp_path.iterdir()) == []


def test_credentials_are_refused_where_no_command_line_is_read_too():
    for config in (lambda: ConvertConfig(corpus=ADDRESS, tokenizer="t", out="o"), lambda: WandbConfig(entity=ADDRESS)):
        with pytest.raises(InputError, match="must not hold keys") as refused:
            config()
        assert PLANTED not in str(refused.value)


def test_the_address_of_a_server_is_repeated_without_its_password(monkeypatch):
    monkeypatch.setenv("S3_ENDPOINT_URL", f"http://user:{PLANTED}@127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    from hindsight import s3

    s3._client_of.cache_clear()
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9") as refused:
        S3Folder("s3://bucket/x", "out").sizes()
    s3._client_of.cache_clear()
    assert PLANTED not in str(refused.value)


@pytest.mark.parametrize(
    "argument",
    [
        "run_name=${oc.env:PLANTED_KEY}",
        "run_name=a${oc.env:PLANTED_KEY,none}",
        "run_name=${oc.decode:${oc.env:PLANTED_KEY}}",
        "run_name=${${wandb.project}:PLANTED_KEY}",
        "wandb.project='${oc.env:PLANTED_KEY}'",
        "samples.prompts=[a,'${oc.env:PLANTED_KEY}']",
        "hydra.sweep.dir=${oc.env:PLANTED_KEY}",
        "runs_dir=${now:%Y}",
    ],
)
def test_no_reference_reads_the_environment(argument, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLANTED_KEY", PLANTED + "-value")
    said = refusal_of("train_composer", ["direction=forward", argument], monkeypatch, capsys)
    assert "the environment" in said
    assert PLANTED + "-value" not in said
    assert list(tmp_path.iterdir()) == []


def test_what_a_terminal_would_obey_is_shown_instead():
    assert visible("a\x1b[31mb\x9b1m\r\x07\x00 é\tc\nd 🏳️‍🌈") == "a\\x1b[31mb\\x9b1m\\x0d\\x07\\x00 é\tc\nd 🏳️‍🌈"
    assert visible("user\u202etxt.exe\u2066 \u2028") == "user\\u202etxt.exe\\u2066 \\u2028"
    assert visible(os.fsdecode(b"caf\xe9")) == "caf\\xe9"


CODE = """
import logging, sys
from hindsight.command_line import run_script
def main(config):
    log = logging.getLogger("hindsight")
    for number in range(3000):
        log.info("%s %d", config.out, number)
    open(sys.argv[0] + ".done", "w")
    {more}
run_script("make_corpus", main)
"""


def run_code(tmp_path, name, more="", streams="", **environment):
    """Run a command that logs out= 3000 times, with its streams as the shell makes them."""
    script = tmp_path / "command.py"
    script.write_text(CODE.format(more=more))
    (tmp_path / "name").write_text(name)
    command = f'{sys.executable} {script} "out=$(cat {tmp_path}/name)" {streams}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        timeout=60,
    )


def test_a_closed_pipe_ends_nothing_and_says_nothing(tmp_path):
    done = run_code(tmp_path, "here", streams="| head -1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"here 0\n", b"")
    assert (tmp_path / "command.py.done").exists()
    helped = subprocess.run(
        ["bash", "-c", f"{sys.executable} make_corpus.py --help | true"], cwd=ROOT, capture_output=True, timeout=60
    )
    assert helped.stderr == b""


def test_a_full_disk_below_standard_output_is_one_line_and_status_2_after_the_work(tmp_path):
    done = run_code(tmp_path, "here", streams="> /dev/full")
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "standard output cannot be written (No space left on device); the work goes on without it."
    ]
    assert (tmp_path / "command.py.done").exists()
    status = run_code(tmp_path, "here", more="sys.exit(75)", streams="> /dev/full").returncode
    assert status == 75


def test_closed_streams_take_nothing_and_hurt_nobody(tmp_path):
    done = run_code(tmp_path, "here", streams="<&- >&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "command.py.done").exists()


@pytest.mark.parametrize("encoding", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}])
def test_a_terminal_that_is_not_utf_8_gets_every_line(encoding, tmp_path):
    done = run_code(tmp_path, "données 🙂", **encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout.splitlines()) == 3000
    assert done.stdout.splitlines()[0].decode() in ("donn\\xe9es \\U0001f642 0", "données 🙂 0")


def test_lines_errors_and_tracebacks_of_a_command_send_no_control_characters_and_no_password(tmp_path):
    secret = f"http://u:{PLANTED}@h"
    done = run_code(tmp_path, "a\x1b]0;b\x07", more=f"log.info('x\\x1b {secret}'); raise KeyError('\\x1b {secret}')")
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 1
    assert "Traceback" in done.stderr.decode()
    assert "\x1b" not in said
    assert "\x07" not in said
    assert PLANTED not in said
    assert "a\\x1b]0;b\\x07 0" in said
    (tmp_path / "name").write_text("a\x1bb")
    (tmp_path / os.fsdecode(b"c\xff\x1bb")).write_text("mine")
    command = f"{sys.executable} make_corpus.py out=$(printf '{tmp_path}/c\\xff\\x1bb')"
    refused = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, timeout=60)
    assert refused.returncode == 2
    assert b"c\\xff\\x1bb holds something else" in refused.stderr


def test_other_mistakes_of_a_line_are_still_reported(capsys):
    handler = output.Lines(sys.stdout)
    handler.setFormatter(output.ShownText("%(message)s"))
    handler.handle(logging.LogRecord("a", logging.INFO, "f", 1, "%d", ("x",), None))
    assert "Logging error" in capsys.readouterr().err


def test_corpus_text_with_escapes_is_shown_by_the_commands_that_print_text(tmp_path, shards):
    from test_compare_directions import make_pair

    runs = make_pair(tmp_path)
    (runs[0] / "samples.jsonl").write_text(
        json.dumps({"step": 1, "prompt": "\x1b[2J", "text": "\x1b]0;evil\x07\u202e"})
    )
    command = [sys.executable, "compare_directions.py", f"runs=[{runs[0]},{runs[1]}]", f"out={tmp_path}/out"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, text=True)
    assert done.returncode == 0, done.stderr
    assert "\\x1b]0;evil\\x07\\u202e" in done.stdout
    assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout)
