"""YAML of this project and of other people: bounded, and names stay what is written.

YAML takes 12e4567 for a number (infinity), 2024_01_05 for 20240105, and null for nothing. Where a key is a text, its
value is taken as it stands in the file. Aliases are refused: eight lines of them make a file of 10**8 values.
"""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from hindsight.config.typed_text import TextKey
from hindsight.errors import InputError

try:
    from yaml import CSafeLoader as Loader
except ImportError:  # PyYAML was built without libyaml: ten times slower
    from yaml import SafeLoader as Loader

SCHEME = "conf"
NO_GROUPS = ("study",)
"""Folders of conf/ whose files are no part of a command's config, so that study= is a key like others."""
MAX_DEPTH = 50
SHALLOW = 20
"""Spaces before a line, each of which may stand for a level."""
SURROGATE = "\\uDC"
"""How YAML writes a byte of a file's name that is no UTF-8; libyaml writes it, and refuses to read it."""


def parse_yaml(text: str, is_text: Callable[[str], bool] | None = None) -> Any:
    """Parse YAML without aliases; ValueError or yaml.YAMLError for what is none.

    Args:
        text: the YAML.
        is_text: tells by a value's full key whether it stays what is written, as all keys then do; that of a list holds
            for its elements. Only null, where it is no element of a list, is nothing.
    """
    _check_events(text)
    if is_text is not None and (root := yaml.compose(text, _loader_of(text))) is not None:
        _keep_texts(root, is_text)
        text = yaml.serialize(root)
    return yaml.load(text, Loader) if SURROGATE not in text else yaml.load(text, yaml.SafeLoader)


def _keep_texts(node: yaml.Node, is_text: Callable[[str], bool], key: str = "") -> None:
    if isinstance(node, yaml.SequenceNode):
        for element in node.value:
            if is_text(key):
                _be_text(element)
            _keep_texts(element, is_text, key)
    elif isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            _be_text(name)
            below = f"{key}.{name.value}" if key else str(name.value)
            if is_text(below) and not value.tag.endswith(":null"):
                _be_text(value)
            _keep_texts(value, is_text, below)


def _be_text(node: yaml.Node) -> None:
    if isinstance(node, yaml.ScalarNode) and not node.style:  # a style is a kind of quotes
        node.tag, node.style = "tag:yaml.org,2002:str", "'"


def _checked_nodes(text: str) -> yaml.Node | None:
    """Compose the tree of YAML's nodes; ValueError if it has aliases or is nested too deeply."""
    _check_events(text)
    return yaml.compose(text, _loader_of(text))


def _loader_of(text: str) -> type[Loader]:
    return Loader if SURROGATE not in text else yaml.SafeLoader


def _is_simple(text: str) -> bool:
    """Tell whether YAML has too few signs and spaces for an alias, or for deep nesting; events take longer to count."""
    n_signs = sum(map(text.count, "-?[{"))
    return "*" not in text and n_signs + SHALLOW < MAX_DEPTH and re.search(f"^ {{{SHALLOW}}}", text, re.M) is None


def _check_events(text: str) -> None:
    """Raise ValueError for YAML with aliases, or that is nested too deeply."""
    if _is_simple(text):
        return
    depth = 0
    for event in yaml.parse(text, _loader_of(text)):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {event.start_mark.line + 1} has an alias (*{event.anchor}), which is not read")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"line {event.start_mark.line + 1} is nested more than {MAX_DEPTH} levels deep")


def _texts(node: yaml.Node, key: str = "") -> Iterator[tuple[str, yaml.ScalarNode]]:
    """All values below a node, with their full keys; those of a list have the list's."""
    if isinstance(node, yaml.ScalarNode):
        yield key, node
    elif isinstance(node, yaml.SequenceNode):
        for element in node.value:
            yield from _texts(element, key)
    elif isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _texts(value, f"{key}.{name.value}" if key else str(name.value))


class ConfFiles(ConfigSource):
    """The files of conf/, in which the values of `text_keys` are what is written there."""

    text_keys: ClassVar[dict[str, TextKey]] = {}
    """What `keep_texts_of_files` was given; hydra makes the instances."""

    @staticmethod
    def scheme() -> str:
        """Name this kind of source in hydra's search path."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file; hydra calls this for each that the defaults name."""
        path = self._file(config_path)
        if not path.is_file():
            raise ConfigLoadError(f"{path} does not exist")
        try:
            text = path.read_text(encoding="utf-8")
            root = _checked_nodes(text)
        except (ValueError, yaml.YAMLError) as error:
            raise InputError(f"{path}: {error}; mend the file.") from None
        group = config_path.rpartition("/")[0].replace("/", ".")
        for key, node in _texts(root) if root is not None else ():
            known = self.text_keys.get(key) or self.text_keys.get(f"{group}.{key}")
            is_null = node.tag.endswith(":null") and known is not None and known.is_optional
            if known is not None and not is_null:
                _be_text(node)
        config = OmegaConf.load(io.StringIO(yaml.serialize(root) if root is not None else ""))
        return ConfigResult(self.provider, self.full_path(), config, self._get_header_dict(text[:512]))

    def available(self) -> bool:
        """Whether the folder is there."""
        return self.is_group("")

    def is_group(self, config_path: str) -> bool:
        """Whether this is a folder of configs, such as model."""
        return config_path not in NO_GROUPS and Path(self.path, config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Whether this is a config, such as model/gpt2."""
        return self._file(config_path).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Names in a folder."""
        files: list[str] = []
        for path in sorted(Path(self.path, config_path).iterdir()):
            self._list_add_result(files, str(Path(config_path, path.name)), path.name, results_filter)
        return files

    def _file(self, config_path: str) -> Path:
        return Path(self.path, self._normalize_file_name(config_path))


class ConfSearchPath(SearchPathPlugin):
    """Has hydra read the files of conf/ by `ConfFiles`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Give the folder of the commands our scheme."""
        for element in search_path.get_path():
            if element.provider == "main" and Path(element.path).is_absolute():
                element.path = f"{SCHEME}://{element.path}"


def keep_texts_of_files(keys: dict[str, TextKey]) -> None:
    """Let hydra read conf/ such that the values of these keys are what is written there."""
    ConfFiles.text_keys = ConfFiles.text_keys | keys
    for plugin in (ConfFiles, ConfSearchPath):
        Plugins.instance().register(plugin)
