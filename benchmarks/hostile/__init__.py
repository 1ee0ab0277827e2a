"""What a hostile neighbour could try, and what comes of it: `python -m benchmarks.hostile`.

`manifests` and `tars` try mutated files; each attempt must end in success or in one sentence of tvmpipe's own errors.
`users` and `neighbours` try what really runs, from another user's processes and from another machine; what is
expected of each door stands in its list, and whoever may come in must still get in.
"""
