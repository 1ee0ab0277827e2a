"""`python -m tvmpipe`."""

from tvmpipe.cli import main

main()
