"""A benchmark in parts, each of several cases; a run that was stopped goes on."""

import json

import options
from kept import Kept, versions, write
from report import version_line

from keras_rnnkit.recurrence.shards import available_cores


def run(name, title, description, parts, markdown):
    """Measures all cases, and writes `name`.md and `name`.json.

    Args:
        name: of the files; `-quick` is added with `--quick`.
        title: of the tables.
        description: of the script.
        parts: callable `(quick) -> [(part, cases, measure)]`, of which `measure` takes
            a case and the seed.
        markdown: callable `results -> str`, the tables; results are dicts by the part
            and the case as a str.
    """
    arguments = options.parser(description).parse_args()
    name += "-quick" * arguments.quick
    kept = Kept(arguments.out / f"{name}.partial.json", {"seed": arguments.seed})
    load, results = options.load(), {}
    for part, cases, measure in parts(arguments.quick):
        results[part] = {}
        for number, case in enumerate(cases, 1):
            results[part][str(case)], _ = kept.get(
                f"{part} {case}",
                lambda case=case, measure=measure: measure(case, arguments.seed),
            )
            print(f"{part} [{number}/{len(cases)}] {case}", flush=True)
    facts = {
        "versions": versions(),
        "cores": available_cores(),
        "load_before": load,
        "seconds": kept.seconds,
    }
    write(arguments.out / f"{name}.json", json.dumps(facts | results, indent=1))
    write(arguments.out / f"{name}.md", heading(title, facts) + markdown(results))
    kept.delete()
    print(f"Written to {arguments.out}: {name}.md {name}.json")


def heading(title, facts) -> str:
    """The title, and what was measured with."""
    line = f"{version_line(facts['versions'])}. {facts['cores']} cores."
    return f"# {title}\n\n{line}\n\n"
