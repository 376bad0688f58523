"""Measures exported files: each layer and kind of file, accuracy, latency.

    python benchmarks/export.py [--quick] [--seed 0] [--out FOLDER]

- Every layer with static or dynamic batch and steps, and every quantization: the form
  of its loops, and the largest difference from Keras relative to the largest output.
- Test accuracy and size of each quantization, on real speech.
- Latency of each form at batch 1 and of PyTorch with the same weights, interleaved.
- Duration of an export.

Writes export.md and export.json, or export-quick.*. An interrupted run resumes.
"""

import gc
import os
import tempfile
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import runner
import with_torch
from ai_edge_litert.interpreter import Interpreter
from cases import Case
from models import vowels
from report import NONE, number, table
from timing import geometric_mean, interleaved

import keras_rnnkit as rk
from keras_rnnkit.export.policy import FORMS

QUANTIZATIONS = None, "dynamic", "float16", "int8", "int16x8"
STEPS, FEATURES, UNITS = 16, 12, 32
LAYERS = {
    "SimpleRNN": lambda: rk.SimpleRNN(UNITS),
    "LSTM": lambda: rk.LSTM(UNITS),
    "GRU": lambda: rk.GRU(UNITS),
    "LSTM, options": lambda: rk.LSTM(
        UNITS, peephole=True, projection_units=UNITS, layer_norm=True, zoneout=0.1
    ),
    "Bidirectional LSTM": lambda: rk.Bidirectional(rk.LSTM(UNITS)),
    "ESN": lambda: rk.ESN(UNITS, return_sequences=False, seed=0),
    "StackedRNN": lambda: rk.StackedRNN([rk.LSTM(UNITS), rk.GRU(UNITS)]),
    "LSTM with mask": lambda: rk.LSTM(UNITS),
}
SPEAKERS = {
    "SimpleRNN": lambda: rk.SimpleRNN(64),
    "LSTM": lambda: rk.LSTM(64),
    "GRU": lambda: rk.GRU(64),
    "Bidirectional LSTM": lambda: rk.Bidirectional(rk.LSTM(32)),
    "ESN": lambda: rk.ESN(100, leak_rate=0.5, return_sequences=False, seed=0),
}
CALLS = 20  # per timing


def parts(quick):
    """Returns the parts: a name, the cases, and a function of a case and the seed."""
    kinds, units, steps = ["SimpleRNN", "LSTM", "GRU"], [32, 64, 128], [28, 100]
    if quick:
        units, steps = [64], [28]
    return [
        ("files", list(LAYERS)[: 2 if quick else None], measure_files),
        ("accuracy", list(SPEAKERS)[: 1 if quick else None], measure_accuracy),
        (
            "latency",
            [(kind, u, t) for kind in kinds for u in units for t in steps],
            measure_latency,
        ),
        ("duration", FORMS, measure_duration),
    ]


def export(model, **arguments):
    """Exports a model; returns the report and the content of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        report = rk.export_tflite(model, path, **arguments)
        return report, path.read_bytes()


def measure_files(name, seed):
    """Exports a layer to every kind of file; a row has the difference or the error."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((64, STEPS, FEATURES), np.float32)
    masking = [keras.layers.Masking()] if "mask" in name else []
    if masking:
        lengths = rng.integers(1, STEPS + 1, len(x))
        lengths[:8] = STEPS
        x *= (np.arange(STEPS) < lengths[:, None])[..., None]
    model = keras.Sequential(
        [
            keras.Input((STEPS, FEATURES), name="x"),
            *masking,
            LAYERS[name](),
            keras.layers.Dense(8),
        ]
    )
    rows = []
    for batch in (1, None):
        for steps in ("model", None):
            for quantize in QUANTIZATIONS:
                arguments = {"batch_size": batch, "time_steps": steps}
                row = {**arguments, "layer": name, "quantize": quantize}
                if quantize:
                    arguments |= {"quantize": quantize, "representative_data": x}
                try:
                    report, _ = export(model, **arguments)
                    forms = {layer["form"] for layer in report.layers.values()}
                    row |= {
                        "forms": sorted(forms),
                        "difference": report.max_relative,
                        "size": report.size,
                    }
                except (ValueError, RuntimeError) as error:
                    row["error"] = str(error)
                rows.append(row)
    return rows


