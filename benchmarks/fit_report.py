"""The results of `fit.py` as Markdown."""

from cases import shape_label
from checkpoint import versions
from peers import KERAS, OURS, XLA
from report import NONE, number, table, version_line
from timing import geometric_mean

from keras_rnnkit.recurrence.shards import available_cores


def markdown(epochs, first_steps, memory) -> str:
    """Returns tables of the ratios of epochs, first steps and memory."""
    return "\n".join(
        [
            "# Training with `fit`",
            "",
            f"{version_line(versions())}. {available_cores()} cores, float32, "
            "64 units.",
            "",
            "Seconds of an epoch over those of `keras_rnnkit`: above 1, `keras_rnnkit` "
            "is the faster. XLA is Keras with `jit_compile=True`; the first epoch "
            "compiles.",
            "",
            epochs_table(epochs),
            "",
            "First step of `fit` in a new process, over that of Keras: below 1, it is "
            "the faster.",
            "",
            first_step_table(first_steps),
            "",
            "Peak memory of a process that trains an LSTM on whole sequences, MB, and "
            "in brackets over that of Keras. `keras_rnnkit` and XLA load XLA's "
            "compiler, once for all.",
            "",
            memory_table(memory, "whole"),
            "",
            "The same above the peak of the imports.",
            "",
            memory_table(memory, "raised"),
            "",
        ]
    )


def epochs_table(epochs) -> str:
    columns = [(when, name) for when in ("next", "first") for name in (KERAS, XLA)]

    def ratio(result, when, name):
        return result[name][when] / result[OURS][when]

    rows = [
        [*key, *(number(ratio(result, *column)) for column in columns)]
        for key, result in epochs.items()
    ]
    means = [
        geometric_mean(ratio(result, *column) for result in epochs.values())
        for column in columns
    ]
    rows.append(["geometric mean", "", *map(number, means)])
    heads = ["Keras", "XLA", "Keras, first epoch", "XLA, first epoch"]
    return table(["layer", "data", *heads], rows)


def first_step_table(first_steps) -> str:
    names = OURS, XLA
    rows = [
        [*key, *(number(result[name] / result[KERAS]) for name in names)]
        for key, result in first_steps.items()
    ]
    means = [
        geometric_mean(result[name] / result[KERAS] for result in first_steps.values())
        for name in names
    ]
    rows.append(["geometric mean", "", *map(number, means)])
    return table(["layer", "data", *names], rows)


def memory_table(memory, which: str) -> str:
    names = list(next(iter(memory.values())))

    def cell(result, name):
        if name not in result:
            return NONE
        megabytes = result[name][which]
        if KERAS not in result:
            return f"{megabytes:.0f}"
        return f"{megabytes:.0f} ({number(megabytes / result[KERAS][which])})"

    rows = [
        [shape_label(*key), *(cell(result, n) for n in names)]
        for key, result in memory.items()
    ]
    return table(["batch × time × features → units", *names], rows)
