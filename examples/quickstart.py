"""Who is speaking? Tune, train, export and check a recurrent model on real speech.

Nine men say two vowels: 12 features per frame, 7 to 29 frames. Published accuracies
range from 0.941 (Kudo 1999) to 0.99.

    python examples/quickstart.py [--quick]

It prints, after the search:

    Best:
      learning_rate 0.00608, cell GRU, units 64, depth 1, direction both, dropout 0.4
    Training: 60 epochs on all training data

                  accuracy  parameters      size  difference   latency
    model.keras     0.9865      31,113    416 kB     0.0e+00   0.89 ms
    saved_model     0.9865      31,113    258 kB     1.8e-07   2.09 ms
    model.tflite    0.9865      31,113    183 kB     2.4e-07   0.12 ms

    Written to runs/quickstart:
      confusion.png model.keras model.tflite report.json saved_model training.png
"""

import json
import os
import shutil
import timeit

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import options
import tensorflow as tf

import keras_rnnkit as rk


def load():
    """Returns both splits, scaled by the training frames; padding stays zero."""
    train, test = map(rk.datasets.japanese_vowels, ("train", "test"))
    frames = train.x[np.arange(train.x.shape[1]) < train.lengths[:, None]]

    def scale(split):
        inside = np.arange(split.x.shape[1]) < split.lengths[:, None]
        scaled = (split.x - frames.mean(axis=0)) / frames.std(axis=0)
        return np.where(inside[..., None], scaled, 0).astype("float32"), split.y

    return scale(train), scale(test)


def build(hp, steps=None):
    """Returns the model of a trial; with `steps`, the learning rate decays to zero."""
    rate = hp.Float("learning_rate", 1e-3, 1e-2, sampling="log")
    model = keras.Sequential(
        [
            keras.Input((29, 12), name="frames"),
            keras.layers.Masking(),
            rk.tuning.recurrent_stack(hp),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(9, activation="softmax"),
        ]
    )
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps) if steps else rate
    optimizer = keras.optimizers.Adam(schedule)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def search(x, y, folder, trials, epochs, seed):
    """Returns the best hyperparameters, validated on a fifth of the training data.

    An interrupted search resumes from the trials in `folder`.
    """
    import keras_tuner

    class Search(rk.tuning.Progress, keras_tuner.RandomSearch):
        """KerasTuner's random search, with one line of progress."""

    held_out = np.arange(len(y)) % 5 == 0
    paths = {"directory": folder, "project_name": f"{trials}x{epochs}-seed-{seed}"}
    tuner = Search(build, "val_loss", max_trials=trials, seed=seed, **paths)
    validation = x[held_out], y[held_out]
    fit = {"batch_size": 16, "epochs": epochs, "verbose": 0}
    tuner.search(x[~held_out], y[~held_out], validation_data=validation, **fit)
    return tuner.get_best_hyperparameters()[0]


def export_and_compare(model, folder, x, y):
    """Exports the model to three formats, loads each and runs it on the test set."""
    model.save(folder / "model.keras")
    rk.export_saved_model(model, folder / "saved_model")
    rk.export_tflite(model, folder / "model.tflite", check=x)

    loaded = keras.models.load_model(folder / "model.keras")
    saved = tf.saved_model.load(str(folder / "saved_model"))
    lite = rk.TFLiteModel(folder / "model.tflite")
    runs = {
        "model.keras": lambda x: loaded.predict_on_batch(x),
        "saved_model": lambda x: saved.signatures["serving_default"](frames=x),
        "model.tflite": lambda x: lite.predict(frames=x),
    }
    expected = model.predict(x, verbose=0)
    rows = {}
    for name, run in runs.items():
        output = run(x)
        output = np.asarray(output["output_0"] if isinstance(output, dict) else output)
        seconds = timeit.repeat(lambda run=run: run(x[:1]), number=1, repeat=30)
        rows[name] = {
            "accuracy": float(np.mean(output.argmax(axis=1) == y)),
            "parameters": model.count_params(),
            "kilobytes": rk.export.size_of(folder / name) / 1000,
            "max_difference": float(np.abs(output - expected).max()),
            "milliseconds": 1000 * float(np.median(seconds)),
        }
    return rows


def describe(values):
    """Returns the hyperparameters as a line of text."""
    values = values | {"learning_rate": round(values["learning_rate"], 5)}
    return ", ".join(f"{name} {value}" for name, value in values.items())


def table(rows):
    """Returns a line for each format; the latency is that of one sequence."""
    head = f"\n{'':14}accuracy  parameters      size  difference   latency"
    line = "{:14}{:8.4f}{:12,}{:7.0f} kB{:12.1e}{:7.2f} ms"
    return "\n".join(
        [head, *(line.format(k, *row.values()) for k, row in rows.items())]
    )


def main():
    needs = "keras_tuner", "tensorboard", "sktime", "matplotlib"
    args = options.parser(__doc__, *needs, quick="under a minute").parse_args()
    trials, trial_epochs, epochs = (3, 6, 15) if args.quick else (10, 20, 60)
    folder = options.folder(args, "quickstart")
    (x, y), test = load()
    folder.mkdir(parents=True, exist_ok=True)

    print(f"Search: {trials} trials of {trial_epochs} epochs")
    keras.utils.set_random_seed(args.seed)
    hp = search(x, y, folder / "search", trials, trial_epochs, args.seed)
    print(f"\nBest:\n  {describe(hp.values)}")
    print(f"Training: {epochs} epochs on all training data")
    keras.utils.set_random_seed(args.seed)
    model = build(hp, steps=epochs * -(-len(y) // 16))
    history = model.fit(x, y, batch_size=16, epochs=epochs, verbose=0).history

    rows = export_and_compare(model, folder, *test)
    report = {"best": hp.values, "epochs": epochs, "seed": args.seed, "formats": rows}
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    title = f"Speaker of a vowel: test accuracy {rows['model.keras']['accuracy']:.4f}"
    rk.plots.training_curve(history, title).savefig(folder / "training.png", dpi=120)
    predicted = model.predict(test[0], verbose=0).argmax(axis=1)
    figure = rk.plots.confusion_matrix(test[1], predicted, range(1, 10), title)
    figure.savefig(folder / "confusion.png", dpi=120)
    shutil.rmtree(folder / "search")
    print(table(rows))
    written = sorted(path.name for path in folder.glob("[!.]*"))
    print(f"\nWritten to {os.path.relpath(folder)}:\n ", *written)


if __name__ == "__main__":
    main()
