"""What a start does before its turn, because it would take longer, or be waited for, when it is needed.

Nothing here imports torch or Composer when it is imported.
"""

from functools import cache
from threading import Thread

from hindsight.config.training import TrainConfig, WandbMode
from hindsight.machine import is_first_rank
from hindsight.quick_imports import quick_imports


def import_wandb(config: TrainConfig) -> None:
    """Import Weights & Biases before PyTorch and Composer, if this process is going to log to it.

    Its classes read their own source, for which `inspect.getmodule` goes through all modules that are imported, for
    each class: 1.4 s of CPU time behind Composer's thousands, 0.3 s before them. (wandb 0.31.0; `wandb.init` imports
    its public API, whether or not anything of it is used, and loses that second if it is not here already.)
    """
    if config.wandb.mode is not WandbMode.disabled and not config.sanity_check and is_first_rank():
        with quick_imports():
            import wandb.apis.public  # noqa: F401 - only to be there when `wandb.init` imports it


@cache
def asking_for_processor() -> Thread:
    """Let Composer learn the processor's name in a thread, to be joined before the Trainer is built.

    Trainer.__init__ asks py-cpuinfo 9.0.0, which starts a Python process that sleeps for a second, and Composer 0.32.1
    keeps the answer, of which it logs nothing. Delete this when `Trainer.__init__` asks for no more than it logs:
    https://github.com/mosaicml/composer/blob/v0.32.1/composer/trainer/trainer.py#L1472.
    """
    from composer.utils.collect_env import get_cpu_model

    asking = Thread(target=get_cpu_model, name="processor's name", daemon=True)
    asking.start()
    return asking
