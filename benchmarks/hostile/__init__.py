"""What a hostile neighbour could try, and what comes of it: `python -m benchmarks.hostile`.

Each file here but `sandbox`, `sample` and `row` is a kind of door; `__main__` lists them. A door yields rows of
attempts, each of which must end in success or in one sentence of tvmpipe's own errors.
"""
