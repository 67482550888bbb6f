"""Let the model of a run write: after a prompt, or, if it was trained backward, what came before it.

python generate_text.py runs/NAME prompt="In the beginning"
"""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
from hindsight import interrupts, output
from hindsight.command_line import run_script
from hindsight.config.generation import GenerateConfig


def main(config: GenerateConfig) -> None:
    """Write, score or fill in."""
    from hindsight.evaluation.opened_run import opened_run
    from hindsight.generation.sampling import Sampling
    from hindsight.generation.writing import last, write
    from hindsight.orders.order import readings_of
    from language_model import load_trained

    interrupts.handle_signals_again()  # importing Composer sets signal handlers
    with opened_run(config.run, config.checkpoint, config.tokenizer) as run:
        module, tokenizer = load_trained(run), run.tokenizer
        reading = next(iter(readings_of(run.order, tokenizer.bos_id).values()))
        prompt = tokenizer.tokenize(config.prompt or "")[0].tolist()
        texts = last(
            write(
                module,
                prompt,
                reading,
                tokenizer.eos_id,
                config.length,
                run.run.context_length,
                Sampling(config.temperature, config.top_k),
                range(config.seed, config.seed + config.samples),
            )
        )
        for text in texts:
            output.say(tokenizer.detokenize(text.known))


if __name__ == "__main__":
    run_script("generate_text", main, alone="run")
