"""What the epochs, first steps and peaks of memory say, in Markdown."""

from cases import shape_label
from contestants import KERAS, OURS, XLA
from kept import versions
from report import NONE, number, table, version_line
from timing import geometric_mean

from keras_rnnkit.recurrence.shards import available_cores


def markdown(fitted, first, peaks) -> str:
    """Ratios of the epochs, the first steps and the memory."""
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
            epochs_table(fitted),
            "",
            "First step of `fit` in a new process, over that of Keras: below 1, it is "
            "the faster.",
            "",
            first_table(first),
            "",
            "Peak memory of a process that trains an LSTM on whole sequences, MB, and "
            "in brackets over that of Keras. `keras_rnnkit` and XLA load XLA's "
            "compiler, once for all.",
            "",
            memory_table(peaks, "whole"),
            "",
            "The same above the peak of the imports.",
            "",
            memory_table(peaks, "raised"),
            "",
        ]
    )


def epochs_table(fitted) -> str:
    columns = [(when, name) for when in ("next", "first") for name in (KERAS, XLA)]

    def ratio(result, when, name):
        return result[name][when] / result[OURS][when]

    rows = [
        [*key, *(number(ratio(result, *column)) for column in columns)]
        for key, result in fitted.items()
    ]
    means = [
        geometric_mean(ratio(result, *column) for result in fitted.values())
        for column in columns
    ]
    rows.append(["geometric mean", "", *map(number, means)])
    heads = ["Keras", "XLA", "Keras, first epoch", "XLA, first epoch"]
    return table(["layer", "data", *heads], rows)


def first_table(first) -> str:
    names = OURS, XLA
    rows = [
        [*key, *(number(result[name] / result[KERAS]) for name in names)]
        for key, result in first.items()
    ]
    means = [
        geometric_mean(result[name] / result[KERAS] for result in first.values())
        for name in names
    ]
    rows.append(["geometric mean", "", *map(number, means)])
    return table(["layer", "data", *names], rows)


def memory_table(peaks, which: str) -> str:
    names = list(next(iter(peaks.values())))

    def cell(result, name):
        if name not in result:
            return NONE
        own = result[name][which]
        share = f" ({number(own / result[KERAS][which])})" if KERAS in result else ""
        return f"{own:.0f}{share}"

    rows = [
        [shape_label(*key), *(cell(result, n) for n in names)]
        for key, result in peaks.items()
    ]
    return table(["batch × time × features → units", *names], rows)
