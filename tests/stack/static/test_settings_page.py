"""The settings page and .env.example have the same variables and defaults."""

import re
from pathlib import Path


def test_settings_page_has_each_variable_once_with_its_default(yes_project: Path) -> None:
    example = (yes_project / ".env.example").read_text("utf-8")
    page = (yes_project / "observability/docs/settings.md").read_text("utf-8")
    # # LOKI_PORT=3100
    known = re.findall(r"(?m)^(?:# )?([A-Z_]+)=(.*)$", example)
    # | `LOKI_PORT=3100` | ...   or, in a block of code: LOKI_PORT=3100
    shown = re.findall(r"(?m)^(?:\| `)?([A-Z_]+)=([^`\n]*)", page)
    assert len(known) > 40
    assert sorted(shown) == sorted(known)
