"""Each claim in the README as a script that prints its table."""