def measure_accuracy(name, seed):
    """Measures test accuracy on real speech and size for each quantization."""
    train, test = vowels(16), rk.datasets.japanese_vowels("test")
    frames = train.x[0][train.x[1]]
    mean, deviation = frames.mean(axis=0), frames.std(axis=0)

    def scaled(x, inside):
        return np.where(inside[..., None], (x - mean) / deviation, 0).astype("float32")

    x = scaled(*train.x)
    steps = x.shape[1]
    x_test = scaled(test.x, np.arange(steps) < test.lengths[:, None])
    # To measure the ranges of all steps, some utterances repeat until the last step.
    lengths = train.x[1].sum(axis=1)
    long = [np.resize(x[i, : lengths[i]], x[i].shape) for i in range(0, len(x), 5)]
    samples = np.concatenate([x, long])

    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((steps, x.shape[2]), name="frames"),
            keras.layers.Masking(),
            SPEAKERS[name](),
            keras.layers.Dense(9, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    model.fit(x, train.y, batch_size=train.batch_size, epochs=40, verbose=0)
    rows = []
    for quantize in QUANTIZATIONS:
        arguments = {"quantize": quantize, "check": x_test}
        if quantize:
            arguments |= {"representative_data": samples, "tolerance": 2.0}
        report, content = export(model, **arguments)
        predicted = rk.TFLiteModel(content).predict(frames=x_test)["output_0"]
        rows.append(
            {
                "layer": name,
                "quantize": quantize,
                "accuracy": float(np.mean(predicted.argmax(axis=1) == test.y)),
                "size": report.size,
                "difference": report.max_absolute,
            }
        )
    return rows


def measure_latency(case, seed):
    """Times the forms and PyTorch at batch 1, in milliseconds."""
    kind, units, steps = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, steps, 16), np.float32)
    keras.utils.set_random_seed(seed)
    models = {
        return_sequences: keras.Sequential(
            [
                keras.Input((steps, 16), name="x"),
                getattr(rk, kind)(units, return_sequences=return_sequences),
            ]
        )
        for return_sequences in (False, True)
    }
    models[True].set_weights(models[False].get_weights())
    weights = models[False].get_weights()
    calls, chosen = {}, None
    for return_sequences, model in models.items():
        for form in ("auto", *FORMS):
            if form == "fused" and kind != "LSTM":
                continue
            report, content = export(model, form=form)
            if form == "auto":
                chosen = next(iter(report.layers.values()))["form"]
            calls["whole " * return_sequences + form] = invocation(content, x)
    if with_torch.torch is not None:
        torch_case = Case(kind, 1, steps, 16, units, "predict", masked=False)
        calls["PyTorch"], _ = with_torch.make(torch_case, {"x": x}, weights)
    calls = {name: repeated(call) for name, call in calls.items()}
    spent = interleaved(calls, repeats=15, budget=4)
    gc.collect()
    return {
        "layer": kind,
        "units": units,
        "steps": steps,
        "auto": chosen,
        "ms": {name: 1000 * median(each) / CALLS for name, each in spent.items()},
    }


def invocation(content, x):
    """Returns a call of an interpreter of the file."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    return interpreter.invoke


def repeated(call):
    def run():
        for _ in range(CALLS):
            call()

    return run


def measure_duration(form, seed):
    """Times the export of two bidirectional LSTMs over 200 steps, in seconds."""
    keras.utils.set_random_seed(seed)
    both = [rk.Bidirectional(rk.LSTM(64, return_sequences=True)) for _ in range(2)]
    model = keras.Sequential([keras.Input((200, 32)), *both, keras.layers.Dense(10)])
    start = time.perf_counter()
    export(model, form=form)
    return {"form": form, "seconds": time.perf_counter() - start}


def markdown(results) -> str:
    """Returns the tables."""
    results = {part: list(cases.values()) for part, cases in results.items()}
    ratios = [latency_ratios(entry) for entry in results["latency"]]
    return "\n".join(
        [
            "Form of the loops, and the largest difference to Keras relative to the "
            "largest output.",
            "",
            files_table(results["files"]),
            "",
            "Test accuracy on 370 utterances, size, and largest difference.",
            "",
            accuracy_table(results["accuracy"]),
            "",
            "Time of a call of batch 1, 16 features, over that of the form that is "
            "taken by itself: above 1, that form is the faster. The whole sequence is "
            "over the last output.",
            "",
            latency_table(results["latency"], ratios),
            "",
            "Export of two bidirectional LSTMs of 64 units over 200 steps.",
            "",
            table(
                ["form", "seconds"],
                [[e["form"], f"{e['seconds']:.1f}"] for e in results["duration"]],
            ),
            "",
        ]
    )


def files_table(groups):
    """Returns a table with a row per layer and shape, a column per quantization."""
    sizes = {1: "1", None: "any", "model": str(STEPS)}
    rows = []
    for entries in groups:
        cells = {}
        for e in entries:
            shape = sizes[e["batch_size"]], sizes[e["time_steps"]]
            cell = NONE
            if "error" not in e:
                cell = f"{' + '.join(e['forms'])} {e['difference']:.0e}"
            cells.setdefault((e["layer"], *shape), []).append(cell)
        rows += [[*key, *row] for key, row in cells.items()]
    return table(["layer", "batch", "steps", *map(column_name, QUANTIZATIONS)], rows)


def column_name(quantize):
    return quantize or "float32"


def accuracy_table(groups):
    rows = []
    for entries in groups:
        cells = [
            f"{e['accuracy']:.4f}, {e['size'] / 1000:.0f} kB, {e['difference']:.0e}"
            for e in entries
        ]
        rows.append([entries[0]["layer"], *cells])
    return table(["layer", *map(column_name, QUANTIZATIONS)], rows)


def latency_ratios(entry):
    """Returns the times of a case divided by that of the form that `"auto"` takes."""
    ms = entry["ms"]
    return {
        **{form: ms[form] / ms["auto"] if form in ms else None for form in FORMS},
        "PyTorch": ms["PyTorch"] / ms["whole auto"] if "PyTorch" in ms else None,
        "whole": ms["whole auto"] / ms["auto"],
    }


def latency_table(entries, ratios):
    rows = [
        [
            entry["layer"],
            str(entry["units"]),
            str(entry["steps"]),
            entry["auto"],
            *map(number, ratio.values()),
        ]
        for entry, ratio in zip(entries, ratios, strict=True)
    ]
    means = [
        geometric_mean(ratio[name] for ratio in ratios if ratio[name])
        for name in ratios[0]
    ]
    rows.append(["geometric mean", "", "", "", *map(number, means)])
    head = ["layer", "units", "steps", "form", *FORMS, "PyTorch", "whole sequence"]
    return table(head, rows)


if __name__ == "__main__":
    runner.run("export", "Exported files", __doc__, parts, markdown)
