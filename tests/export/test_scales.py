"""Files of integers: what moves numbers keeps their scale, and faults are caught."""

import copy

import flatbuffers
import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_rnnkit as rk
from keras_rnnkit.export.checks import check_scales
from keras_rnnkit.export.difference import Differences
from keras_rnnkit.export.flatbuffer import IDENTIFIER, parse
from keras_rnnkit.export.scale_repair import repair_scales
from keras_rnnkit.export.scales import (
    MOVES,
    PRODUCTS,
    find_scale_errors,
    name_of,
    scale_of,
)
from tests.helpers import randomize

TOLERANCE = 0.2  # the default of files of 8 bits


def moved(x):
    """Outputs of all that moves numbers."""
    y = layers.Dense(8)(x)
    left, right = ops.split(y, 2, axis=2)
    first, second, *_ = ops.unstack(y, axis=1)
    return [
        ops.flip(y, 1),
        ops.transpose(ops.tile(y, (1, 2, 1)), (0, 2, 1)),
        ops.pad(y, ((0, 0), (1, 1), (0, 0))),
        ops.pad(y, ((0, 0), (1, 1), (0, 0)), constant_values=0.7),
        ops.pad(y, ((0, 0), (1, 1), (0, 0)), mode="reflect"),
        ops.concatenate([right, left], axis=2),
        ops.stack([first, second], axis=1),
        ops.maximum(y, layers.Dense(8)(x)),
        ops.where(x[:, :, :1] > 0, y, layers.Dense(8)(x)),
        ops.take(y, [3, 1, 0], axis=1),
        ops.max(y, axis=1),
        y[:, 1:5:2],
        layers.MaxPooling1D(2)(y),
        layers.AveragePooling1D(2)(y),
        layers.UpSampling1D(2)(y),
        layers.Dense(3)(ops.one_hot(ops.cast(x[:, :, 0] > 0, "int32"), 2)),
        layers.Dense(4)(layers.Bidirectional(layers.LSTM(4))(y)),
    ]


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """A model, data, and a file of 8 bits."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((6, 4), name="x")
    model = keras.Model(inputs, moved(inputs))
    randomize(model, rng, scale=0.5)
    data = rng.normal(size=(60, 6, 4)).astype("float32")
    path = tmp_path_factory.mktemp("right") / "m.tflite"
    rk.export_tflite(model, path, quantize="int8", representative_data=data)
    return model, data, path.read_bytes()


def packed(model):
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def check_answers(content, model, data):
    """Raises unless a file answers as its model does, in every part."""
    file = rk.TFLiteModel(content)
    calls = [{"x": x[None]} for x in data]
    differences = Differences("m", calls, file.output_scales)
    expected = [np.asarray(y) for y in model(data)]
    for number, call in enumerate(calls):
        wanted = {f"output_{i}": y[number, None] for i, y in enumerate(expected)}
        differences.add(file(**call), wanted)
    differences.check(TOLERANCE, quantized=True)


def rms_error(got, want):
    return np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2))


def errors_of(model, x, quantize, folder):
    """The error of each output of a quantized file."""
    path = folder / "m.tflite"
    rk.export_tflite(model, path, quantize=quantize, representative_data=x)
    got = rk.TFLiteModel(path).predict(x=x)
    return [
        rms_error(got[f"output_{number}"], np.asarray(y))
        for number, y in enumerate(model(x))
    ]


def scaled(tensor, factor):
    """Has a tensor's integers stand for numbers that are larger by a factor."""
    tensor.quantization = copy.copy(tensor.quantization)
    tensor.quantization.scale = np.float32(tensor.quantization.scale * factor)


def places(content):
    """The operations of a file that move numbers or add a bias: place and name."""
    model = parse(content)
    (graph,) = model.subgraphs
    for place, op in enumerate(graph.operators):
        name = name_of(model, op)
        if name in MOVES or name in PRODUCTS:
            yield place, name


