"""Runs a benchmark of several parts and cases; an interrupted run resumes."""

import json

import options
from checkpoint import Checkpoint, versions, write
from report import version_line

from keras_rnnkit.recurrence.shards import available_cores


def run(name, title, description, parts, markdown):
    """Measures all cases and writes `name`.md and `name`.json.

    Args:
        name: str, name of the files; `--quick` appends `-quick`.
        title: str, heading of the Markdown file.
        description: str, docstring of the script.
        parts: callable `(quick) -> [(part, cases, measure)]`; `measure(case, seed)`
            returns the result of a case.
        markdown: callable `(results) -> str`, makes the tables; `results[part]` is a
            dict of the part's results by `str(case)`.
    """
    arguments = options.parser(description).parse_args()
    name += "-quick" * arguments.quick
    settings = {"seed": arguments.seed}
    checkpoint = Checkpoint(arguments.out / f"{name}.partial.json", settings)
    load, results = options.load(), {}
    for part, cases, measure in parts(arguments.quick):
        results[part] = {}
        for number, case in enumerate(cases, 1):
            results[part][str(case)], _ = checkpoint.get(
                f"{part} {case}",
                lambda case=case, measure=measure: measure(case, arguments.seed),
            )
            print(f"{part} [{number}/{len(cases)}] {case}", flush=True)
    metadata = {
        "versions": versions(),
        "cores": available_cores(),
        "load_before": load,
        "seconds": checkpoint.seconds,
    }
    write(arguments.out / f"{name}.json", json.dumps(metadata | results, indent=1))
    write(arguments.out / f"{name}.md", heading(title, metadata) + markdown(results))
    checkpoint.delete()
    print(f"Written to {arguments.out}: {name}.md {name}.json")


def heading(title, metadata) -> str:
    """Returns the title, the library versions and the number of cores."""
    line = f"{version_line(metadata['versions'])}. {metadata['cores']} cores."
    return f"# {title}\n\n{line}\n\n"
