"""The Jinja templates of pages and report, with the script that all of them carry.

The script stands in the page, and its digest in the page's policy: a browser runs it and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template

FILTERED = 20
"""Tables of more rows have a field that filters them."""


def template(name: str) -> Template:
    """A template by its file name; it escapes every value."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).with_name("templates")
    script = folder.joinpath("page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {"script": script, "script_digest": f"sha256-{digest}"}
    return environment.get_template(name)
