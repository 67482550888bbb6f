"""Who may import whom: docs/architecture.md in the form of a test."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

from helpers.processes import ROOT

from hindsight.config.schemas import SCHEMAS

LAYERS = [
    {"installed", "errors", "shown_text", "shown_numbers", "interrupts", "durations", "quick_imports", "chunk_rows"},
    {
        "config",
        "arguments",
        "command_line",
        "yaml_files",
        "output",
        "files",
        "s3",
        "provenance",
        "runs",
        "json_lines",
        "temporary",
        "machine",
    },
    {"text", "tokenization", "shards"},
    {"conversion", "synthetic", "orders", "device", "ranks"},
    {"loading", "generation", "hf_weights", "document_attention", "fused_cross_entropy"},
    {"training", "evaluation", "export", "analysis"},
    {"planning", "studies"},
]
"""Rooms of hindsight/; an import goes to the same layer or one above it in this list."""
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
WITHOUT_TORCH = {room for rooms in LAYERS[:3] for room in rooms} | {
    "conversion",
    "synthetic",
    "analysis",
    "studies",
    "planning",
}
HEAVY = re.compile(r"(torch|composer|streaming|torchmetrics|transformers|wandb|boto3|matplotlib|datasets)\b")
COMMANDS = {path.stem for path in ROOT.glob("*.py")} & set(SCHEMAS)


def modules() -> dict[str, Path]:
    """Every module of the project that is no test, by its full name."""
    folders = ("hindsight", "benchmarks", "jobs")
    paths = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


MODULES = modules()


def imports_of(path: Path, at_start_only: bool = False) -> set[str]:
    """Full names of what a file imports; of those at its start only, without those below TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_start = [*tree.body, *(node for block in tree.body if isinstance(block, ast.With) for node in block.body)]
    nodes = at_start if at_start_only else [*ast.walk(tree)]
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in (node for node in nodes if isinstance(node, ast.ImportFrom)):
        assert node.level == 0, f"{path}: imports are absolute"
        submodules = {f"{node.module}.{alias.name}" for alias in node.names}
        found |= submodules & MODULES.keys() or {node.module or ""}
    return found


def room_of(module: str) -> str:
    return module.split(".")[1]


def is_inside(module: str) -> bool:
    return module.startswith("hindsight.")


def test_every_room_has_its_layer():
    assert {room_of(name) for name in MODULES if is_inside(name)} <= LAYER.keys()


def test_the_package_imports_nothing_from_the_top_level_and_no_layer_from_one_below_it():
    for name, path in MODULES.items():
        for imported in imports_of(path) & MODULES.keys() if is_inside(name) else ():
            assert is_inside(imported), f"{name} imports {imported}"
            assert LAYER[room_of(imported)] <= LAYER[room_of(name)], f"{name} imports {imported}"


def test_commands_are_imported_by_no_module_and_only_benchmarks_call_them():
    for name, path in MODULES.items():
        if not name.startswith("benchmarks."):
            assert not imports_of(path) & COMMANDS, f"{name} imports a command"


def test_no_module_imports_in_a_circle():
    TopologicalSorter({name: imports_of(path) & MODULES.keys() for name, path in MODULES.items()}).prepare()


def imported_at_start(names: set[str]) -> set[str]:
    """All that is imported at once with these modules, by them or by what they import."""
    found: set[str] = set()
    waiting = [*names]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports_of(MODULES[name], at_start_only=True) if name in MODULES else ()
    return found


def test_what_needs_no_torch_imports_nothing_that_takes_seconds_by_itself_or_through_others():
    for name in MODULES:
        if is_inside(name) and room_of(name) in WITHOUT_TORCH:
            heavy = {imported for imported in imported_at_start({name}) if HEAVY.match(imported)}
            assert not heavy, f"{name} imports {heavy}"


def test_train_composer_answers_mistakes_before_what_takes_seconds_is_imported():
    early, late = MODULES["train_composer"].read_text(encoding="utf-8").split("# The imports below take seconds.")
    names = set(re.findall(r"^from (hindsight[\w.]*) import", early, flags=re.MULTILINE))
    names |= {"hindsight.interrupts", "hindsight.runs", "hindsight.studies.sweep"}
    assert not {imported for imported in imported_at_start(names) if HEAVY.match(imported)}
    assert "from composer import" in late


def test_packages_have_empty_init_files():
    assert all(not path.read_text() for path in ROOT.glob("hindsight/**/__init__.py"))


def test_the_top_level_has_few_modules():
    assert len(list(ROOT.glob("*.py"))) <= 20


def test_no_module_is_named_like_a_dependency():
    taken = {"streaming", "composer", "tokenizers", "datasets", "logging", "torch", "wandb", "hydra"}
    assert not taken & {path.stem for path in ROOT.glob("*.py")}
