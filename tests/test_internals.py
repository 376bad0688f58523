"""Each private name of Keras and TensorFlow does what `internals.py` says."""

import ast
import gc
import re
import weakref
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_rnnkit as rk
from keras_rnnkit import internals

PACKAGE = Path(rk.__file__).parent
# Attributes of theirs that begin with an underscore, and modules that are not public.
PRIVATE = re.compile(
    r"(?<!self)(?<!cls)(?<!super\(\))\._(?!replace|asdict|fields|exit)[a-z]\w*"
    r"|tensorflow\.(?:python|compiler)|keras\.src|experimental_get_compiler_ir|\"_keras_mask"
)
OWN = {"_keras_rnnkit_gradients"}


def test_private_names_stand_in_one_file():
    own = {
        node.attr
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and file.name != "internals.py"
    }
    methods = {
        node.name
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    found = {}
    for file in PACKAGE.rglob("*.py"):
        names = {match.lstrip("._") for match in PRIVATE.findall(file.read_text())}
        names = {n for n in names if not {n, f"_{n}"} & (own | methods)}
        if names:
            found[file.name] = names
    # How `model_inputs` knows a model of Keras 2, and `keras2` a module's public name.
    assert found.pop("model_inputs.py") == {"keras.src", "tensorflow.python"}
    assert found.pop("keras2.py") == {"tf_keras"}
    assert set(found) == {"internals.py"}, found


def test_a_mask_goes_with_its_tensor():
    x = tf.constant([[1, 2, 0]])
    y = keras.layers.Embedding(3, 2, mask_zero=True)(x)
    np.testing.assert_array_equal(internals.mask_of(y), [[True, True, False]])
    assert internals.mask_of(x) is None
    seen = []

    class Spy(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True

        def call(self, inputs, mask=None):
            seen.append(mask)
            return inputs

    a, b = tf.zeros([1, 3, 2]), tf.zeros([1, 3, 2])
    internals.set_masks([a, b], [tf.constant([[True, False, True]]), None])
    Spy()(a), Spy()(b)
    np.testing.assert_array_equal(seen[0], [[True, False, True]])
    assert seen[1] is None


def test_layers_are_found_in_any_attribute():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.Dense(2)
            self.listed = [rk.RNN(rk.LSTMCell(3))]

        def call(self, x):
            return self.listed[0](self.inner(x))

    model = keras.Sequential([keras.Input((4, 2)), Block()])
    (block,) = model.layers
    expected = [model, block, block.inner, block.listed[0], block.listed[0].cell]
    found = {id(layer) for layer in internals.all_layers(model)}
    assert {id(layer) for layer in expected} <= found
    assert internals.all_layers(model)[0] is model


def test_a_graph_runs_with_other_calls():
    x = keras.Input((3,))
    dense = keras.layers.Dense(2)
    model = keras.Model(x, keras.ops.tanh(dense(x)))
    called = []

    def call(operation):
        called.append(operation)
        return operation

    value = tf.ones([1, 3])
    result = internals.run_operations(model, [value], call)
    np.testing.assert_allclose(np.ravel(result), np.ravel(model(value)))
    assert dense in called


def test_a_trace_for_xla_is_known():
    seen = []

    def spy(x):
        seen.append(internals.in_xla())
        return x

    one = tf.constant(1.0)
    tf.function(spy)(one)
    tf.function(spy, jit_compile=True)(one)
    tf.function(lambda x: tf.function(spy)(x), jit_compile=True)(one)
    assert not internals.in_xla()
    assert seen == [False, True, True]


def test_a_vectorized_map_is_known_by_more_than_a_name():
    seen = []

    def spy(x):
        seen.append(internals.in_vectorized_map())
        return x * 2

    x = tf.ones([3, 2])
    tf.vectorized_map(spy, x)
    tf.function(lambda x: tf.vectorized_map(spy, x))(x)
    with tf.name_scope("loop_body"):
        tf.function(spy)(x)
        spy(x)

    @tf.function
    def named(x):
        with tf.name_scope("loop_body"):
            return spy(x)

    named(x)
    tf.map_fn(spy, x)
    assert seen[:2] == [True, True]
    assert not any(seen[2:])


def test_what_xla_lacks_is_known():
    spec = tf.TensorSpec([2], tf.float32)

    def lacking(x):
        return tf.strings.length(tf.strings.as_string(x))

    for function, known in ((lambda x: tf.tanh(x), True), (lacking, False)):
        compiled = tf.function(function, jit_compile=True)
        assert internals.compiles(compiled, [spec]) is known


def derived_by(gradient, kept):
    """A graph that takes a custom gradient, which `kept` holds after its trace."""

    @tf.custom_gradient
    def twice(x):
        return 2 * x, gradient

    def later(name):
        return lambda *given: kept[name](*given)

    @tf.function
    def derived(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = twice(x)
            name, taken = internals.take_gradient(y.op, later)
            kept[name] = taken
        return tape.gradient(y, x)

    return derived


def test_a_gradient_taken_out_is_held_by_who_took_it():
    def gradient(d):
        return 5 * d

    kept, watched = {}, weakref.ref(gradient)
    derived = derived_by(gradient, kept)
    assert derived(tf.constant(1.0)) == 5
    assert len(kept) == 1
    del gradient, derived
    gc.collect()
    assert watched() is not None
    kept.clear()
    gc.collect()
    assert watched() is None


def test_masks_of_dropout_are_those_of_keras_cells():
    """`dropout_masks` draws them before the loop and forgets them after it."""
    cell = keras.layers.LSTMCell(2, dropout=0.5)
    for name in "get_dropout_mask", "reset_dropout_mask":
        assert callable(getattr(cell, name))
        assert callable(getattr(cell, name.replace("dropout", "recurrent_dropout")))


def test_an_update_is_written_where_it_starts():
    written = internals.write_at(tf.zeros([2, 4]), tf.ones([1, 2]), [1, 1])
    np.testing.assert_array_equal(written, [[0, 0, 0, 0], [0, 1, 1, 0]])
