"""Pictures on the pages of the documentation."""

import io
import re


def show(figure):
    """Prints a matplotlib figure as an SVG that stands in the page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=False)
    svg = re.sub(r"\s*\n\s*", " ", file.getvalue().partition("<svg")[2])
    print(f'<div class="figure"><svg{svg}</div>')
