"""From a stock Keras model to files for a phone, and what each of them costs.

A `keras.layers.LSTM` learns to name the speaker of a vowel. It is exported to TFLite in
float32, with weights in 8 or 16 bits, entirely in 8 bits, and as a streaming model that
takes one frame at a time. Each file runs over the whole test set.

    python examples/export_to_mobile.py [--quick]

It prints, after training:

    Keras: accuracy 0.9649 on 370 utterances

    file       accuracy      size  difference   latency  lstm
    float32      0.9649     98 kB     2.0e-06     36 us  loop
    float16      0.9649     58 kB     6.1e-04     57 us  loop
    dynamic      0.9649     49 kB     4.5e-02     35 us  loop
    int8         0.9676     30 kB     4.9e-02    566 us  fused
    streaming    0.9649     86 kB     2.0e-06      2 us  unrolled

    Written to runs/mobile; streaming.png: frame by frame
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import options
from quickstart import load

import keras_rnnkit as rk

FILES = {
    "float32": {},
    "float16": {"quantize": "float16"},
    "dynamic": {"quantize": "dynamic"},
    "int8": {"quantize": "int8"},
    "streaming": {"streaming": True},
}


def pad_left(x):
    """Moves the padding of each utterance to its beginning, where it needs no mask."""
    lengths = (x != 0).any(axis=2).sum(axis=1)
    return np.stack(
        [np.roll(row, -n, axis=0) for row, n in zip(x, lengths, strict=True)]
    )


def train(x, y, epochs):
    """Returns a trained model of stock Keras layers."""
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:], name="frames"),
            keras.layers.LSTM(64, name="lstm"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(9, activation="softmax"),
        ]
    )
    schedule = keras.optimizers.schedules.CosineDecay(0.005, epochs * -(-len(x) // 16))
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=16, epochs=epochs, verbose=0)
    return model


def accuracy(probabilities, y):
    return float(np.mean(probabilities.argmax(axis=-1) == y))


def stream(path, x):
    """Returns the streaming file's output at each frame, `(rows, frames, speakers)`."""
    model = rk.StreamingModel(path)
    predicted = []
    for row in x:
        model.reset()
        predicted.append([model.step(frame[None, None])[0] for frame in row])
    return np.array(predicted)


def draw(curve):
    """Plots the test accuracy after each frame."""
    figure = rk.plots.new_figure(figsize=(6, 3.4))
    panel = figure.subplots()
    panel.plot(range(1, len(curve) + 1), curve, color=rk.plots.ACCENT)
    panel.set(xlabel="frames heard", ylabel="test accuracy", xlim=(1, len(curve)))
    panel.set_title("Who is speaking? The streaming file, frame by frame")
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def main():
    needs = "sktime", "matplotlib"
    args = options.parser(__doc__, *needs, quick="under a minute").parse_args()
    folder = options.folder(args, "mobile")
    (x, y), (x_test, y_test) = ((pad_left(x), y) for x, y in load())
    folder.mkdir(parents=True, exist_ok=True)

    keras.utils.set_random_seed(args.seed)
    model = train(x, y, epochs=20 if args.quick else 60)
    predicted = model.predict(x_test, verbose=0)
    share = accuracy(predicted, y_test)
    print(f"Keras: accuracy {share:.4f} on {len(y_test)} utterances\n")

    print("file       accuracy      size  difference   latency  lstm")
    for name, arguments in FILES.items():
        path = folder / f"{name}.tflite"
        data = {"representative_data": x} if name == "int8" else {}
        report = rk.export_tflite(model, path, check=x_test, **arguments, **data)
        if name == "streaming":
            by_frame = stream(path, x_test)
            predicted = by_frame[:, -1]
        else:
            predicted = rk.TFLiteModel(path).predict(frames=x_test)["output_0"]
        print(
            f"{name:10} {accuracy(predicted, y_test):8.4f} {report.size / 1000:6.0f} kB"
            f"{report.max_absolute:12.1e} {report.latency * 1e6:6.0f} us"
            f"  {report.layers['lstm']['form']}"
        )

    curve = [accuracy(by_frame[:, t], y_test) for t in range(x.shape[1])]
    draw(curve).savefig(folder / "streaming.png", dpi=120)
    print(f"\nWritten to {os.path.relpath(folder)}; streaming.png: frame by frame")


if __name__ == "__main__":
    main()
