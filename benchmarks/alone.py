"""What is measured in a process of its own: the first step of `fit`, and memory.

The process is this file, run with a JSON list: the task's name and its arguments.
"""

import json
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CALLS = 3


def in_own_process(task: str, *arguments):
    """What the function `task` of `DONE` returns, run in a new process.

    Raises:
        RuntimeError: the process failed.
    """
    command = [sys.executable, __file__, json.dumps([task, *arguments])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{task} of {arguments} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def first_step(contestant: str, layer: str, task: str) -> float:
    """The seconds from the call of `fit` to the end of its first step.

    Not to its return: there TensorFlow's data pipeline, when it is taken down, waits
    for half a second or not, by chance.
    """
    import keras
    import models

    ends = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
    )
    x, y, size = models.TASKS[task]()
    batch = models.Task([part[:size] for part in x], y[:size], size)
    model = models.make_model(contestant, layer, batch)
    start = time.perf_counter()
    models.fit(model, batch, [clock])
    return ends[0] - start


def memory(contestant: str, case: list, seed: int) -> dict[str, float]:
    """The MB of the peak after some calls, and by how many they raised it."""
    import contestants
    from cases import Case

    before = peak()
    call = contestants.build(Case(*case), seed, only=[contestant])[contestant].call
    for _ in range(CALLS):
        call()
    return {"whole": peak() / 1e6, "raised": (peak() - before) / 1e6}


def peak() -> int:
    """The most bytes that the process has had in memory.

    `ru_maxrss` comes second: Linux hands that of the parent on to a new process.
    """
    try:
        with open("/proc/self/status") as status:
            sizes = [line.split()[1] for line in status if line.startswith("VmHWM")]
            return 1024 * int(sizes[0])
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


DONE = {"first step": first_step, "memory": memory}

if __name__ == "__main__":
    task, *arguments = json.loads(sys.argv[1])
    print(json.dumps(DONE[task](*arguments)))
