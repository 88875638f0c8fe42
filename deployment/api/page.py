"""The page that the API shows in a browser: a form for one wine, and its grade as a picture.

It is one HTML file with style and script inside, and sends requests only to the API.
"""

import base64
import hashlib
import re
from functools import lru_cache
from html import escape
from pathlib import Path

from wine_data.schema import (
    BOUNDS,
    CATEGORY,
    EXAMPLE,
    FLAGS,
    MEASUREMENTS,
    PURPOSE,
    RATERS,
    ROW,
    ROWS,
    SEEN,
    TITLE,
    TYPES,
    WineQuality,
)

PAGE = Path(__file__).with_name("page.html")
TEXTS = {"title": TITLE, "purpose": PURPOSE, "row": ROW, "rows": ROWS, "raters": RATERS}


@lru_cache(maxsize=1)
def render_page(name: str, version: str, needs_key: bool = False) -> str:
    """Render the page for the serving model; if a key is needed, the page keeps it only in its field."""
    page = PAGE.read_text(encoding="utf-8")
    if not needs_key:
        page = re.sub("<!--key-->.*<!--/key-->", "", page, flags=re.DOTALL)
    fields = "\n".join([*map(_render_choice, FLAGS), *map(_render_measurement, MEASUREMENTS)])
    page = page.replace("<!--fields-->", fields)
    for place, text in TEXTS.items():
        page = page.replace(f"<!--{place}-->", escape(text))
    page = page.replace("<!--key-->", "").replace("<!--/key-->", "")
    return page.replace("<!--model-->", escape(f"{name} version {version}"))


def find_policy(page: str) -> str:
    """The Content-Security-Policy of a page: it allows its own style and script and its own API, nothing else."""
    style, script = (_hash_element(page, element) for element in ("style", "script"))
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash_element(page: str, element: str) -> str:
    """Hash the content of an element as CSP Level 3 requires: SHA-256 in base64, of the text in UTF-8."""
    found = re.search(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    assert found is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"


def _render_measurement(name: str) -> str:
    example, (low, high), (seen_low, seen_high) = EXAMPLE[name], BOUNDS[name], SEEN[name]
    return f"""<div>
<label for="{name}"><span id="{name}-name">{escape(_title(name))}</span>
<span class="unit">{_render_unit(name)}</span></label>
<input type="number" step="any" inputmode="decimal" required data-feature id="{name}" name="{name}" value="{example:g}"
 min="{low:g}" max="{high:g}" aria-describedby="{name}-seen {name}-wrong">
<p class="seen" id="{name}-seen">seen: {seen_low:g} to {seen_high:g}</p>
<p class="wrong" id="{name}-wrong"></p>
</div>"""


def _render_choice(flag: str) -> str:
    choices = "\n".join(
        f'<label><input type="radio" data-feature name="{flag}" value="{value}" aria-describedby="{flag}-wrong"'
        f"{' checked' if value == EXAMPLE[flag] else ''}><span>{escape(kind.capitalize())}</span></label>"
        for value, kind in enumerate(reversed(TYPES))
    )
    return f"""<div role="radiogroup" aria-labelledby="{flag}-name">
<div class="label"><span id="{flag}-name">{escape(CATEGORY.capitalize())}</span>
<span class="unit">of the {ROW}</span></div>
<div class="choices">
{choices}
</div>
<p class="wrong" id="{flag}-wrong"></p>
</div>"""


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize() if name.islower() else name  # pH keeps its spelling


def _render_unit(name: str) -> str:
    unit = WineQuality.model_fields[name].description or ""
    return escape(re.sub(r"\b([dc])m3\b", r"\1m³", unit))
