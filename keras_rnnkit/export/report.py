"""The report of an export to TFLite."""

import dataclasses
import json

from keras_rnnkit.export.flatbuffer import signature_rows


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """The result of `export_tflite`: what the file contains, and how closely it agrees
    with the Keras model. Prints as a table.

    Attributes:
        path: str, the file.
        size: int, its size in bytes.
        parameters: int, number of weights of the model.
        quantize: str or None, as requested.
        layers: dict of `{"form": ..., "why": ...}` by the name of the recurrent layer.
        ops: dict, the number of operations by name.
        signatures: dict of inputs and outputs by signature name; see `Content`.
        calls: int, consecutive calls of one interpreter that were compared.
        max_absolute: float, largest absolute difference to the Keras model.
        max_relative: float, `max_absolute` over the largest absolute output.
        rms_relative: float, root mean square of differences over that of the outputs.
        worst_part: str, the feature, step or third of the rows with the largest
            relative root mean square difference.
        worst_rms: float, that difference.
        agreement: float, the share of rows whose most probable class is the same; None
            if the outputs are not probabilities.
        tolerance: float, the bound: on `max_relative` without `quantize`, else on
            `rms_relative`.
        latency: float, median seconds of a call of the LiteRT interpreter on this
            machine.

    Example:

    ```python
    import keras
    import keras_rnnkit as rk

    model = keras.Sequential([keras.Input((8, 3)), rk.GRU(4)])
    report = rk.export_tflite(model, "model.tflite")
    print(report.layers, report.max_relative < 1e-5)
    ```
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
        """Returns the attributes as a JSON object, a str."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def _differences(self):
        """Yields rows of the table on differences, with the bound that applies."""
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
            *signature_rows(self.signatures),
            *(
                ("layer", f"{name}: {layer['form']}, {layer['why']}")
                for name, layer in self.layers.items()
            ),
            ("operations", ops),
        ]
        return "\n".join(f"{name:<12}{value}" for name, value in rows)
