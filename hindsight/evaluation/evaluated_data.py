"""What is scored: the run's own data, other data with the same tokenizer, or a text; checked before it is opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hindsight import runs
from hindsight.config.corpus import TextOrder
from hindsight.config.evaluation import EvaluateConfig
from hindsight.config.order import order_of
from hindsight.errors import InputError
from hindsight.evaluation.trained_run import TrainedRun
from hindsight.loading.remote import Remote, cache_folder, fetch_description
from hindsight.loading.windows import SplitWindows
from hindsight.orders.known import open_order
from hindsight.orders.order import Order
from hindsight.shards.manifest import MDS, TOKENIZER_FOLDER, Manifest
from hindsight.tokenization.tokenizer import Tokenizer
from hindsight.training.setup import Location, RunSetup


@dataclass(frozen=True)
class EvaluatedData:
    """What is scored: a split of converted data, or a text.

    Args:
        tokenizer: the run's.
        tokenizer_folder: where that is.
        order: the order in which the run's model reads a window.
        path: where the data is.
        split: train or val; all of a text.
        fingerprint: what stands for its tokens; None for a text, before it is read.
        setup: the run with this split alone, as the loader takes it; None for a text.
        settings: of the conversion of the run's data, on which the tokens of a text depend.
        text_order: whether the text of each document is reversed before it is tokenized.
        caches: folders of what is downloaded.
    """

    tokenizer: Tokenizer
    tokenizer_folder: str
    order: Order
    path: str
    split: str
    fingerprint: str | None
    setup: RunSetup | None
    settings: dict[str, Any]
    text_order: TextOrder
    caches: tuple[Path, ...]


def open_data(run: TrainedRun, config: EvaluateConfig, out: str, batch_size: int) -> EvaluatedData:
    """Read what the data says of itself, and check that it is the run's, or has its tokenizer; on all ranks.

    Args:
        run: the run.
        config: data=, corpus= and split=.
        out: where the losses go, for the name of the cache: no two evaluations share one.
        batch_size: windows that are taken at once.

    Raises:
        InputError: it is missing, damaged, or not what is expected.
    """
    if config.corpus is not None:
        return _open_text(run, config, out)
    split, data = config.split, run.config.data
    own = {"train": data.path, "val": data.val_path or data.path}
    key, paths = ("data", {split: config.data}) if config.data is not None else ("data.path", own)
    places = {name: _locate(run, path, key, out) for name, path in paths.items()}
    manifests = {name: Manifest.load(place.folder, place.key) for name, place in places.items()}
    for name, manifest in manifests.items():
        _check(run, manifest, places[name])
    fingerprint = "+".join(dict.fromkeys(manifest.fingerprint for manifest in manifests.values()))
    if config.data is None and fingerprint != run.metadata[runs.FINGERPRINTS[0]]:
        raise InputError(
            f"data.path={data.path} is not the data that {run.where} was trained on; put that back, or name what "
            "is to be scored by data=."
        )
    beside = str(Path(next(iter(places.values())).folder, TOKENIZER_FOLDER))
    folder = beside if config.data is not None else data.tokenizer or beside
    tokenizer = load_tokenizer(run, folder, "data.tokenizer")
    manifest, place = manifests[split], places[split]
    windows = SplitWindows.of(place.folder, split, manifest, run.context_length, batch_size)
    order = order_of_run(run, tokenizer)
    setup = RunSetup(
        run.config,
        run.name,
        run.folder or Path(run.name),
        tokenizer,
        {split: place},
        {split: manifest},
        {split: windows},
        order,
    )
    caches = tuple({Path(each.folder) for each in places.values() if each.remote is not None})
    text_order = TextOrder.reversed if manifest.is_reversed else TextOrder.reading
    return EvaluatedData(tokenizer, folder, order, paths[split], split, fingerprint, setup, {}, text_order, caches)


def _open_text(run: TrainedRun, config: EvaluateConfig, out: str) -> EvaluatedData:
    """Load the run's tokenizer, and the settings by which its data was made, as far as they are known."""
    assert config.corpus is not None
    given = config.tokenizer or run.config.data.tokenizer
    try:
        place = _locate(run, run.config.data.path, "data.path", out)
        settings = Manifest.load(place.folder, place.key).settings
    except InputError as error:
        if given is None:
            raise InputError(f"{error} Or give the run's tokenizer by tokenizer=.") from None
        # The run itself says the most important one, if it is not too old.
        place, settings = None, {"text_order": order} if (order := run.metadata.get("text_order")) else {}
    beside = str(Path(place.folder, TOKENIZER_FOLDER)) if place is not None else ""
    tokenizer = load_tokenizer(run, given or beside, "tokenizer")
    order = order_of_run(run, tokenizer)
    caches = (Path(place.folder),) if place is not None and place.remote is not None else ()
    text_order = TextOrder(settings.get("text_order", config.text_order))
    return EvaluatedData(
        tokenizer, given or beside, order, config.corpus, "all", None, None, settings, text_order, caches
    )


def load_tokenizer(run: TrainedRun, path: str, key: str) -> Tokenizer:
    """Load a tokenizer; InputError if it is not the run's."""
    tokenizer = Tokenizer.load(path, key)
    _require_fingerprint(run, tokenizer.fingerprint, f"{key}={path}")
    return tokenizer


def order_of_run(run: TrainedRun, tokenizer: Tokenizer) -> Order:
    """Give the order in which the model of a run reads a window."""
    return open_order(order_of(run.config), run.context_length, tokenizer)


def _locate(run: TrainedRun, path: str, key: str, out: str) -> Location:
    """Say where data is, and fetch what describes it, into a cache whose name depends on out."""
    remote = Remote.of(path, run.config.data)
    if remote is None:
        return Location(key, path, None)
    folder = cache_folder(remote, run.config.data, Path(out))
    fetch_description(remote, folder, key)
    return Location(key, str(folder), remote)


@contextmanager
def located(run: TrainedRun, path: str, key: str) -> Iterator[Location]:
    """Say where data is, and keep what describes it, if it is elsewhere, in a folder of this process for as long."""
    remote = Remote.of(path, run.config.data)
    if remote is None:
        yield Location(key, str(Path(path).expanduser()), None)
        return
    with TemporaryDirectory() as folder:
        fetch_description(remote, Path(folder), key)
        yield Location(key, folder, remote)


def _check(run: TrainedRun, manifest: Manifest, place: Location) -> None:
    if place.remote is not None and manifest.format != MDS:
        raise InputError(
            f"{place.key}={place.remote.url} is h5, which is read here only; copy it, or convert it to MDS."
        )
    where = place.remote.url if place.remote is not None else place.folder
    _require_fingerprint(run, manifest.tokenizer_fingerprint, f"{place.key}={where}")


def _require_fingerprint(run: TrainedRun, found: str, where: str) -> None:
    expected = run.metadata[runs.FINGERPRINTS[1]]
    if found != expected:
        raise InputError(
            f"{where} has another tokenizer than {run.where} (fingerprint {found[:12]}, not {expected[:12]}); give "
            "data that was converted with the run's, or the text by corpus=."
        )
