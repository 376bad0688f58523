"""A reservoir forecasts a laser, one step ahead.

The intensity of a far-infrared laser, measured. A reservoir learns from 2,000 steps, of
which the first 200 are washed out; its settings were searched for on the 5,000 that
follow, on which the ridge is chosen as well. The error is that of the 3,000 steps after
these, the mean over ten reservoirs. Published: Rodan and Tiňo 2011.

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

LEARNED, WASHED_OUT, ASKED = 2000, 200, slice(7000, 10_000)
SETTINGS = {
    **{"spectral_radius": 0.8365, "leak_rate": 0.8942, "connectivity": 1.0},
    **{"input_scaling": 2.754, "bias_scaling": 0.2059},
}
RIDGES = [10.0**n for n in range(-10, -2)]
PUBLISHED = {100: 0.0125, 200: 0.0082}  # by units


def build(units, seed):
    """The readout sees the states, their squares, and the input."""
    x = keras.Input((None, 1))
    h = rk.ESN(units, seed=seed, **SETTINGS)(x)
    seen = keras.layers.Concatenate()([h, keras.layers.Multiply()([h, h]), x])
    return keras.Model(x, keras.layers.Dense(1)(seen))


def forecast(units, seed, series):
    """What a reservoir says of the steps asked for, one ahead each."""
    model = build(units, seed)
    x, y = series[:, :-1], series[:, 1:]
    learned, after = slice(LEARNED), slice(LEARNED, ASKED.start)
    rk.fit_readout(
        model,
        x[:, learned],
        y[:, learned],
        ridge=RIDGES,
        washout=WASHED_OUT,
        validation_data=(x[:, after], y[:, after]),
        verbose=0,
    )
    return model.predict_on_batch(x[:, : ASKED.stop])[0, ASKED, 0]


def draw(true, said, shown=600):
    """The laser, the forecast, and the error."""
    figure = rk.plots.new_figure(figsize=(8, 5))
    above, below = figure.subplots(2, sharex=True, height_ratios=[2, 1])
    above.plot(true[:shown], color=rk.plots.MUTED, linewidth=3, label="laser")
    above.plot(said[:shown], color=rk.plots.ACCENT, linewidth=1, label="one step ahead")
    rk.plots.legend_above(above)
    above.set_ylabel("intensity")
    figure.suptitle("A reservoir of 200 units foresees a laser")
    below.plot((said - true)[:shown], color=rk.plots.ACCENT, linewidth=1)
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
    true = series[0, 1:][ASKED, 0]

    print("units    NMSE  published")
    for units, published in PUBLISHED.items():
        errors = []
        for seed in range(args.seed, args.seed + (2 if args.quick else 10)):
            said = forecast(units, seed, series)
            errors.append(np.mean((said - true) ** 2) / true.var())
        print(f"{units:5}  {np.mean(errors):6.4f}  {published:9.4f}")
    folder.mkdir(parents=True, exist_ok=True)
    draw(255 * true, 255 * said).savefig(folder / "forecast.png", dpi=120)
    print(f"\nWritten to {os.path.relpath(folder)}: forecast.png")


if __name__ == "__main__":
    main()
