"""A conversion, from its configuration to its result: corpus -> parts -> tokens -> files of a format.

source.py, text_source.py and token_sources.py divide the corpus into parts, and make the tokens of a part; workers.py
has processes of this machine do that, dask_workers.py those of other machines. assembly.py takes the parts in order;
work_folder.py keeps what is done. sinks.py stores the tokens, outputs.py moves the files to their place: a local folder
appears atomically, and on object storage the manifest is the last file.
"""

import logging
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np

from hindsight.config.conversion import ConvertConfig, Engine
from hindsight.config.corpus import OnError, TextOrder
from hindsight.conversion.assembly import Assembly
from hindsight.conversion.corpus_statistics import length_summary, vocabulary_use
from hindsight.conversion.mds_source import OtherMds, holds_mds
from hindsight.conversion.outputs import Output, open_output
from hindsight.conversion.sinks import Sink
from hindsight.conversion.source import Source
from hindsight.conversion.text_source import SPLIT_BY, SPLIT_CONTENTS, TextSource
from hindsight.conversion.token_sources import ConvertedTokens, PublishedTokens
from hindsight.conversion.work_folder import WorkFolder
from hindsight.conversion.workers import OpenWorkers, available_cores, fingerprint_of, forked, in_this_process, run
from hindsight.errors import DISK_FULL, InputError
from hindsight.files import locked
from hindsight.shards.h5 import H5_NAME, H5_SUFFIXES
from hindsight.shards.manifest import FEW_DOCUMENTS, MANIFEST_NAME, TOKENIZER_FOLDER, Manifest, token_dtype
from hindsight.shards.mds import blocks_in
from hindsight.text.finding import describe_not_taken
from hindsight.tokenization.hf_folder import copy_tokenizer
from hindsight.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hindsight")


