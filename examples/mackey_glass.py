"""A reservoir forecasts a chaotic series in closed loop.

An echo state network learns the Mackey-Glass series without gradients, then continues
it from its own output. The error is that of step 84 over 100 other series, each after a
warm-up of 2,000 steps, and the mean over ten reservoirs. Published errors are from
Jaeger 2001 and Jaeger and Haas 2004.

    python examples/mackey_glass.py [--quick]

It prints:

    units   steps  NRMSE of step 84  published
      400    3000           1.8e-04    2.8e-04
      400   21000           7.8e-05    1.2e-04
     1000   21000           1.8e-05    6.3e-05

    Written to runs/mackey_glass: forecast.png
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import options

import keras_rnnkit as rk

AHEAD, WARM_UP, TRIALS, SHOWN = 84, 2000, 100, 500
SETTINGS = {"leak_rate": 0.8, "input_scaling": 0.5}
SMALL = {"spectral_radius": 0.95, "ridge": 1e-11}
LARGE = {"spectral_radius": 1.1, "bias_scaling": 0.2, "ridge": 1e-9}
CASES = {  # (units, steps): (settings, published error)
    (400, 3000): (SMALL, 2.8e-4),
    (400, 21000): (SMALL, 1.2e-4),
    (1000, 21000): (LARGE, 6.3e-5),
}


def build(units, seed, **settings):
    """Returns a reservoir with a readout of states, their squares, and the input."""
    x = keras.Input((None, 1))
    h = rk.ESN(units, seed=seed, **SETTINGS, **settings)(x)
    features = keras.layers.Concatenate()([h, keras.layers.Multiply()([h, h]), x])
    return keras.Model(x, keras.layers.Dense(1)(features))


def train(units, steps, seed, ridge, **settings):
    """Returns a one-step model and the standard deviation of its training series."""
    series = rk.datasets.mackey_glass(steps + 1, seed=seed)
    model = build(units, seed, **settings)
    rk.fit_readout(
        model,
        series[:, :-1],
        series[:, 1:],
        ridge=ridge,
        washout=steps // 10,
        verbose=0,
    )
    return model, series.std()


def draw(true, predicted):
    """Plots the series, the forecast and its error."""
    figure = rk.plots.new_figure(figsize=(8, 5.4))
    above, below = figure.subplots(2, sharex=True, height_ratios=[2, 1])
    above.plot(true, color=rk.plots.MUTED, linewidth=3, label="Mackey-Glass")
    above.plot(predicted, color=rk.plots.ACCENT, label="reservoir, fed its own output")
    rk.plots.legend_above(above)
    above.set_ylabel("value")
    figure.suptitle("A reservoir of 400 units goes on by itself")
    below.semilogy(np.maximum(abs(true - predicted), 1e-8), color=rk.plots.ACCENT)
    below.axvline(AHEAD, color=rk.plots.MUTED, linewidth=1, label=f"step {AHEAD}")
    rk.plots.legend_above(below)
    below.set(xlabel="steps ahead", ylabel="error", xlim=(0, len(true)))
    for panel in (above, below):
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def main():
    quick = "two small reservoirs"
    args = options.parser(__doc__, "matplotlib", quick=quick).parse_args()
    folder = options.folder(args, "mackey_glass")
    keras.config.set_dtype_policy("float64")

    trials = rk.datasets.mackey_glass(
        WARM_UP + SHOWN, rows=TRIALS, seed=args.seed + 1000
    )
    warmup, after = trials[:, :WARM_UP], trials[:, WARM_UP:]
    cases = dict(list(CASES.items())[: 1 if args.quick else None])
    print("units   steps  NRMSE of step 84  published")
    for (units, steps), (settings, published) in cases.items():
        errors = []
        for seed in range(args.seed, args.seed + (2 if args.quick else 10)):
            model, deviation = train(units, steps, seed, **settings)
            predicted = rk.forecast(model, warmup, AHEAD)[:, -1]
            error = np.sqrt(np.mean((predicted - after[:, AHEAD - 1]) ** 2)) / deviation
            errors.append(error)
        print(f"{units:5}  {steps:6}  {np.mean(errors):16.1e}  {published:9.1e}")
        if steps == 3000 and units == 400:
            predicted = rk.forecast(model, warmup[:1], SHOWN)
            figure = draw(after[0, :, 0], predicted[0, :, 0])
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / "forecast.png", dpi=120)
    print(f"\nWritten to {os.path.relpath(folder)}: forecast.png")


if __name__ == "__main__":
    main()
