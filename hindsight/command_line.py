"""How every script starts: `key=value` arguments, `--help`, one-line errors.

`run_script` composes `conf/<script>.yaml` with the arguments (hydra), checks the result against the dataclasses in
hindsight/config/, and only then calls the script's `main`. Nothing here imports torch.
"""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
import errno
import inspect
import os
import re
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from hindsight import machine, output, temporary
from hindsight.arguments import check_keys, take_options, unknown_key
from hindsight.config.checks import rule_of
from hindsight.config.keys import flatten
from hindsight.config.schemas import CONF_DIR, MODEL_SCHEMAS, SCHEMAS, describe, names_in, shown
from hindsight.config.typed_text import TextKey, as_typed, check_references, text_keys, with_keys, without_sweeps
from hindsight.errors import DISK_FULL, InputError
from hindsight.interrupts import received_signal
from hindsight.provenance import VERSION, git_commit, versions
from hindsight.quick_imports import freeze_imports
from hindsight.yaml_files import keep_texts_of_files

RANK_0_FIRST_S = 20.0
"""How long the other ranks wait for rank 0 to report bad input, in seconds, unless a signal ends them before."""
LONGEST_LINE = 1000
"""Longest message, in characters; the middle of a longer one is left out."""
SWEEP_HELP = """\
  experiment=NAME: many keys at once, from conf/experiment/ ({experiments}); keys given beside it win.
  -m, --multirun: a sweep. Values with commas are tried in all combinations, one run after the other:
      python train_composer.py -m direction=forward,backward seed=1,2
      hydra/launcher=NAME starts them otherwise, for example as jobs, where that plugin of hydra is installed.
  --from-json FILE: print the command that stands for a file of the published code (arXiv:2401.17505); train nothing.
"""
PATH_ERRORS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)
"""Errors of the file system for which a path that the user gave is the cause."""


def register_schemas(*scripts: str) -> None:
    """Register the dataclasses with hydra: of these scripts (of all, if none is named), and of each model."""
    store = ConfigStore.instance()
    for script in scripts or SCHEMAS:
        store.store(name=f"{script}_schema", node=SCHEMAS[script])
        keep_texts_of_files(keys_of_texts(script))
    for kind, schema in MODEL_SCHEMAS.items():
        store.store(group="model", name=f"{kind}_schema", node=schema)


def keys_of_texts(script: str) -> dict[str, TextKey]:
    """The keys of a script whose values stay what was typed."""
    return text_keys(SCHEMAS[script], tuple(MODEL_SCHEMAS.values()))


def configuration_of(script: str, arguments: Sequence[str]) -> Any:
    """Compose the configuration of a script from conf/ and key=value arguments, and check it."""
    register_schemas(script)
    typed = as_typed(arguments, keys_of_texts(script), is_sweep=False)
    with _composing():
        try:
            composed = compose(script, typed)
        except ValueError as error:  # of hydra's, such as for model=null
            raise error if isinstance(error, InputError) else InputError(f"{error} See --help.") from error
    return to_dataclass(composed)


@contextmanager
def _composing() -> Generator[None, None, None]:
    """Let hydra compose from conf/, also within a task of a sweep, which hydra itself has composed."""
    instance = GlobalHydra.instance()
    of_task = instance.hydra
    instance.clear()
    try:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            yield
    finally:
        instance.clear()
        if of_task is not None:
            instance.initialize(of_task)


def to_dataclass(composed: Any) -> Any:
    """Turn hydra's config into its dataclass, which runs the checks of every `__post_init__`."""
    check_references(OmegaConf.to_container(composed, resolve=False))
    return OmegaConf.to_object(composed)


def run_script(script: str, main: Callable[[Any], None], alone: str = "") -> None:
    """Run a script: compose its configuration from `conf/<script>.yaml` and key=value, check it, call `main`.

    Bad input ends with one line on standard error and exit status 2; any other failure with its traceback.

    Args:
        script: its name.
        main: what it does.
        alone: the key of arguments that are given without one, such as folders.
    """
    config = check_arguments(script, alone)
    freeze_imports()
    output.log_to_output()
    # hydra's documented switch: exceptions come through, instead of being shortened and ended with status 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    refused: list[Exception] = []

    def task(composed: Any) -> None:
        try:
            main(to_dataclass(composed))
        except (InputError, OmegaConfBaseException) as error:
            if is_sweep():
                raise  # hydra names the run, goes on with the others, and raises it at the end
            refused.append(error)  # raised below: hydra would print its own lines first

    with one_line_errors(script):
        temporary.use_own_folder()
        if config is not None:
            main(config)
        else:
            hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=script)(task)()
        if refused:
            raise refused[0]
    if output.exit_status():
        sys.exit(output.exit_status())


