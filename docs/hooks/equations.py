"""Write equations as MathML, which browsers show without a script or a network."""

from __future__ import annotations

import html
import re

from math_core import LatexToMathML

_EQUATION = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.+?)\\[)\]]</\1>', re.DOTALL
)
"""What pymdownx.arithmatex makes of $...$ and $$...$$ in its generic mode."""


def on_page_content(content: str, **_: object) -> str:
    """Replace the LaTeX of a page.

    Raises:
        LatexError: An equation is none.
    """
    converter = LatexToMathML()

    def convert(found: re.Match[str]) -> str:
        tag, latex = found[1], html.unescape(found[2])
        equation = converter.convert_with_local_state(latex, displaystyle=tag == "div")
        return f'<{tag} class="equation">{equation}</{tag}>'

    return _EQUATION.sub(convert, content)
