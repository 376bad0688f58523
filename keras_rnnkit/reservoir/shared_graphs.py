"""TensorFlow graphs that are traced once for all models of the same structure."""

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

MAX_GRAPHS = 128
PLAIN_TYPES = type(None), bool, int, float, complex, str, bytes
# Attributes that do not affect what a layer computes from given weights.
IGNORED_TYPES = (
    *(keras.Variable, keras.random.SeedGenerator, keras.Initializer),
    *(keras.Regularizer, keras.constraints.Constraint),
)
IGNORED_CONFIG_KEYS = "seed", "topology", "build_config"

_shared, _per_model = OrderedDict(), weakref.WeakKeyDictionary()
_lock, _local = threading.Lock(), threading.local()


class SharedGraph:
    """A function of a model and of tensors that runs as a graph.

    The graph takes the model's weights as arguments. All models that differ only in
    weights, seeds and names share it, and it refers to none of them. A model whose
    structure is not fully known, such as one with a user's layer, has its own graphs.

    Args:
        function: callable `(model, *args)` at module level that returns nested
            structures of tensors.
        model: a functional or sequential model, held by a weak reference.
        match_names: bool, whether the names of layers have to match too.
    """

    def __init__(self, function, model, match_names=False):
        self._function = function
        self._model = weakref.ref(model)
        self._structure = structure_key(model, match_names)

    def __call__(self, *args):
        model = self._model()
        if self._structure is None:
            graphs, variables = _per_model.setdefault(model, OrderedDict()), []
        else:
            graphs, variables = _shared, model.variables
        key = self._function, self._structure, _hashable(args)
        with _lock:
            run = graphs.pop(key, None) or self._make_graph()
            graphs[key] = run
            while len(graphs) > MAX_GRAPHS:
                graphs.popitem(last=False)
        outer_model, _local.model = getattr(_local, "model", None), model
        try:
            results, changed = run([each.value for each in variables], *args)
        finally:
            _local.model = outer_model
        for variable, value in zip(variables, changed, strict=True):
            if value is not None:
                variable.assign(value)
        return results

    def _make_graph(self):
        return tf.function(_Stateless(self._function), autograph=False)


class _Stateless:
    """Calls a function of the current model with given values of its variables.

    It returns the results and the new values of the variables that changed. It is an
    object because TensorFlow warns when functions with the same code are traced often.
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
                updated = [scope.get_current_value(each) for each in variables]
            pairs = zip(updated, given, strict=True)
            changed = [None if new is old else new for new, old in pairs]
        else:
            results = self._function(model, *args)
        forget_gradients()
        return results, changed


def structure_key(model, match_names=False):
    """A hashable key that is equal for models that can share graphs, or None.

    It holds the configuration, without what only affects the initial weights, and the
    current settings of the layers. None is for a model that cannot share graphs.

    Args:
        model: a functional or sequential model.
        match_names: bool, whether the key depends on the names of layers.
    """
    try:
        layers = _components(model)
        names = {} if match_names else {each.name: n for n, each in enumerate(layers)}
        settings = [
            (type(each), getattr(each, "trainable", None), _settings(each))
            for each in layers
        ]
        with warnings.catch_warnings():  # about functions that cannot be saved
            warnings.simplefilter("ignore")
            config = _normalized(model.get_config(), names)
        dtypes = keras.config.floatx(), keras.config.dtype_policy().name
        return _hashable([config, settings, *dtypes])
    except NotImplementedError:
        return None


def _components(model):
    """All layers and operations of a model and of its nested models.

    Raises:
        NotImplementedError: a class that is neither of Keras nor of this package.
    """
    components = {}
    for layer in all_layers(model):
        operations = layer.operations if hasattr(layer, "operations") else ()
        for each in (layer, *operations):
            if type(each).__module__.split(".")[0] not in ("keras", PACKAGE):
                raise NotImplementedError
            components[id(each)] = each
    return list(components.values())


def _settings(component):
    """The public attributes of a layer, a cell or an operation."""
    if isinstance(component, keras.Model):
        return {}
    return {
        name: _setting(value)
        for name, value in vars(component).items()
        if name[0] != "_"
        and name not in ("name", "seed", "built")
        and not callable(getattr(type(component), name, None))  # wrapped by Keras
    }


def _setting(value):
    """The value of an attribute, in a form that `_hashable` takes."""
    if isinstance(value, PLAIN_TYPES):
        return value
    if isinstance(value, (list, tuple)):
        return [_setting(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _setting(each) for name, each in value.items()}
    if isinstance(value, keras.layers.Layer):  # is a component itself
        return None
    if isinstance(value, (keras.layers.InputSpec, keras.DTypePolicy, *IGNORED_TYPES)):
        return None
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
        return weakref.ref(value)
    raise NotImplementedError


def _normalized(config, names):
    """A configuration without what only affects the initial weights, and with numbers
    for the names of layers."""
    if isinstance(config, dict):
        return {
            name: _normalized(value, names)
            for name, value in config.items()
            if name not in IGNORED_CONFIG_KEYS and not name.endswith("_initializer")
        }
    if isinstance(config, (list, tuple)):
        return [_normalized(each, names) for each in config]
    return names.get(config, config) if isinstance(config, str) else config


def _hashable(value):
    """A nested structure in hashable form, with types and shapes for tensors."""
    if isinstance(value, dict):
        return dict, *((name, _hashable(value[name])) for name in value)
    if isinstance(value, (list, tuple)):
        return list, *map(_hashable, value)
    if tf.is_tensor(value):
        return value.dtype, tuple(value.shape)
    if isinstance(value, (*PLAIN_TYPES, type, weakref.ref)):
        return type(value), value
    raise NotImplementedError
