"""Figures on the pages of the documentation."""

import io
import re


def svg(figure) -> str:
    """Returns a matplotlib figure as HTML with an inline SVG."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue().partition("<svg")[2]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*\n\s*", " ", text)
    return f'<div class="figure"><svg{text}</div>'
