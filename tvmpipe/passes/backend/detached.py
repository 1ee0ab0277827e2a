"""A fused module without its weights, as text, and the module again from the text and the files that have them.

In the text a weight is a parameter of `main` that is called after it; so it is as long as the model's code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from tvmpipe.errors import BundleError
from tvmpipe.passes.graph.primitives import map_tensors
from tvmpipe.passes.graph.weights import Weight, WeightPool

_PREFIX = "weight."


def detached(module: Any, pool: WeightPool) -> str:
    """A fused module as TVM's JSON, its tensor constants by their names in `pool`."""
    import tvm
    from tvm import relax

    parameters: dict[str, Any] = {}

    def parameter(constant: Any) -> Any:
        name = pool.find(constant).name
        return parameters.setdefault(name, relax.Var(f"{_PREFIX}{name}", constant.ty))

    blocks = _blocks(module, lambda variable: variable, parameter)
    return str(tvm.ir.save_json(_with_main(module, [*module["main"].params, *parameters.values()], blocks)))


def attached(text: str, weights: Mapping[str, NDArray[Any]], pool: WeightPool) -> Any:
    """The fused module that `detached` wrote; its constants are the memory of `weights` and known to `pool`.

    Raises BundleError where the text is none, or a weight is missing.
    """
    import tvm
    import tvm_ffi
    from tvm import relax

    try:
        module = tvm.ir.load_json(text)
        parameters = list(module["main"].params)
    except Exception as error:  # noqa: BLE001  # TVM's reader raises whatever the text makes it do
        raise BundleError(f"what the bundle keeps of its model is damaged: {str(error).splitlines()[0]}") from None
    given = [one for one in parameters if not str(one.name).startswith(_PREFIX)]
    constants: dict[Any, Any] = {}
    for one in parameters[len(given) :]:
        name = str(one.name).removeprefix(_PREFIX)
        if name not in weights:
            raise BundleError(f"the bundle lacks the weight {name} of its model")
        constants[one] = relax.const(tvm_ffi.from_dlpack(weights[name]))
        pool.add(constants[one], Weight(name, weights[name]))
    return _with_main(module, given, _blocks(module, lambda one: constants.get(one, one), lambda constant: constant))


def _blocks(module: Any, variable: Callable[[Any], Any], constant: Callable[[Any], Any]) -> list[Any]:
    """The blocks of `main`, with other variables and constants as arguments of their calls; variables keep their
    spans."""
    import tvm
    from tvm import relax

    builder = relax.BlockBuilder(module)
    blocks = []
    for block in module["main"].body.blocks:
        bindings = []
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, tvm.ir.Call):
                arguments = [map_tensors(argument, variable, constant) for argument in value.args]
                value = builder.normalize(tvm.ir.Call(value.op, arguments, value.attrs, value.ty_args))
            bindings.append(relax.VarBinding(binding.var, value))
        blocks.append(type(block)(bindings))
    return blocks


def _with_main(module: Any, parameters: list[Any], blocks: list[Any]) -> Any:
    import tvm
    from tvm import relax

    main = module["main"]
    body = relax.SeqExpr(blocks, main.body.body)
    made = tvm.IRModule(dict(module.functions.items()), attrs=module.attrs)
    made["main"] = relax.Function(parameters, body, main.ret_ty, main.is_pure, main.attrs)
    return made