def test_the_file_is_right_and_holds_what_is_planted_in(right):
    model, data, content = right
    check_answers(content, model, data)
    check_scales(content)
    names = {name for _, name in places(content)}
    assert names >= {
        *("REVERSE_V2", "TRANSPOSE", "TILE", "PAD", "PADV2", "MIRROR_PAD", "SPLIT"),
        *("CONCATENATION", "PACK", "MAXIMUM", "SELECT_V2", "GATHER", "REDUCE_MAX"),
        *("STRIDED_SLICE", "MAX_POOL_2D", "AVERAGE_POOL_2D", "ONE_HOT", "UNPACK"),
        *("FULLY_CONNECTED", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
    }


@pytest.mark.parametrize("factor", [0.7, 1.25, 2.0])
def test_a_scale_that_changes_on_the_way_is_caught_and_mended(right, factor):
    model, data, content = right
    for place, name in places(content):
        planted = parse(content)
        (graph,) = planted.subgraphs
        op = graph.operators[place]
        if name in MOVES:
            changed = [t for t in (graph.tensors[i] for i in op.outputs) if scale_of(t)]
            if not changed:  # it moves what stands for itself
                continue
        else:
            bias = PRODUCTS[name][0][2]
            if len(op.inputs) <= bias or op.inputs[bias] < 0:
                continue
            changed = [graph.tensors[op.inputs[bias]]]
        for tensor in changed:
            scaled(tensor, factor)
        assert any(fault.startswith(name) for fault in find_scale_errors(planted)), name
        with pytest.raises(RuntimeError, match=f"{name} of .*: nothing was written"):
            check_scales(packed(planted))
        if name in MOVES:  # The numbers are as they were, read on another scale.
            repair_scales(planted)
            assert find_scale_errors(planted) == []
            if factor > 1:  # else it clips
                check_answers(packed(planted), model, data)


def test_a_constant_in_another_scale_is_written_once_more(right):
    model, data, content = right
    for name, place in ("ONE_HOT", 3), ("PADV2", 2), ("FULLY_CONNECTED", 2):
        planted = parse(content)
        (graph,) = planted.subgraphs
        op = next(
            op
            for op in graph.operators
            if name_of(planted, op) == name
            and len(op.inputs) > place
            and op.inputs[place] >= 0
        )
        tensor = graph.tensors[op.inputs[place]]
        data_before = planted.buffers[tensor.buffer].data
        dtype = np.int8 if name != "FULLY_CONNECTED" else np.int32
        values = np.frombuffer(data_before.tobytes(), dtype).astype(int)
        # The same numbers in a scale that is twice as coarse, about another zero
        zero = 0 if name == "FULLY_CONNECTED" else 3
        old = scale_of(tensor)
        new = np.rint((values - old.zero) / 2).astype(int) + zero
        scaled(tensor, 2)
        tensor.quantization.zeroPoint = np.full_like(
            tensor.quantization.zeroPoint, zero
        )
        buffer = copy.copy(planted.buffers[tensor.buffer])
        buffer.data = np.frombuffer(new.astype(dtype).tobytes(), np.uint8)
        planted.buffers.append(buffer)
        tensor.buffer = len(planted.buffers) - 1
        assert any(fault.startswith(name) for fault in find_scale_errors(planted))
        repair_scales(planted)
        assert find_scale_errors(planted) == []
        check_answers(packed(planted), model, data)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_wrong_scale_of_weights_or_of_an_output_does_not_pass(right, factor):
    """No rule tells of these: the numbers do."""
    model, data, content = right
    planted = parse(content)
    (graph,) = planted.subgraphs
    for op in graph.operators:
        if name_of(planted, op) == "UNIDIRECTIONAL_SEQUENCE_LSTM":
            for place in range(1, 5):  # of one direction alone
                scaled(graph.tensors[op.inputs[place]], 2 * factor)
                scaled(graph.tensors[op.inputs[place + 11]], 2 * factor)
            break
    assert find_scale_errors(planted) == []
    with pytest.raises(ValueError, match="must agree with"):
        check_answers(packed(planted), model, data)
    # What computes an output writes it in its scale, whatever that is.
    (graph,) = parse(content).subgraphs
    made = {n: name_of(planted, op) for op in graph.operators for n in op.outputs}
    for number in graph.outputs:
        if made[number] not in MOVES:
            continue
        planted = parse(content)
        scaled(planted.subgraphs[0].tensors[number], factor)
        # Some kernels look at scales themselves.
        caught = "must agree with|prepare|scale"
        with pytest.raises((ValueError, RuntimeError), match=caught):
            check_answers(packed(planted), model, data)


@pytest.mark.parametrize("units", [4, 16])
@pytest.mark.parametrize("seed", [1, 2])
def test_both_directions_of_8_bits_are_right(units, seed, tmp_path):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 16, 8)).astype("float32")
    layer = layers.Bidirectional(layers.LSTM(units, return_sequences=True))
    model = keras.Sequential([keras.Input((16, 8), name="x"), layer])
    randomize(model, rng, scale=0.3)
    path = tmp_path / "m.tflite"
    report = rk.export_tflite(model, path, quantize="int8", representative_data=x)
    got = rk.TFLiteModel(path).predict(x=x)["output_0"]
    want = np.asarray(model(x))
    for half in np.s_[..., :units], np.s_[..., units:]:
        assert rms_error(got[half], want[half]) < 0.03
    assert report.worst_rms < 0.05


