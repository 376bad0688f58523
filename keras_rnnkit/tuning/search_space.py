"""A search space for the recurrent part of a model."""

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

    The hyperparameters are `cell`, `units`, `depth`, `direction` and `dropout`, the
    dropout of the inputs of every layer. An argument with one value, alone or in a
    tuple, fixes that choice. An "ESN" has no dropout but `spectral_radius`, from 0.1 to
    1.5, and on a logarithmic scale `leak_rate`, from 0.1 to 1, and `input_scaling`,
    from 0.1 to 10.

    Args:
        hp: `keras_tuner.HyperParameters`.
        cells: names among "LSTM", "GRU", "SimpleRNN" and "ESN"; classes of recurrent
            layers or cells; or functions `f(units)` that make one. Classes and
            functions also get `dropout=` if they accept it. A dict maps names of your
            choice to them. Default ("LSTM", "GRU", "SimpleRNN").
        units: int or ints, sizes of a layer, for each direction. Default (32, 64, 128).
        depths: int or ints, numbers of layers. Default (1, 2).
        directions: "forward", "both" or a tuple of these. Default both of them.
        dropouts: float or floats, rates in [0, 1). Default (0.0, 0.2, 0.4).
        return_sequences: bool, whether the layer returns its whole sequence. Default
            False.
        name: str, the name of the layer, which prefixes the hyperparameters:
            `<name>_cell`, `<name>_units` and so on. Two stacks in one model need two
            names to be searched independently. Default None.

    Returns:
        `rk.StackedRNN`.

    Raises:
        ValueError: an unknown name; a value out of range; no values, or one given
            twice; or an entry of `cells` that makes no recurrent layer or cell.

    Example:

    ```python
    def build(hp):
        encoder = rk.tuning.recurrent_stack(hp, cells="GRU", units=(64, 128))
        model = keras.Sequential(
            [keras.Input((None, 12)), encoder, keras.layers.Dense(9, "softmax")]
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        return model
    ```
    """
    if not hasattr(hp, "conditional_scope"):
        raise ValueError(
            "`hp` must be the `HyperParameters` that KerasTuner passes to the function "
            f"that builds a model; received {hp!r}"
        )
    if name is not None and not (isinstance(name, str) and name):
        raise ValueError(f"`name` must be a non-empty str; received {name!r}")
    makers = cell_makers(cells)
    units = read_choices("units", units, check_positive_integer)
    depths = read_choices("depths", depths, check_positive_integer)
    directions = read_choices("directions", directions, check_direction)
    dropouts = [
        float(rate) for rate in read_choices("dropouts", dropouts, check_probability)
    ]
    prefix = "" if name is None else f"{name}_"

    cell = hp.Choice(f"{prefix}cell", list(makers))
    size = hp.Choice(f"{prefix}units", units)
    depth = hp.Choice(f"{prefix}depth", depths)
    direction = hp.Choice(f"{prefix}direction", directions)
    options = {}
    with_dropout = [each for each in makers if takes_dropout(makers[each])]
    if len(with_dropout) == len(makers):
        options["dropout"] = hp.Choice(f"{prefix}dropout", dropouts)
    elif with_dropout:
        with hp.conditional_scope(f"{prefix}cell", with_dropout):
            dropout = hp.Choice(f"{prefix}dropout", dropouts)
        if cell in with_dropout:
            options["dropout"] = dropout
    reservoirs = [each for each in makers if makers[each] is layers.ESN]
    if reservoirs:
        with hp.conditional_scope(f"{prefix}cell", reservoirs):
            esn_options = choose_esn_options(hp, prefix)
        if cell in reservoirs:
            options |= esn_options
    stack = [make_layer(cell, makers[cell], size, options) for _ in range(depth)]
    if direction == "both":
        stack = [make_bidirectional(layer) for layer in stack]
    return layers.StackedRNN(stack, return_sequences=return_sequences, name=name)


def choose_esn_options(hp, prefix):
    """The most influential parameters of a reservoir (Lukoševičius 2012)."""
    log = {"sampling": "log", "default": 1.0}
    return {
        "spectral_radius": hp.Float(f"{prefix}spectral_radius", 0.1, 1.5, default=0.9),
        "leak_rate": hp.Float(f"{prefix}leak_rate", 0.1, 1.0, **log),
        "input_scaling": hp.Float(f"{prefix}input_scaling", 0.1, 10.0, **log),
    }


def read_choices(argument, given, check):
    """The values of an argument, as a list of plain Python numbers and strings.

    Args:
        argument: str, its name.
        given: a value or an iterable of values.
        check: callable `(argument, value)` that raises `ValueError` for a wrong value.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        given = (given,)
    given = list(given)
    for value in given:
        check(argument, value)
    if not given:
        raise ValueError(f"`{argument}` must hold a value; received none")
    if len(set(given)) < len(given):
        raise ValueError(f"`{argument}` must have distinct values; received {given}")
    return [value.item() if hasattr(value, "item") else value for value in given]


def check_direction(argument, value):
    check_choice(argument, value, DIRECTIONS)


def cell_makers(cells):
    """A dict from the names that KerasTuner shows to the classes and functions."""
    if isinstance(cells, Mapping):
        makers = dict(cells)
        for name, maker in makers.items():
            if not isinstance(name, str) or not callable(maker):
                raise ValueError(
                    "`cells` must map names to classes or functions; received "
                    f"{name!r}: {maker!r}"
                )
        read_choices("cells", makers, lambda *_: None)
        return makers
    cells = read_choices("cells", cells, check_cell)
    names = [each if isinstance(each, str) else each.__name__ for each in cells]
    read_choices("cells", names, lambda *_: None)
    return {n: CELLS.get(each, each) for n, each in zip(names, cells, strict=True)}


def check_cell(argument, value):
    if callable(value) and not hasattr(value, "__name__"):
        raise ValueError(
            f"`{argument}` must have names; received {value!r}: name it in a dict"
        )
    if not callable(value):
        check_choice(argument, value, CELLS)


def takes_dropout(maker):
    """Whether a function, or a class or the base that it passes keyword arguments to,
    has an argument `dropout`."""
    if not inspect.isclass(maker):
        return "dropout" in inspect.signature(maker).parameters
    for cls in maker.__mro__:
        if "__init__" in vars(cls):
            parameters = inspect.signature(cls.__init__).parameters
            if "dropout" in parameters:
                return True
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                return False
    return False


def make_bidirectional(layer):
    """A layer in both directions; its class need not be registered with Keras."""
    custom = {type(x).__name__: type(x) for x in (layer, getattr(layer, "cell", layer))}
    with keras.saving.custom_object_scope(custom):
        return layers.Bidirectional(layer)


def make_layer(name, maker, size, options):
    """A recurrent layer from a class or function of `cells`; wraps a cell in `RNN`."""
    layer = maker(size, **options)
    if hasattr(layer, "return_sequences"):
        return layer
    if isinstance(layer, keras.layers.Layer) and hasattr(layer, "state_size"):
        return layers.RNN(layer)
    raise ValueError(
        f"`cells` must make recurrent layers or cells; received {layer!r} from {name!r}"
    )
