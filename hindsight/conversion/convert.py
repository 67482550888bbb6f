"""Bring a corpus into stored tokens: what the converters share.

sources.py and stored.py divide what there is into parts; workers.py has processes make their tokens, and cluster.py
those of other machines; assembly.py puts them together in order, and remembers what is done; mds.py writes shards. The
result appears as a whole, the manifest last.
"""

import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from hindsight.config.conversion import ConvertConfig, Engine
from hindsight.config.corpus import OnError
from hindsight.conversion.assembly import RESULT_NAME, Assembly, Sink
from hindsight.conversion.corpus_statistics import length_summary, vocabulary_use
from hindsight.conversion.outputs import Output, open_output
from hindsight.conversion.text_source import Source, Text
from hindsight.conversion.token_sources import H5_NAME, ConvertedTokens, PublishedTokens
from hindsight.conversion.workers import OpenWorkers, available_cores, fingerprint_of, forked, here, run
from hindsight.errors import DISK_FULL, InputError
from hindsight.files import locked
from hindsight.shards.manifest import MANIFEST_NAME, TOKENIZER_FOLDER, Manifest, token_dtype
from hindsight.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hindsight")

TOKENIZER_FILES = ("tokenizer*.json", "*_tokens*.json", "vocab.json", "merges.txt", "hindsight.json")
OpenSink = Callable[[Path, Manifest, int, Output], Sink]


def convert(
    config: ConvertConfig, format_name: str, storage: dict[str, str | list[str] | None], sink: OpenSink
) -> None:
    """Convert a corpus, unless the same result is there; go on where an earlier attempt was.

    Args:
        config: the script's configuration.
        format_name: mds or h5.
        storage: the settings of the format that the stored files depend on.
        sink: opens the sink in a folder, for a conversion with that plan, with the id that fills up blocks.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # here processes are what is parallel, and threads forbid to fork
    out = open_output(config)
    tokenizer = Tokenizer.load(config.tokenizer)
    source = open_source(config, tokenizer)
    open_workers = engine_of(config, out.work)
    plan = plan_of(config, format_name, storage, source, tokenizer)
    if out.is_done():
        check_done(out, plan, source, open_workers, config.on_error)
        out.clean()
        return
    with locked(out.work, f"out={config.out}: another process converts into it"):
        out.check_free()
        assembly = Assembly(
            out.work,
            plan,
            sink(out.work / RESULT_NAME, plan, tokenizer.pad_id or 0, out),
            keep_hashes=source.counts_documents and source.fingerprint is None,
            out=out.name,
            val_below=source.val_below,
            may_skip=config.on_error is OnError.skip,
        )
        begun = assembly.is_begun()
        try:
            assembly.resume()
            if begun:
                log.info("out=%s: going on where it was, after %d parts.", config.out, assembly.taken)
            source.prepare()
            run(source, assembly, open_workers)
            complete(out, assembly, source, tokenizer, Path(config.tokenizer).expanduser())
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise InputError(
                f"out={config.out}: the disk is full; make room, and the same command goes on where it was."
            ) from error
        except KeyboardInterrupt:
            log.info("out=%s: interrupted; the same command goes on where it was.", config.out)
            raise SystemExit(130) from None
        except InputError as error:
            if not begun and assembly.val_below is None:  # nothing is stored, and hardly anything done
                shutil.rmtree(out.work)
                raise
            raise InputError(f"{error} What is done stays in {out.work}.") from error
    log_summary(config.out, plan)


def open_source(config: ConvertConfig, tokenizer: Tokenizer) -> Source:
    """Recognize what corpus= names: a folder that was converted before, an h5 file of tokens, or text."""
    path = Path(config.corpus).expanduser()
    folder = path if path.is_dir() else path.parent
    if (folder / MANIFEST_NAME).is_file() and (path.is_dir() or path.name == H5_NAME):
        return ConvertedTokens(folder, Manifest.load(folder, key="corpus"), tokenizer)
    if path.suffix in (".h5", ".hdf5") and path.is_file():
        return PublishedTokens(path, config, tokenizer)
    return Text(config, tokenizer)


def engine_of(config: ConvertConfig, work: Path) -> OpenWorkers:
    """Choose what makes the tokens."""
    n_workers = config.workers or available_cores()
    if config.engine is Engine.local:
        return partial(forked, n_workers=n_workers) if n_workers > 1 else here
    from hindsight.conversion.dask_workers import on_dask  # here, because its imports take a second

    return partial(on_dask, config=config, work=work)


def plan_of(
    config: ConvertConfig,
    format_name: str,
    storage: dict[str, str | list[str] | None],
    source: Source,
    tokenizer: Tokenizer,
) -> Manifest:
    """Say what is to be made; counts and the corpus fingerprint are not known yet."""
    dtype = token_dtype(tokenizer.vocab_size)
    return Manifest(
        format=format_name,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        corpus_fingerprint=source.fingerprint or "",
        block_length=config.block_length,
        blocks_per_shard=max(1, config.shard_bytes // (config.block_length * np.dtype(dtype).itemsize)),
        dtype=dtype,
        seed=source.seed,
        val_share=source.val_share,
        settings={**source.origin, **storage},
        corpus={"path": config.corpus, "files": source.files, "stored": source.total, "stamp": source.stamp},
    )


def check_done(out: Output, plan: Manifest, source: Source, open_workers: OpenWorkers, on_error: OnError) -> None:
    """Say that there is nothing to do; InputError if `out` holds something else than what this plan would make."""
    there = out.manifest()
    difference = there.difference(plan, ignored=("corpus_fingerprint",))
    if there.summary.get("skipped") and on_error is OnError.stop:
        difference = "on_error=skip (now stop), which left something out"
    if difference is None and (there.corpus.get("stamp") is None or there.corpus["stamp"] != source.stamp):
        plan.corpus_fingerprint = source.fingerprint or fingerprint_of(source, open_workers).fingerprint
        difference = there.difference(plan)
    if difference is not None:
        raise InputError(f"out={out.name} holds a conversion with {difference}; choose another out, or remove it.")
    log.info("out=%s: already there, nothing to do.", out.name)


def complete(out: Output, assembly: Assembly, source: Source, tokenizer: Tokenizer, tokenizer_folder: Path) -> None:
    """Write what is last, the manifest last of all, and bring the result to its place."""
    plan, result = assembly.plan, out.work / RESULT_NAME
    plan.splits, said = assembly.finish()
    if not source.counts_documents:
        for counts in plan.splits.values():
            counts.documents = None
    plan.corpus_fingerprint = source.fingerprint or assembly.digest.fingerprint
    counts = sum(assembly.token_counts.values(), np.zeros(tokenizer.vocab_size, np.int64))
    plan.summary = {
        "tokens_per_document": length_summary(assembly.lengths),
        "duplicate_documents": assembly.duplicates(),
        "empty_documents": assembly.empty,
        "skipped": assembly.n_problems,
        "skipped_list": assembly.problems,
        **(source.summary or vocabulary_use(counts, tokenizer)),
        **said,
    }
    copy_tokenizer(tokenizer_folder, result / TOKENIZER_FOLDER)
    plan.save(result)
    out.complete(result)


def copy_tokenizer(folder: Path, copy: Path) -> None:
    """Copy a tokenizer folder, without models that may lie in it."""
    copy.mkdir(exist_ok=True)
    for path in sorted({path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)}):
        shutil.copyfile(path, copy / path.name)


def log_summary(out: str, manifest: Manifest) -> None:
    """Tell the user what was made."""
    for line in manifest.describe():
        log.info("out=%s: %s", out, line)