def is_sweep() -> bool:
    """Whether this is one of several tasks that hydra starts (-m): one that raises an error keeps no other."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def check_arguments(script: str, alone: str = "") -> Any:
    """Show --help, or refuse bad arguments; a script may do so before it imports what takes seconds.

    Returns:
        The configuration; None if hydra's own options, such as --multirun, have to say what the arguments mean.
    """
    output.prepare_output()
    with one_line_errors(script):
        machine.give_home()
        if script == "train_composer":
            machine.check_launch()
    if "--version" in sys.argv[1:]:
        output.say(version_text())
        sys.exit(output.exit_status())
    with one_line_errors(script):
        keys = keys_of_texts(script)
        options, rest = take_options(sys.argv[1:])
        rest = with_keys(rest, alone, keys)
        is_multirun = bool({"-m", "--multirun"} & set(options))
        if {"--help", "-h"} & set(rest):
            given = [each for each in rest if "=" in each and each[0].isalpha() and not each.startswith("hydra")]
            output.say(help_text(script, without_sweeps(as_typed(given, keys, True)) if is_multirun else given))
            sys.exit(output.exit_status())
        check_keys(rest, [row[0] for row in describe(SCHEMAS[script])])
        if not options and not any(argument.lstrip("+~").startswith("hydra") for argument in rest):
            return configuration_of(script, rest)
        register_schemas(script)
        sys.argv[1:] = [*options, *as_typed(rest, keys, is_multirun)]
        return None


@contextmanager
def one_line_errors(script: str) -> Generator[None, None, None]:
    """End with one line on standard error and status 2 where the user's input is at fault."""
    try:
        yield
    except (InputError, HydraException, OmegaConfBaseException, OSError) as error:
        if not isinstance(error, InputError | HydraException | OmegaConfBaseException) and not (
            error.errno in DISK_FULL or (error.filename is not None and error.errno in PATH_ERRORS)
        ):
            raise
        if not machine.is_first_rank():
            # Composer's launcher returns the status of the first rank to end, and ends the others: wait for rank 0.
            deadline = time.monotonic() + RANK_0_FIRST_S
            while time.monotonic() < deadline and received_signal() is None:
                time.sleep(0.05)
        output.say_error(f"{program(script)}: {one_line(explain(error, SCHEMAS[script]))}")
        sys.exit(2)
    except KeyboardInterrupt:
        output.say_error(f"{program(script)}: interrupted.")
        sys.exit(130)


def one_line(text: str) -> str:
    """A message as a line that people can read, whatever long value it repeats."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 :]}"


def program(script: str) -> str:
    """Name a script as its user called it: by its file, or by its module if it is a package of benchmarks/."""
    is_benchmark = (CONF_DIR.parent / "benchmarks" / script).is_dir()
    return f"benchmarks.{script}" if is_benchmark else f"{script}.py"


def explain(error: BaseException, schema: type) -> str:
    """One line for an error of the user's: the key, the rule, the way out."""
    if isinstance(error, InputError):
        text = str(error)
        if "Original Traceback" in text:  # PyTorch puts it before the message of a data worker
            text = text.rsplit("InputError: ", 1)[-1]
        return " ".join(text.split())
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return f"{error.filename or 'what is written'}: the disk is full; make room, and start again."
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return f"{error.filename}: {error.strerror}; choose another path, or change what is there."
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split("full_key:")[0].split())
    key = str(getattr(error, "full_key", "") or "")
    if isinstance(error, MissingMandatoryValue) or "missing mandatory value" in text.lower():
        key = key or text.rsplit(" ", 1)[-1]
        described = {row[0]: row[3] for row in describe(schema)}
        return f"{key}= is required: {described.get(key, 'see --help.')}"
    if "is not in struct" in text or ("not in" in text and key):
        known = [row[0] for row in describe(schema)]
        if key in known:
            return f"{key}= is no key of this kind of model; choose another model= or drop it."
        return unknown_key(key, known)
    if (
        match := re.search(r"Could not find '(hydra/\w+)/(\S+)' Available options in '\S+': (.*?) Config", text)
    ) is not None:
        return f"{match[1]}={match[2]} does not exist; choose one of {', '.join(match[3].split())}."
    if (match := re.search(r"Could not find '(\w+)/(\S+)'", text)) is not None and names_in(match[1]):
        return f"{match[1]}={match[2]} does not exist; choose one of {', '.join(names_in(match[1]))}."
    if (rule := rule_of(schema, key)) and (match := re.search(r"^Value '(.*)' of type '\w+' is incompatible", text)):
        return f"{key}={match[1]} {rule}."
    return f"{key}: {text}; see --help." if key else f"{text}; see --help."


def help_text(script: str, arguments: Sequence[str] = ()) -> str:
    """What `--help` prints: every key with its type, the value that is used if it is not given, and its docstring.

    Args:
        script: name of the script.
        arguments: key=value that are given beside --help; model=NAME shows what is used with that model.
    """
    schema = SCHEMAS[script]
    command = program(script) if program(script).endswith(".py") else f"-m {program(script)}"
    lines = [f"python {command} key=value ...", "", inspect.cleandoc(schema.__doc__ or ""), ""]
    used = used_values(script, arguments)
    for key, kind, default, doc in describe(schema):
        if key in used:
            default = "required" if used[key] == MISSING else f"default {shown(used[key])}"
        lines.append(f"  {key}=  ({kind}{'; ' + default if default else ''})")
        lines.append(f"      {doc}")
    lines.append("")
    if "model" in used:
        lines.append(f"Defaults are those of model={used['model']}; model=NAME --help shows those of another model.")
    if script == "train_composer":
        lines += ["", *SWEEP_HELP.format(experiments=", ".join(names_in("experiment"))).splitlines()]
    lines.append("--version: versions of this project and of what it computes with. hydra's own options: --hydra-help.")
    return "\n".join(lines)


def version_text() -> str:
    """What `--version` prints."""
    commit = git_commit()
    used = ", ".join(f"{package} {version}" for package, version in versions().items())
    return f"Hindsight {VERSION}{f' (commit {commit})' if commit else ''}\n{used}"


def used_values(script: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The value of each key by its full name, as a script would get it; MISSING where a required key is not given."""
    register_schemas(script)
    typed = as_typed(arguments, keys_of_texts(script), is_sweep=False)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = OmegaConf.to_container(compose(script, typed), enum_to_str=True)
    values = flatten(cast("dict[Any, Any]", composed))
    return values | {"model": values["model.name"]} if script in ("train_composer", "plan") else values
