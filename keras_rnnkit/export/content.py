"""What stands in a TFLite file."""

import dataclasses
import json
import os
import struct
from collections import Counter
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

from keras_rnnkit.export.fused import OPERATION


def names_of(enumeration) -> dict[int, str]:
    """The names of an enumeration of the file format."""
    return {v: k for k, v in vars(enumeration).items() if not k.startswith("_")}


OPERATORS = names_of(schema.BuiltinOperator)
TYPES = names_of(schema.TensorType)
IDENTIFIER = b"TFL3"


@dataclasses.dataclass(frozen=True)
class Content:
    """What stands in a TFLite file; prints as a table.

    Attributes:
        size: bytes of the file.
        weights: bytes of its constants.
        tensors: how many there are.
        ops: list of dicts, how often each operation stands in the main graph and then
            in each of the graphs that it calls, such as the bodies of loops.
        signatures: dict of `{"inputs": ..., "outputs": ...}`, each a dict of shape and
            type by name. An axis of any size is -1.
    """

    size: int
    weights: int
    tensors: int
    ops: list[dict[str, int]]
    signatures: dict[str, dict]

    @property
    def counted(self) -> dict[str, int]:
        """How often each operation stands in the file; most first."""
        return dict(sum(map(Counter, self.ops), Counter()).most_common())

    def to_json(self) -> str:
        """Returns the attributes as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def __str__(self):
        fused = sum(ops.get(OPERATION, 0) for ops in self.ops)
        rows = [
            ("size", f"{self.size / 1024:.1f} KiB"),
            ("constants", f"{self.weights / 1024:.1f} KiB"),
            ("tensors", f"{self.tensors:,}"),
            ("fused LSTMs", f"{fused}"),
            *describe(self.signatures),
        ]
        for number, ops in enumerate(self.ops):
            counted = ", ".join(f"{name} {count}" for name, count in ops.items())
            rows.append((f"graph {number}", counted or "no operation"))
        return "\n".join(f"{name:<12}{value}" for name, value in rows)


def describe(signatures) -> list[tuple[str, str]]:
    """The lines of a table on signatures: first column, and the rest."""
    rows = []
    for name, signature in signatures.items():
        rows.append(("signature", name))
        for side, arrow in (("inputs", "<-"), ("outputs", "->")):
            rows += [("", f"{arrow} {n} {d}") for n, d in signature[side].items()]
    return rows


def inspect_tflite(source: bytes | str | os.PathLike[str]) -> Content:
    """Reads what stands in a TFLite file.

    Args:
        source: the file's path, or its content as bytes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TFLite file.
    """
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    model = parse(content)
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
        size=len(content),
        weights=sum(
            len(buffer.data) for buffer in model.buffers if buffer.data is not None
        ),
        tensors=sum(len(graph.tensors) for graph in model.subgraphs),
        ops=[dict(ops.most_common()) for ops in counted],
        signatures={
            signature.signatureKey.decode(): {
                side: {
                    each.name.decode(): _describe(
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


def parse(content: bytes):
    """The file as objects of its schema."""
    if content[4:8] != IDENTIFIER:
        raise ValueError(
            "the file must be a TFLite file; received one that begins with "
            f"{content[:8]!r}"
        )
    try:
        return schema.ModelT.InitFromPackedBuf(content, 0)
    except (struct.error, TypeError, IndexError, ValueError) as error:
        raise ValueError(
            f"the file must be a TFLite file; received a broken one: {error}"
        ) from error


def _describe(tensor) -> str:
    """Shape, type and scale of a tensor."""
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    shape = tuple(int(size) for size in (() if shape is None else shape))
    text = f"{shape} {TYPES[tensor.type].lower()}"
    scales = tensor.quantization and tensor.quantization.scale
    if scales is not None and len(scales) == 1:
        zero = int(tensor.quantization.zeroPoint[0])
        text += f", {float(scales[0]):.4g} * (q - {zero})"
    return text
