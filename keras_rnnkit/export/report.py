"""What an export wrote, and how far it is from the Keras model."""

import dataclasses
import json

from keras_rnnkit.export.content import describe


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """The proof that a TFLite file gives the answers of the model it came from.

    Attributes:
        path: the file.
        size: its bytes.
        parameters: the model's weights, counted.
        quantize: as asked for.
        layers: what became of each recurrent layer and why, by its name.
        ops: how often each operation stands in the file.
        signatures: inputs and outputs of each signature; see `Content`.
        calls: calls of one interpreter that were compared, one after the other.
        max_absolute: the largest absolute difference to the Keras model.
        max_relative: the same, over the largest absolute output.
        rms_relative: the root mean square of differences over that of outputs.
        latency: median seconds of one call, in the LiteRT interpreter on this machine.
    """

    path: str
    size: int
    parameters: int
    quantize: str | None
    layers: dict[str, dict[str, str]]
    ops: dict[str, int]
    signatures: dict[str, dict]
    calls: int
    max_absolute: float
    max_relative: float
    rms_relative: float
    latency: float

    def to_json(self) -> str:
        """Returns the attributes as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def __str__(self):
        ops = ", ".join(f"{name} {count}" for name, count in self.ops.items())
        rows = [
            ("file", self.path),
            ("size", f"{self.size / 1024:.1f} KiB"),
            ("parameters", f"{self.parameters:,}"),
            ("quantized", self.quantize or "no"),
            (
                "difference",
                f"{self.max_absolute:.1e} absolute, {self.max_relative:.1e} relative, "
                f"over {self.calls} calls",
            ),
            ("latency", f"{self.latency * 1e6:.0f} us"),
            *describe(self.signatures),
            *(
                ("layer", f"{name}: {layer['form']}, {layer['why']}")
                for name, layer in self.layers.items()
            ),
            ("operations", ops),
        ]
        return "\n".join(f"{name:<12}{value}" for name, value in rows)
