"""Graphs that all models of one structure share: a new model has nothing traced."""

import threading
import types
import warnings
import weakref
from collections import OrderedDict

import keras
import tensorflow as tf

from keras_rnnkit.arguments import PACKAGE
from keras_rnnkit.internals import all_layers
from keras_rnnkit.recurrence import forget_gradients

MOST = 128  # graphs that are kept
PLAIN = type(None), bool, int, float, complex, str, bytes
# Of no effect on what a layer computes from given weights.
WEIGHTS_ONLY = (
    *(keras.Variable, keras.random.SeedGenerator, keras.Initializer),
    *(keras.Regularizer, keras.constraints.Constraint),
)
TOLD_BY_WEIGHTS = "seed", "topology", "build_config"

_shared, _own = OrderedDict(), weakref.WeakKeyDictionary()
_lock, _local = threading.Lock(), threading.local()


class Traced:
    """A function of a model and of tensors, as a graph.

    The graph gets the model's weights as arguments. It is traced once for all models
    that differ in weights, seeds and names alone, and refers to none of them. Models
    that may differ in more, as with layers of a user's class, have one each.

    Args:
        function: callable `(model, *args)` of a module, which returns nests of tensors.
        model: a functional or sequential model, which this object does not keep.
        named: bool, whether the names of layers have to be the same too.
    """

    def __init__(self, function, model, named=False):
        self._function = function
        self._model = weakref.ref(model)
        self._structure = structure_of(model, named)

    def __call__(self, *args):
        model = self._model()
        if self._structure is None:
            graphs, variables = _own.setdefault(model, OrderedDict()), []
        else:
            graphs, variables = _shared, model.variables
        key = self._function, self._structure, _frozen(args)
        with _lock:
            run = graphs.pop(key, None) or self._traced()
            graphs[key] = run
            while len(graphs) > MOST:
                graphs.popitem(last=False)
        before, _local.model = getattr(_local, "model", None), model
        try:
            results, changed = run([each.value for each in variables], *args)
        finally:
            _local.model = before
        for variable, value in zip(variables, changed, strict=True):
            if value is not None:
                variable.assign(value)
        return results

    def _traced(self):
        return tf.function(_Stateless(self._function), autograph=False)


class _Stateless:
    """Calls a function of the current model, with values for its variables.

    An object, not a function: TensorFlow warns of functions of one code that are often
    traced, as those of different models are.
    """

    def __init__(self, function):
        self._function = function

    def __call__(self, values, *args):
        model, changed = _local.model, []
        if values:
            variables = model.variables
            with keras.StatelessScope(zip(variables, values, strict=True)) as scope:
                given = [scope.get_current_value(each) for each in variables]
                results = self._function(model, *args)
                after = [scope.get_current_value(each) for each in variables]
            pairs = zip(after, given, strict=True)
            changed = [None if now is old else now for now, old in pairs]
        else:
            results = self._function(model, *args)
        forget_gradients()
        return results, changed


def structure_of(model, named=False):
    """What tells the models that share graphs, or None for a model that cannot.

    It holds the configuration but for what only draws weights, and the settings that
    the layers have now.

    Args:
        named: bool, whether names are told.
    """
    try:
        layers = _parts(model)
        names = {} if named else {each.name: n for n, each in enumerate(layers)}
        settings = [
            (type(each), getattr(each, "trainable", None), _settings(each))
            for each in layers
        ]
        with warnings.catch_warnings():  # of functions that cannot be saved
            warnings.simplefilter("ignore")
            config = _renamed(model.get_config(), names)
        now = keras.config.floatx(), keras.config.dtype_policy().name
        return _frozen([config, settings, *now])
    except NotImplementedError:
        return None


def _parts(model):
    """All layers and operations of a model, and of those within."""
    parts = {}
    for layer in all_layers(model):
        inner = layer.operations if hasattr(layer, "operations") else ()
        for part in (layer, *inner):
            if type(part).__module__.split(".")[0] not in ("keras", PACKAGE):
                raise NotImplementedError
            parts[id(part)] = part
    return list(parts.values())


def _settings(part):
    """The public attributes of a layer, a cell or an operation."""
    if isinstance(part, keras.Model):
        return {}
    return {
        name: _setting(value)
        for name, value in vars(part).items()
        if name[0] != "_"
        and name not in ("name", "seed", "built")
        and not callable(getattr(type(part), name, None))  # wrapped by Keras
    }


def _setting(value):
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        return [_setting(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _setting(each) for name, each in value.items()}
    if isinstance(value, keras.layers.Layer):  # which is one of the parts itself
        return None
    if isinstance(value, (keras.layers.InputSpec, keras.DTypePolicy, *WEIGHTS_ONLY)):
        return None
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
        return weakref.ref(value)
    raise NotImplementedError


def _renamed(config, names):
    """A configuration without what only draws weights, and with numbers for names."""
    if isinstance(config, dict):
        return {
            name: _renamed(value, names)
            for name, value in config.items()
            if name not in TOLD_BY_WEIGHTS and not name.endswith("_initializer")
        }
    if isinstance(config, (list, tuple)):
        return [_renamed(each, names) for each in config]
    return names.get(config, config) if isinstance(config, str) else config


def _frozen(value):
    """A nest as what can be hashed, of tensors their types and shapes."""
    if isinstance(value, dict):
        return dict, *((name, _frozen(value[name])) for name in value)
    if isinstance(value, (list, tuple)):
        return list, *map(_frozen, value)
    if tf.is_tensor(value):
        return value.dtype, tuple(value.shape)
    if isinstance(value, (*PLAIN, type, weakref.ref)):
        return type(value), value
    raise NotImplementedError
