"""Who is speaking? Tune, train, export and check a recurrent model on real speech.

Nine men say a vowel, 12 numbers a frame, 7 to 29 frames. Published accuracies reach
from 0.941 (Kudo 1999) to 0.99.

    python examples/quickstart.py [--quick]
"""

import argparse
import json
import os
import shutil
import timeit
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner
import numpy as np
import tensorflow as tf

import keras_rnnkit as rk

HERE = Path(__file__).resolve().parent.parent / "saved_models"


class Search(rk.tuning.Progress, keras_tuner.RandomSearch):
    """KerasTuner's random search, with one line of progress."""


def load():
    """The two splits, scaled by the training frames; padding stays zero."""
    train, test = map(rk.datasets.japanese_vowels, ("train", "test"))
    frames = train.x[np.arange(train.x.shape[1]) < train.lengths[:, None]]

    def scale(split):
        inside = np.arange(split.x.shape[1]) < split.lengths[:, None]
        scaled = (split.x - frames.mean(axis=0)) / frames.std(axis=0)
        return np.where(inside[..., None], scaled, 0).astype("float32"), split.y

    return scale(train), scale(test)


def build(hp, steps=None):
    """The model of a trial; its learning rate falls to zero over `steps`."""
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


def search(train, folder, trials, epochs, seed):
    """The best hyperparameters, by validation on a fifth of the training data."""
    x, y = train
    held_out = np.arange(len(y)) % 5 == 0
    tuner = Search(
        build,
        objective="val_loss",
        max_trials=trials,
        seed=seed,
        directory=folder,
        project_name="search",
    )
    tuner.search(
        x[~held_out],
        y[~held_out],
        validation_data=(x[held_out], y[held_out]),
        batch_size=16,
        epochs=epochs,
        verbose=0,
    )
    return tuner.get_best_hyperparameters()[0]


def export_and_compare(model, output, x, y):
    """Writes the model in three formats, loads each again and runs all of the test."""
    model.save(output / "model.keras")
    rk.export_saved_model(model, output / "saved_model")
    rk.export_tflite(model, output / "model.tflite", check=x)

    loaded = keras.models.load_model(output / "model.keras")
    serving = tf.saved_model.load(str(output / "saved_model")).signatures
    lite = rk.TFLiteModel(output / "model.tflite")
    runs = {
        "model.keras": lambda x: loaded.predict_on_batch(x),
        "saved_model": lambda x: serving["serving_default"](frames=x)["output_0"],
        "model.tflite": lambda x: lite.predict(frames=x)["output_0"],
    }
    expected = model.predict(x, verbose=0)
    rows = {}
    for name, run in runs.items():
        probabilities = np.asarray(run(x))
        seconds = timeit.repeat(lambda run=run: run(x[:1]), number=1, repeat=30)
        rows[name] = {
            "accuracy": float(np.mean(probabilities.argmax(axis=1) == y)),
            "parameters": model.count_params(),
            "kilobytes": rk.export.size_of(output / name) / 1000,
            "max_difference": float(np.abs(probabilities - expected).max()),
            "milliseconds": 1000 * float(np.median(seconds)),
        }
    return rows


def print_table(rows):
    """One line a format: all run over the whole test set, latency for one sequence."""
    print(f"\n{'':14}{'accuracy':>9}{'parameters':>12}{'size':>10}", end="")
    print(f"{'difference':>12}{'latency':>10}")
    for name, row in rows.items():
        print(
            f"{name:14}{row['accuracy']:9.4f}{row['parameters']:12,}"
            f"{row['kilobytes']:7.0f} kB{row['max_difference']:12.1e}"
            f"{row['milliseconds']:7.2f} ms"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute, not four")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder of what is written")
    args = parser.parse_args()
    trials, trial_epochs, epochs = (3, 10, 20) if args.quick else (10, 20, 60)
    output = args.output or HERE / ("quickstart-quick" if args.quick else "quickstart")
    output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(args.seed)
    train, (x_test, y_test) = load()

    print(f"Search: {trials} trials of {trial_epochs} epochs")
    hp = search(train, output, trials, trial_epochs, args.seed)
    print(f"\nBest: {hp.values}\nTraining: {epochs} epochs on all training data")
    keras.utils.set_random_seed(args.seed)
    model = build(hp, steps=epochs * -(-len(train[1]) // 16))
    history = model.fit(*train, batch_size=16, epochs=epochs, verbose=0).history

    rows = export_and_compare(model, output, x_test, y_test)
    names = [str(number + 1) for number in range(9)]
    predicted = model.predict(x_test, verbose=0).argmax(axis=1)
    rk.plots.training_curve(history).savefig(output / "training.png", dpi=120)
    rk.plots.confusion_matrix(y_test, predicted, names).savefig(
        output / "confusion.png", dpi=120
    )
    report = {"best": hp.values, "epochs": epochs, "seed": args.seed, "formats": rows}
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    shutil.rmtree(output / "search")  # kept until here, to resume a stopped search
    print_table(rows)
    print(f"\nWritten to {os.path.relpath(output)}:", *sorted(os.listdir(output)))


if __name__ == "__main__":
    main()
