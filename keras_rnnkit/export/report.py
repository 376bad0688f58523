"""What an export wrote, and how far it is from the Keras model."""

import dataclasses
import json

from keras_rnnkit.export.flatbuffer import describe


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
        worst_part, worst_rms: the feature, step or third of the rows in which that is
            largest, and its value there.
        agreement: the share of rows whose most probable class is the same; None for
            outputs that are no probabilities.
        tolerance: the bound: on `max_relative` of a file in float32, else on
            `rms_relative`.
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
    worst_part: str
    worst_rms: float
    agreement: float | None
    tolerance: float
    latency: float

    def to_json(self) -> str:
        """Returns the attributes as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def _differences(self):
        """The lines of the table on differences, each bound beside what it is on."""
        bound = f" (bound {self.tolerance:.0e})"
        yield (
            "difference",
            f"{self.max_absolute:.1e} absolute, {self.max_relative:.1e} relative"
            f"{'' if self.quantize else bound}, over {self.calls} calls",
        )
        if self.quantize:
            yield (
                "rms",
                f"{self.rms_relative:.1e} relative{bound}, {self.worst_rms:.1e} in "
                f"{self.worst_part}",
            )
        if self.agreement is not None:
            yield "classes", f"the most probable is the same in {self.agreement:.1%}"

    def __str__(self):
        ops = ", ".join(f"{name} {count}" for name, count in self.ops.items())
        rows = [
            ("file", self.path),
            ("size", f"{self.size / 1024:.1f} KiB"),
            ("parameters", f"{self.parameters:,}"),
            ("quantized", self.quantize or "no"),
            *self._differences(),
            ("latency", f"{self.latency * 1e6:.0f} us"),
            *describe(self.signatures),
            *(
                ("layer", f"{name}: {layer['form']}, {layer['why']}")
                for name, layer in self.layers.items()
            ),
            ("operations", ops),
        ]
        return "\n".join(f"{name:<12}{value}" for name, value in rows)
