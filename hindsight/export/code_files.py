"""The Python files in an exported folder: the model, if transformers does not have it, and what turns text.

The latter is for a model that reads backward. They are modules of this project, and run without it: what they import of
it lies beside them in the folder.
"""

import re
from pathlib import Path
from typing import Any

from hindsight.config.model import ModelConfig
from hindsight.export.reading import HowItReads
from hindsight.files import write_atomically

PACKAGE = Path(__file__).resolve().parents[1]
HERE = PACKAGE / "export" / "in_folder"
TASK = "backward-text-generation"
BACKWARD = HERE / "backward_pipeline.py"
REVERSED = HERE / "reversed_text_pipeline.py"
GRAPHEMES = PACKAGE / "text" / "graphemes.py"


def write_code(config: ModelConfig, reading: HowItReads, folder: Path) -> None:
    """Write those that this model needs."""
    needed = [HERE / f"modeling_{config.own_model_type}.py"] if config.own_model_type is not None else []
    if reading.writes_turned:
        needed += [BACKWARD, REVERSED, GRAPHEMES] if reading.is_reversed_text else [BACKWARD]
    for path in needed:
        beside = re.sub(r"^from hindsight[\w.]*\.(\w+) import", r"from .\1 import", path.read_text("utf-8"), flags=re.M)
        write_atomically(folder / path.name, beside)


def custom_pipelines(reading: HowItReads) -> dict[str, Any]:
    """Give what config.json says of the pipeline, by which `transformers.pipeline` finds it."""
    if not reading.writes_turned:
        return {}
    impl = "reversed_text_pipeline.Reversed" if reading.is_reversed_text else "backward_pipeline.Backward"
    entry = {"impl": f"{impl}TextGenerationPipeline", "pt": ["AutoModelForCausalLM"]}
    return {"custom_pipelines": {TASK: entry}}
