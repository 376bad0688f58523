"""A reservoir forecasts a laser, one step ahead.

The series is the measured intensity of a far-infrared laser. A reservoir learns from
2,000 steps with a washout of 200. Its settings come from a search on the next 5,000
steps, which also choose the ridge. The error is that of the 3,000 steps after these,
the mean over ten reservoirs. Published errors are from Rodan and Tiňo 2011.

    python examples/santa_fe.py [--quick]

It prints:

    units    NMSE  published
      100  0.0064     0.0125
      200  0.0045     0.0082

    Written to runs/santa_fe: forecast.png
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import options

import keras_rnnkit as rk

TRAINING_STEPS, WASHOUT, TEST = 2000, 200, slice(7000, 10_000)
SETTINGS = {
    **{"spectral_radius": 0.8365, "leak_rate": 0.8942, "connectivity": 1.0},
    **{"input_scaling": 2.754, "bias_scaling": 0.2059},
}
RIDGES = [10.0**n for n in range(-10, -2)]
PUBLISHED = {100: 0.0125, 200: 0.0082}  # by units


def build(units, seed):
    """Returns a reservoir with a readout of states, their squares, and the input."""
    x = keras.Input((None, 1))
    h = rk.ESN(units, seed=seed, **SETTINGS)(x)
    features = keras.layers.Concatenate()([h, keras.layers.Multiply()([h, h]), x])
    return keras.Model(x, keras.layers.Dense(1)(features))


def forecast(units, seed, series):
    """Returns the one-step forecasts of the test steps."""
    model = build(units, seed)
    x, y = series[:, :-1], series[:, 1:]
    train, validation = slice(TRAINING_STEPS), slice(TRAINING_STEPS, TEST.start)
    rk.fit_readout(
        model,
        x[:, train],
        y[:, train],
        ridge=RIDGES,
        washout=WASHOUT,
        validation_data=(x[:, validation], y[:, validation]),
        verbose=0,
    )
    return model.predict_on_batch(x[:, : TEST.stop])[0, TEST, 0]


def draw(true, predicted, shown=600):
    """Plots the laser, the forecast and its error."""
    figure = rk.plots.new_figure(figsize=(8, 5))
    above, below = figure.subplots(2, sharex=True, height_ratios=[2, 1])
    above.plot(true[:shown], color=rk.plots.MUTED, linewidth=3, label="laser")
    style = {"color": rk.plots.ACCENT, "linewidth": 1}
    above.plot(predicted[:shown], **style, label="one step ahead")
    rk.plots.legend_above(above)
    above.set_ylabel("intensity")
    figure.suptitle("A reservoir of 200 units foresees a laser")
    below.plot((predicted - true)[:shown], **style)
    below.set(xlabel="steps", ylabel="error", xlim=(0, shown))
    for panel in (above, below):
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def main():
    needs = "reservoirpy", "matplotlib"
    args = options.parser(__doc__, *needs, quick="two reservoirs, not ten").parse_args()
    folder = options.folder(args, "santa_fe")
    keras.config.set_dtype_policy("float64")
    series = rk.datasets.santa_fe() / 255
    true = series[0, 1:][TEST, 0]

    print("units    NMSE  published")
    for units, published in PUBLISHED.items():
        errors = []
        for seed in range(args.seed, args.seed + (2 if args.quick else 10)):
            predicted = forecast(units, seed, series)
            errors.append(np.mean((predicted - true) ** 2) / true.var())
        print(f"{units:5}  {np.mean(errors):6.4f}  {published:9.4f}")
    folder.mkdir(parents=True, exist_ok=True)
    draw(255 * true, 255 * predicted).savefig(folder / "forecast.png", dpi=120)
    print(f"\nWritten to {os.path.relpath(folder)}: forecast.png")


if __name__ == "__main__":
    main()
