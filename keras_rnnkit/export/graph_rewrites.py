"""Graphs that TFLite's quantizer can give scales to."""

from pathlib import Path

from tensorflow import float32
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

# What the quantizer says where it finds no scale for a value with two readers
CONFLICT = "violate the same scale constraint"
# Operations whose inputs and output have one scale, and the places of these inputs
JOINS = {
    "ConcatV2": slice(None, -1),
    "Pack": slice(None),
    "Maximum": slice(None),
    "Minimum": slice(None),
    "Select": slice(1, None),
    "SelectV2": slice(1, None),
}
ALMOST_ONE = 1 + 2.0**-22  # by which to multiply is no operation that gets left out


def rescale_joins(folder):
    """Has every operation that joins values take them in a scale of its own.

    The quantizer gives one scale to all that is joined, and to all that these values
    are joined with elsewhere. It breaks down where one of them has a scale that is
    fixed, as that of a `tanh` is. A product with a number next to 1 has its own scale,
    and stands between the two.

    Args:
        folder: of a SavedModel; changed in place.
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
    """Yields nodes that multiply the inputs of another one, which then reads them."""
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
