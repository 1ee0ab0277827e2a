"""Print the golden modules, or write those after their rewrite anew."""

from __future__ import annotations

import click

from tests.passes.rewrite.golden import cases, rewritten


@click.command(help=__doc__)
@click.option("--write", is_flag=True, help="Write all `after` files.")
@click.argument("names", nargs=-1)
def main(write: bool, names: tuple[str, ...]) -> None:
    for case in cases():
        if names and not case.name.startswith(names):
            continue
        before, after = rewritten(case)
        if write and not case.unchanged:
            case.after.write_text(after, encoding="utf-8")
        click.echo(f"## {case.name}\n{before}\n->\n{'the same' if before == after else after}\n")


if __name__ == "__main__":
    main()
