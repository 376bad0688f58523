"""What an export wrote, and how far it is from the Keras model."""

import dataclasses
import json


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """The proof that a TFLite file gives the answers of the model it came from.

    Attributes:
        path: the file.
        size: its bytes.
        parameters: the model's weights, counted.
        ops: how often each operation stands in the file.
        calls: calls of one interpreter that were compared, one after the other.
        max_absolute: the largest absolute difference to the Keras model.
        max_relative: the same, over the largest absolute output of that call.
        latency: median seconds of one call, in the LiteRT interpreter on this machine.
    """

    path: str
    size: int
    parameters: int
    ops: dict[str, int]
    calls: int
    max_absolute: float
    max_relative: float
    latency: float

    def to_json(self) -> str:
        """Returns the attributes as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def __str__(self):
        ops = ", ".join(f"{name} {count}" for name, count in self.ops.items())
        rows = {
            "file": self.path,
            "size": f"{self.size / 1024:.1f} KiB",
            "parameters": f"{self.parameters:,}",
            "difference": f"{self.max_absolute:.1e} absolute, {self.max_relative:.1e} "
            f"relative, over {self.calls} calls",
            "latency": f"{self.latency * 1e6:.0f} us",
            "operations": ops,
        }
        return "\n".join(f"{name:<12}{value}" for name, value in rows.items())
