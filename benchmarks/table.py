"""The Markdown table that benchmarks print."""

from dataclasses import dataclass

HEAD = "| what | measured | target | met |\n|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    value: str
    target: str = ""
    """The target as text, such as "≤ 1.2"; empty if there is none."""
    met: bool | None = None
    """Whether the target is met; None if there is none."""

    def __str__(self) -> str:
        verdict = {None: "", True: "yes", False: "NO"}[self.met]
        return f"| {self.name} | {self.value} | {self.target} | {verdict} |"
