"""Reads the contents of TFLite files."""

import dataclasses
import json
import os
import struct
from collections import Counter
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

from keras_rnnkit.export.fused import OPERATION


def enum_names(enumeration) -> dict[int, str]:
    """Returns the names of an enumeration of the file format, by value."""
    return {v: k for k, v in vars(enumeration).items() if not k.startswith("_")}


OPERATORS = enum_names(schema.BuiltinOperator)
TYPES = enum_names(schema.TensorType)
IDENTIFIER = b"TFL3"


@dataclasses.dataclass(frozen=True)
class Content:
    """The contents of a TFLite file, from `inspect_tflite`; prints as a table.

    Attributes:
        size: int, size of the file in bytes.
        weights: int, size of its constants in bytes.
        tensors: int, number of tensors.
        ops: list of dicts, the number of operations by name in each graph: the main
            graph first, then those that it calls, such as the bodies of loops.
        signatures: dict of `{"inputs": ..., "outputs": ...}` by signature name, each a
            dict of shape and dtype by tensor name. An axis of any size is -1.
    """

    size: int
    weights: int
    tensors: int
    ops: list[dict[str, int]]
    signatures: dict[str, dict]

    @property
    def counted(self) -> dict[str, int]:
        """The number of operations of the whole file by name, most frequent first."""
        return dict(sum(map(Counter, self.ops), Counter()).most_common())

    def to_json(self) -> str:
        """Returns the attributes as a JSON object, a str."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def __str__(self):
        fused = sum(ops.get(OPERATION, 0) for ops in self.ops)
        rows = [
            ("size", f"{self.size / 1024:.1f} KiB"),
            ("constants", f"{self.weights / 1024:.1f} KiB"),
            ("tensors", f"{self.tensors:,}"),
            ("fused LSTMs", f"{fused}"),
            *signature_rows(self.signatures),
        ]
        for number, ops in enumerate(self.ops):
            counted = ", ".join(f"{name} {count}" for name, count in ops.items())
            rows.append((f"graph {number}", counted or "no operation"))
        return "\n".join(f"{name:<12}{value}" for name, value in rows)


def signature_rows(signatures) -> list[tuple[str, str]]:
    """Returns rows of a table of signatures: first column and text."""
    rows = []
    for name, signature in signatures.items():
        rows.append(("signature", name))
        for side, arrow in (("inputs", "<-"), ("outputs", "->")):
            rows += [("", f"{arrow} {n} {d}") for n, d in signature[side].items()]
    return rows


def inspect_tflite(source: bytes | str | os.PathLike[str]) -> Content:
    """Reads the operations, signatures and sizes of a TFLite file.

    Args:
        source: str or path-like, the file; or bytes, its content.

    Returns:
        `Content`, which prints as a table.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a TFLite file.

    Example:

    ```python
    import keras
    import keras_rnnkit as rk

    model = keras.Sequential([keras.Input((8, 3)), rk.GRU(4)])
    rk.export_tflite(model, "model.tflite")
    print(rk.inspect_tflite("model.tflite").counted)
    ```
    """
    flatbuffer = source if isinstance(source, bytes) else Path(source).read_bytes()
    model = parse(flatbuffer)
    codes = [
        (code.customCode or b"CUSTOM").decode()
        if code.builtinCode == schema.BuiltinOperator.CUSTOM
        else OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes or ()
    ]
    counted = [
        Counter(codes[op.opcodeIndex] for op in graph.operators or ())
        for graph in model.subgraphs
    ]
    return Content(
        size=len(flatbuffer),
        weights=sum(
            len(buffer.data) for buffer in model.buffers if buffer.data is not None
        ),
        tensors=sum(len(graph.tensors) for graph in model.subgraphs),
        ops=[dict(ops.most_common()) for ops in counted],
        signatures={
            signature.signatureKey.decode(): {
                side: {
                    each.name.decode(): _describe_tensor(
                        model.subgraphs[signature.subgraphIndex].tensors[
                            each.tensorIndex
                        ]
                    )
                    for each in getattr(signature, side) or ()
                }
                for side in ("inputs", "outputs")
            }
            for signature in model.signatureDefs or ()
        },
    )


def parse(flatbuffer: bytes):
    """Returns the file as objects of the TFLite schema, or raises `ValueError`."""
    if flatbuffer[4:8] != IDENTIFIER:
        raise ValueError(
            "the file must be a TFLite file; received one that begins with "
            f"{flatbuffer[:8]!r}"
        )
    try:
        return schema.ModelT.InitFromPackedBuf(flatbuffer, 0)
    except (struct.error, TypeError, IndexError, ValueError) as error:
        raise ValueError(
            f"the file must be a TFLite file; received a damaged one: {error}"
        ) from error


def _describe_tensor(tensor) -> str:
    """Returns the shape, dtype and scale of a tensor as text."""
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    shape = tuple(int(size) for size in (() if shape is None else shape))
    text = f"{shape} {TYPES[tensor.type].lower()}"
    scales = tensor.quantization and tensor.quantization.scale
    if scales is not None and len(scales) == 1:
        zero = int(tensor.quantization.zeroPoint[0])
        text += f", {float(scales[0]):.4g} * (q - {zero})"
    return text
