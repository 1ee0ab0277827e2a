"""Planners: a placement problem in, a placement with its figure and the bound that was proven out.

Nothing here knows Relax, ONNX or clusters; `problem` says what all of it works on.
"""
