"""Writes README.md's table of speed and equality from the results of `kernels` and `equality`.

python -m benchmarks.readme_table
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- table: python -m benchmarks.readme_table -->\n", "<!-- end of table -->\n"


def ratios(text: str) -> dict[str, dict[tuple[str, str], str]]:
    """Of `kernels.txt`: model -> (processor, threads) -> time over ONNX Runtime's."""
    found: dict[str, dict[tuple[str, str], str]] = {}
    processor = ""
    for line in text.splitlines():
        if "; apache-tvm " in line:
            processor = line.partition(";")[0].removesuffix(" Processor").replace("(R)", "")
        words = line.split()
        if len(words) == 10 and words[1].isdigit():
            found.setdefault(words[0], {})[processor, words[1]] = f"{float(words[4]):.2f}"
    return found


def errors(text: str) -> dict[str, tuple[int, str]]:
    """Of `equality.txt`: model -> (stages, largest difference over the largest value)."""
    rows = ([cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│"))
    return {row[0]: (len(row[1].split()), row[2]) for row in rows}


def table() -> str:
    """The table in Markdown: a model a row."""
    speed, equal = ratios((RESULTS / "kernels.txt").read_text()), errors((RESULTS / "equality.txt").read_text())
    columns = sorted({column for row in speed.values() for column in row})
    titles = [f"{processor}, {threads} thread{'s' * (threads != '1')}" for processor, threads in columns]
    lines = [["model", *titles, "stages", "error"], ["---"] * (len(columns) + 3)]
    for model, row in speed.items():
        name = model.removeprefix("light_")
        stages, error = equal.get(name, ("", ""))
        lines.append([name, *(row.get(column, "") for column in columns), str(stages), error])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def filled(readme: str) -> str:
    """`readme` with the table of now between its two comments."""
    pattern = re.compile(re.escape(START) + ".*?" + re.escape(END), re.DOTALL)
    return pattern.sub(lambda _: f"{START}\n{table()}\n{END}", readme)


def main() -> None:
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
