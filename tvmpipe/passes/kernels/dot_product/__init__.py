"""Sums of products of 8-bit integers, four at a time, by the instruction that a processor has for them.

Kernels are written with the operators of `operators.py`, which schedules split and vectorise like any other arithmetic.
`use_instructions` then puts those of one instruction set into a scheduled function; `INSTRUCTION_SETS` lists them.
"""

from tvmpipe.passes.kernels.dot_product.choose import INSTRUCTION_SETS, instructions_of, use_instructions
from tvmpipe.passes.kernels.dot_product.operators import dot4, is_narrow, offset, quad

__all__ = ["INSTRUCTION_SETS", "dot4", "instructions_of", "is_narrow", "offset", "quad", "use_instructions"]
