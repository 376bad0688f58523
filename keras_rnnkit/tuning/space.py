"""The recurrent part of a model as a search space."""

import inspect
from collections.abc import Callable, Iterable, Mapping

import keras

from keras_rnnkit import layers
from keras_rnnkit.arguments import (
    check_choice,
    check_positive_integer,
    check_probability,
)

CELLS = {
    "LSTM": layers.LSTM,
    "GRU": layers.GRU,
    "SimpleRNN": layers.SimpleRNN,
    "ESN": layers.ESN,
}
DIRECTIONS = "forward", "both"


def recurrent_stack(
    hp,
    *,
    cells: str | Callable | Iterable[str | Callable] | Mapping[str, Callable] = (
        "LSTM",
        "GRU",
        "SimpleRNN",
    ),
    units: int | Iterable[int] = (32, 64, 128),
    depths: int | Iterable[int] = (1, 2),
    directions: str | Iterable[str] = DIRECTIONS,
    dropouts: float | Iterable[float] = (0.0, 0.2, 0.4),
    return_sequences: bool = False,
    name: str | None = None,
) -> keras.layers.Layer:
    """Returns a recurrent layer drawn from a search space.

    Asks `hp` for `cell`, `units`, `depth`, `direction` and `dropout`, of the inputs of
    every layer; an argument of one value, alone or in a tuple, fixes that choice. For
    an "ESN" it asks for `spectral_radius`, from 0.1 to 1.5, `leak_rate`, from 0.1 to 1,
    and `input_scaling`, from 0.1 to 10, the latter two on a logarithmic scale, and for
    no dropout.

        encoder = recurrent_stack(hp, cells="GRU", units=(64, 128), name="encoder")

    Args:
        hp: `keras_tuner.HyperParameters`.
        cells: names among "LSTM", "GRU", "SimpleRNN" and "ESN"; classes of recurrent
            layers or cells, or functions that make one. These are called with the
            units, and with `dropout=` if they take it. A dict names them itself.
        units: sizes of a layer, for each direction.
        depths: numbers of layers.
        directions: among "forward" and "both".
        dropouts: rates in [0, 1).
        return_sequences: bool, whether the layer returns its whole sequence.
        name: str, the name of the layer. The hyperparameters are then called
            `<name>_cell`, `<name>_units` and so on: two stacks of a model need two
            names to be searched apart.

    Raises:
        ValueError: an unknown name, a value out of its range, none, or one twice; a
            class or function of `cells` that makes no recurrent layer or cell.
    """
    if not hasattr(hp, "conditional_scope"):
        raise ValueError(
            "`hp` must be the `HyperParameters` with which KerasTuner calls the "
            f"function that builds a model; received {hp!r}"
        )
    if name is not None and not (isinstance(name, str) and name):
        raise ValueError(f"`name` must be a str that is not empty; received {name!r}")
    kinds = named(cells)
    units = values("units", units, check_positive_integer)
    depths = values("depths", depths, check_positive_integer)
    directions = values("directions", directions, check_direction)
    dropouts = [float(x) for x in values("dropouts", dropouts, check_probability)]
    of = "" if name is None else f"{name}_"

    kind = hp.Choice(f"{of}cell", list(kinds))
    size = hp.Choice(f"{of}units", units)
    depth = hp.Choice(f"{of}depth", depths)
    direction = hp.Choice(f"{of}direction", directions)
    options = {}
    dropping = [each for each in kinds if takes_dropout(kinds[each])]
    if len(dropping) == len(kinds):
        options["dropout"] = hp.Choice(f"{of}dropout", dropouts)
    elif dropping:
        with hp.conditional_scope(f"{of}cell", dropping):
            dropout = hp.Choice(f"{of}dropout", dropouts)
        if kind in dropping:
            options["dropout"] = dropout
    reservoirs = [each for each in kinds if kinds[each] is layers.ESN]
    if reservoirs:
        with hp.conditional_scope(f"{of}cell", reservoirs):
            drawn = reservoir(hp, of)
        if kind in reservoirs:
            options |= drawn
    chain = [made(kind, kinds[kind], size, options) for _ in range(depth)]
    if direction == "both":
        chain = [both_ways(layer) for layer in chain]
    return layers.StackedRNN(chain, return_sequences=return_sequences, name=name)


def reservoir(hp, of):
    """What matters most of a reservoir (Lukoševičius 2012)."""
    log = {"sampling": "log", "default": 1.0}
    return {
        "spectral_radius": hp.Float(f"{of}spectral_radius", 0.1, 1.5, default=0.9),
        "leak_rate": hp.Float(f"{of}leak_rate", 0.1, 1.0, **log),
        "input_scaling": hp.Float(f"{of}input_scaling", 0.1, 10.0, **log),
    }


def values(argument, given, check):
    """The values of an argument, as a list of Python's own numbers and strings."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        given = (given,)
    given = list(given)
    for value in given:
        check(argument, value)
    if not given:
        raise ValueError(f"`{argument}` must hold a value; received none")
    if len(set(given)) < len(given):
        raise ValueError(f"`{argument}` must differ from each other; received {given}")
    return [value.item() if hasattr(value, "item") else value for value in given]


def check_direction(argument, value):
    check_choice(argument, value, DIRECTIONS)


def named(cells):
    """The classes and functions of `cells`, by the names that KerasTuner shows."""
    if isinstance(cells, Mapping):
        kinds = dict(cells)
        for name, kind in kinds.items():
            if not isinstance(name, str) or not callable(kind):
                raise ValueError(
                    "`cells` must be classes or functions by their names; received "
                    f"{name!r}: {kind!r}"
                )
        values("cells", kinds, lambda *_: None)
        return kinds
    given = values("cells", cells, check_cell)
    names = [each if isinstance(each, str) else each.__name__ for each in given]
    values("cells", names, lambda *_: None)
    return {n: CELLS.get(each, each) for n, each in zip(names, given, strict=True)}


def check_cell(argument, value):
    if callable(value) and not hasattr(value, "__name__"):
        raise ValueError(
            f"`{argument}` must have names; received {value!r}: pass a dict of them"
        )
    if not callable(value):
        check_choice(argument, value, CELLS)


def takes_dropout(kind):
    """Whether a class, or one that it hands its arguments on to, names `dropout`."""
    if not inspect.isclass(kind):
        return "dropout" in inspect.signature(kind).parameters
    for cls in kind.__mro__:
        if "__init__" in vars(cls):
            parameters = inspect.signature(cls.__init__).parameters
            if "dropout" in parameters:
                return True
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                return False
    return False


def both_ways(layer):
    """A layer in both directions; it need not be registered with Keras."""
    own = {type(x).__name__: type(x) for x in (layer, getattr(layer, "cell", layer))}
    with keras.saving.custom_object_scope(own):
        return layers.Bidirectional(layer)


def made(name, kind, size, options):
    """A recurrent layer of a kind; a cell is put on the loop."""
    layer = kind(size, **options)
    if hasattr(layer, "return_sequences"):
        return layer
    if isinstance(layer, keras.layers.Layer) and hasattr(layer, "state_size"):
        return layers.RNN(layer)
    raise ValueError(
        f"`cells` must make recurrent layers or cells; received {layer!r} of {name!r}"
    )