@pytest.mark.parametrize("layer", [layers.SimpleRNN, layers.LSTM, layers.GRU])
def test_vectors_that_are_made_of_tokens_inside_are_right(layer, rng, tmp_path):
    tokens = rng.integers(0, 5, (60, 6)).astype("int32")
    inputs = keras.Input((6,), dtype="int32", name="x")
    model = keras.Model(inputs, layer(4)(ops.one_hot(inputs, 5)))
    randomize(model, rng, scale=0.4)
    report = rk.export_tflite(
        model, tmp_path / "m.tflite", quantize="int8", representative_data=tokens
    )
    assert report.rms_relative < 0.06
    assert report.worst_rms < 0.1


class Joined(layers.Layer):
    """h = activation(Dense([x, h])): a cell that is not told apart."""

    def __init__(self, units, activation, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.dense = layers.Dense(units, activation)

    def build(self, shape):
        self.dense.build((None, shape[-1] + self.units))
        self.built = True

    def call(self, x, states):
        h = self.dense(ops.concatenate([x, states[0]], -1))
        return h, [h]


@pytest.mark.parametrize("quantize", ["int8", "int16x8"])
def test_a_value_of_a_fixed_scale_is_joined_with_others(quantize, rng, tmp_path):
    x = rng.normal(size=(60, 5, 2)).astype("float32")
    inputs = keras.Input((5, 2), name="x")
    y = rk.RNN(Joined(4, "tanh"), return_sequences=True)(inputs)
    z = layers.Concatenate()([y, 3 * inputs, layers.Dense(2, "sigmoid")(y)])
    model = keras.Model(inputs, [layers.Dense(2)(z), ops.maximum(y, 0.1)])
    randomize(model, rng, scale=0.5)
    assert max(errors_of(model, x, quantize, tmp_path)) < 0.06


@pytest.mark.parametrize("quantize", ["int8", "int16x8"])
def test_a_layer_that_is_called_on_different_ranges_keeps_its_bias(
    quantize, rng, tmp_path
):
    x = rng.normal(size=(60, 6, 4)).astype("float32")
    inputs, dense = keras.Input((6, 4), name="x"), layers.Dense(4, name="shared")
    conv = layers.Conv1D(4, 3, padding="same")
    outputs = [dense(inputs), dense(10 * inputs), conv(0.1 * inputs), conv(5 * inputs)]
    model = keras.Model(inputs, outputs)
    randomize(model, rng)
    assert max(errors_of(model, x, quantize, tmp_path)) < 0.03
