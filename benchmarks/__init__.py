"""Measurements of this project against its yardsticks, each taken in turns with them in one run."""