def convert(config: ConvertConfig, sink: type[Sink]) -> None:
    """Convert a corpus, unless the same result is there; continue an earlier attempt.

    Args:
        config: the command's configuration.
        sink: the class for the format.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # processes run in parallel; threads would make forking unsafe
    settings = sink.settings(config)
    out = open_output(config)
    tokenizer = Tokenizer.load(config.tokenizer)
    is_done = out.is_done()
    source = open_source(config, tokenizer, rule_of_split(out, is_done))
    if config.text_order is TextOrder.reversed and not isinstance(source, TextSource):
        raise InputError(
            f"text_order=reversed is for text, and corpus={config.corpus} holds tokens, which stay in their order; "
            "convert the text that they were made from, or leave text_order out."
        )
    if source.not_taken:
        log.warning("corpus=%s: files that are not taken: %s.", config.corpus, describe_not_taken(source.not_taken))
    open_workers = engine_of(config, out.work)
    manifest = manifest_of(config, sink.format, settings, source, tokenizer)
    if is_done:
        check_done(out, manifest, source, open_workers, config)
        out.clean()
        return
    with locked(out.work, f"out={config.out}: another process converts into it"):
        out.check_free()
        files = WorkFolder(out.work, keep_hashes=source.counts_documents and source.fingerprint is None)
        assembly = Assembly(
            files,
            manifest,
            sink(files.result, manifest, tokenizer.pad_id or 0, out),
            out=out.name,
            val_below=source.val_below,
            may_skip=config.on_error is OnError.skip,
        )
        begun = files.is_begun()
        if begun:
            keep_earlier_size(manifest, files.load()[0], config)
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
            if not begun and assembly.progress.val_below is None:  # nothing is stored, and next to nothing done
                shutil.rmtree(out.work)
                raise
            raise InputError(f"{error} What is done stays in {out.work}.") from error
    log_summary(config.out, manifest)


def rule_of_split(out: Output, is_done: bool) -> str:
    """Give the rule by which what is there, or was begun, is split, so that it goes on; else the present one."""
    work = WorkFolder(out.work, keep_hashes=False)
    there = out.manifest() if is_done else work.load()[0] if work.is_begun() else None
    rule = there.settings.get("split_by") if there is not None else None
    return rule if rule in SPLIT_CONTENTS else SPLIT_BY


def open_source(config: ConvertConfig, tokenizer: Tokenizer, split_by: str = SPLIT_BY) -> Source:
    """Recognize what corpus= names: a converted folder, an h5 file of tokens, or text."""
    path = Path(config.corpus).expanduser()
    folder = path if path.is_dir() else path.parent
    if (folder / MANIFEST_NAME).exists() and (path.is_dir() or path.name == H5_NAME):
        return ConvertedTokens(folder, Manifest.load(folder, key="corpus"), tokenizer)
    if path.is_dir() and holds_mds(path):
        return OtherMds(path, config, tokenizer)
    if path.suffix in H5_SUFFIXES and path.exists() and not path.is_dir():
        if not path.is_file():
            raise InputError(f"corpus={path} is no regular file, from which h5 could be read; store it first.")
        return PublishedTokens(path, config, tokenizer)
    return TextSource(config, tokenizer, split_by)


def engine_of(config: ConvertConfig, work: Path) -> OpenWorkers:
    """Choose the workers that make the tokens."""
    n_workers = config.workers or available_cores()
    if config.engine is Engine.local:
        return partial(forked, n_workers=n_workers) if n_workers > 1 else in_this_process
    from hindsight.conversion.dask_workers import on_dask  # imported late: it takes a second

    return partial(on_dask, config=config, work=work)


def manifest_of(
    config: ConvertConfig,
    format_name: str,
    settings: dict[str, str | list[str] | None],
    source: Source,
    tokenizer: Tokenizer,
) -> Manifest:
    """Describe the conversion; its counts and mostly its corpus fingerprint are not known yet."""
    dtype = token_dtype(tokenizer.vocab_size)
    return Manifest(
        format=format_name,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        corpus_fingerprint=source.fingerprint or "",
        block_length=config.block_length,
        blocks_per_shard=blocks_in(config.shard_bytes, config.block_length, np.dtype(dtype).itemsize),
        dtype=dtype,
        seed=source.seed,
        val_share=source.val_share,
        settings={**source.origin, **settings},
        corpus={
            "path": config.corpus,
            "files": source.files,
            "not_taken": dict(source.not_taken),
            "stored": source.total,
            "stamp": source.stamp,
        },
    )


def keep_earlier_size(manifest: Manifest, there: Manifest, config: ConvertConfig) -> None:
    """Let a conversion of an earlier version keep its size of shards, for which only tokens were counted."""
    earlier = max(1, config.shard_bytes // (config.block_length * np.dtype(manifest.dtype).itemsize))
    if there.blocks_per_shard == earlier:
        manifest.blocks_per_shard = earlier


def check_done(
    out: Output, manifest: Manifest, source: Source, open_workers: OpenWorkers, config: ConvertConfig
) -> None:
    """Log that there is nothing to do; InputError if `out` holds another conversion."""
    there = out.manifest()
    keep_earlier_size(manifest, there, config)
    difference = there.difference(manifest, ignored=("corpus_fingerprint",))
    if there.summary.get("skipped") and config.on_error is OnError.stop:
        difference = "on_error=skip (now stop), which left something out"
    if difference is None and (there.corpus.get("stamp") is None or there.corpus["stamp"] != source.stamp):
        manifest.corpus_fingerprint = source.fingerprint or fingerprint_of(source, open_workers).fingerprint
        difference = there.difference(manifest)
    if difference is not None:
        raise InputError(f"out={out.name} holds a conversion with {difference}; choose another out, or remove it.")
    log.info("out=%s: already there, nothing to do.", out.name)


def complete(out: Output, assembly: Assembly, source: Source, tokenizer: Tokenizer, tokenizer_folder: Path) -> None:
    """Complete the result, write the manifest as its last file, and move it to its place."""
    manifest, result, progress = assembly.manifest, assembly.files.result, assembly.progress
    manifest.splits, added = assembly.finish()
    if not source.counts_documents:
        for counts in manifest.splits.values():
            counts.documents = None
    manifest.corpus_fingerprint = source.fingerprint or progress.digest.fingerprint
    counts = sum(progress.token_counts.values(), np.zeros(tokenizer.vocab_size, np.int64))
    manifest.summary = {
        "tokens_per_document": length_summary(progress.lengths),
        "duplicate_documents": assembly.duplicates(),
        "empty_documents": progress.empty,
        "marks": dict(sorted(progress.marks.items())),
        "skipped": progress.n_problems,
        "skipped_list": progress.problems,
        **(source.summary or vocabulary_use(counts, tokenizer)),
        **added,
    }
    copy_tokenizer(tokenizer_folder, result / TOKENIZER_FOLDER)
    manifest.save(result)
    out.complete(result)


def log_summary(out: str, manifest: Manifest) -> None:
    """Log counts and statistics of the result."""
    for line in manifest.describe():
        log.info("out=%s: %s", out, line)
    n_documents = manifest.splits["val"].documents
    if n_documents is not None and n_documents < FEW_DOCUMENTS:
        log.warning(
            "out=%s: few documents to validate on (%d); a comparison asks for %d: convert with a larger val_share.",
            out,
            n_documents,
            FEW_DOCUMENTS,
        )
