"""Settings of the published code of arXiv:2401.17505, by its model: TrainParams/, for English."""

PAPER = {
    "gpt_nano": (250, 1, 4000, 200_000),
    "gpt_micro": (250, 1, 4000, 200_000),
    "gpt_mini": (250, 1, 4000, 200_000),
    "gpt_small": (250, 1, 4000, 200_000),
    "gpt1": (180, 1, 4000, 300_000),
    "gpt_medium": (90, 2, 4000, 300_000),
    "gpt_xl": (25, 7, 8000, 540_000),
    "gru_small": (200, 1, 4000, 300_000),
    "gru_medium": (250, 1, 4000, 300_000),
    "gru_large": (250, 1, 4000, 300_000),
    "lstm_small": (200, 1, 4000, 300_000),
    "lstm_medium": (250, 1, 4000, 300_000),
    "lstm_large": (250, 1, 4000, 300_000),
}
"""batch_size and aggregate, warmup_steps, oscil_steps."""
