"""Rewrite all dashboards, such as those exported by Grafana, in the one format that the tests accept.

Run it as ``python -m scripts.format_dashboards``.
"""

import json
from pathlib import Path

FOLDER = "{{cookiecutter.project_slug}}/observability/grafana/dashboards"
DASHBOARDS = sorted((Path(__file__).resolve().parents[1] / FOLDER).glob("*.json"))
LINE_LENGTH = 100


def formatted(value: object, indent: str = "", taken: int = 0) -> str:
    """Return JSON in which what fits on a line is on one line, indented by two spaces.

    Args:
        value: What to write.
        indent: Blanks at the start of the lines around it.
        taken: Characters that its first line already has.
    """
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + taken < LINE_LENGTH or not isinstance(value, dict | list) or not value:
        return line
    inner = indent + "  "
    if isinstance(value, list):
        parts = [formatted(item, inner, len(inner)) for item in value]
    else:
        keys = ((f"{json.dumps(key)}: ", item) for key, item in value.items())
        parts = [key + formatted(item, inner, len(inner + key)) for key, item in keys]
    opening, closing = "[]" if isinstance(value, list) else "{}"
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{closing}"


if __name__ == "__main__":
    for file in DASHBOARDS:
        dashboard = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(formatted(dashboard) + "\n", encoding="utf-8")
