"""Rewrites SavedModels so that TFLite's quantizer can assign scales."""

from pathlib import Path

from tensorflow import float32
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

# The quantizer's message if a value with two consumers has no valid scale
SCALE_CONFLICT = "violate the same scale constraint"
# Operations whose inputs and output share one scale, and which inputs these are
JOINS = {
    "ConcatV2": slice(None, -1),
    "Pack": slice(None),
    "Maximum": slice(None),
    "Minimum": slice(None),
    "Select": slice(1, None),
    "SelectV2": slice(1, None),
}
ALMOST_ONE = 1 + 2.0**-22  # the converter would remove a multiplication by 1


def rescale_joins(folder):
    """Decouples the scales of the inputs of operations that join values.

    The quantizer gives all inputs of such an operation one scale, and every other
    operation that joins them the same one. It fails if one of these scales is fixed, as
    that of `tanh` is. A multiplication by almost 1 before each input has a scale of its
    own.

    Args:
        folder: str, of a SavedModel; changed in place.
    """
    path = Path(folder) / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        for function in graph.graph_def.library.function:
            for node in list(function.node_def):
                if node.op in JOINS and node.attr["T"].type == float32.as_datatype_enum:
                    function.node_def.extend(_rescaled(node))
    path.write_bytes(saved.SerializeToString())


def _rescaled(node):
    """Yields nodes that multiply the inputs of a node, which then reads them."""
    number = node_def_pb2.NodeDef(name=f"{node.name}/almost_one", op="Const")
    number.attr["dtype"].type = float32.as_datatype_enum
    number.attr["value"].tensor.dtype = float32.as_datatype_enum
    number.attr["value"].tensor.tensor_shape.SetInParent()
    number.attr["value"].tensor.float_val.append(ALMOST_ONE)
    yield number
    places = [i for i, name in enumerate(node.input) if not name.startswith("^")]
    for i in places[JOINS[node.op]]:
        product = node_def_pb2.NodeDef(name=f"{node.name}/rescaled_{i}", op="Mul")
        product.input.extend([node.input[i], f"{number.name}:output:0"])
        product.attr["T"].type = float32.as_datatype_enum
        node.input[i] = f"{product.name}:z:0"
        yield product
