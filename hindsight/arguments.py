"""The arguments of a command before they are composed: hydra's own options, and keys that exist."""

from collections.abc import Iterator, Sequence

from hindsight.config.schemas import CONF_DIR
from hindsight.config.suggestions import suggest
from hindsight.errors import InputError

HYDRA_OPTIONS = {
    **dict.fromkeys(
        ("-m", "--multirun", "-r", "--run", "--hydra-help", "--resolve", "-sc", "--shell-completion"), False
    ),
    **dict.fromkeys(("-i", "--info"), None),
    **dict.fromkeys(("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name"), True),
    **dict.fromkeys(("-cd", "--config-dir", "--experimental-rerun"), True),
}
"""Options that hydra takes, and whether a value follows; None where one of INFO may."""
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
"""Values of --info; the first if none is given."""


def take_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into hydra's options with their values, and all others."""
    options: list[str] = []
    rest: list[str] = []
    waiting = [*arguments]
    while waiting:
        argument = waiting.pop(0)
        name, equals, _ = argument.partition("=")
        takes_value = HYDRA_OPTIONS.get(name, False)
        if name not in HYDRA_OPTIONS or (equals and takes_value is False):
            rest.append(argument)
        elif equals or takes_value is False:
            options.append(argument)
        elif takes_value:
            options += [argument, *waiting[:1]]
            del waiting[:1]
        else:  # with its value, for hydra would take the next argument for it
            options.append(f"--info={waiting.pop(0) if waiting and waiting[0] in INFO else INFO[0]}")
    return options, rest


def check_keys(arguments: Sequence[str], known: Sequence[str]) -> None:
    """Require key=value arguments with keys that exist; InputError that says what was meant."""
    waiting = iter(arguments)
    for argument in waiting:
        key, equals, _ = argument.partition("=")
        name = key.strip().lstrip("-+~").strip().replace("-", "_")
        if argument.startswith("-"):
            raise InputError(f"{argument}: keys have no dashes; write {_meant(name, argument, waiting, known)}.")
        if argument.startswith(("+", "~")) and not name.startswith("hydra"):
            raise InputError(f"{argument}: keys can neither be added nor removed; --help shows all keys.")
        if not equals or any(each.isspace() for each in key):
            raise InputError(f"{argument}: write {_meant(name, argument, waiting, known)}, with = and no spaces.")
        group = key.partition("@")[0]
        if not name.startswith("hydra") and group not in known and not (CONF_DIR / group).is_dir():
            below = [each for each in known if each.startswith(f"{key}.")]
            if not below:
                raise InputError(unknown_key(key, known))
            if not argument.partition("=")[2].startswith("{"):
                meant = suggest(key, known) or f"{below[0]}="
                raise InputError(f"{key}= is no key by itself; did you mean {meant}? --help shows all keys.")


def _meant(name: str, argument: str, following: Iterator[str], known: Sequence[str]) -> str:
    """The right form of an argument such as --direction backward, whose value may follow in the next ones."""
    value = argument.partition("=")[2].strip()
    for each in following:
        value = value or ("" if "=" in each.strip(" =") else each.strip(" ="))
    meant = f"{name}=" if name in known else suggest(name, known) or "key="
    return meant + (value or "VALUE") if meant.endswith("=") else meant


def unknown_key(key: str, known: Sequence[str]) -> str:
    """What to say about a key that does not exist."""
    close = suggest(key, known)
    hint = f"did you mean {close}? " if close else ""
    return f"{key}= is no key of this script; {hint}--help shows all keys."
