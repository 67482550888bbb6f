"""The table that benchmarks print."""

from dataclasses import dataclass

HEAD = "| what | measured | target | met |\n|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    value: str
    target: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        verdict = {None: "", True: "yes", False: "NO"}[self.met]
        return f"| {self.name} | {self.value} | {self.target} | {verdict} |"
