"""Print the section of CHANGELOG.md for a version: ``python scripts/release_notes.py 1.0.0``.

Exits with 1 if that version is not the newest in CHANGELOG.md, has no text, or is not the version in
README.md and in the README.md of generated projects.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHANGELOG = ROOT / "CHANGELOG.md"
README = ROOT / "{{cookiecutter.project_slug}}" / "README.md"
# `## 1.0.0 - 2026-11-28`
SECTION = re.compile(r"(?ms)^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)\n(.*?)(?=^## |\Z)")
# `generated from version 1.0.0 of its template`
SHOWN = re.compile(r"generated from version (\S+) of its template")
# `uvx cookiecutter REPOSITORY --checkout 1.0.0`
CHECKOUT = re.compile(r"REPOSITORY --checkout (\S+)")


def newest() -> tuple[str, str]:
    """Return the newest version in CHANGELOG.md and the text of its section.

    Raises:
        ValueError: CHANGELOG.md has no section of a version.
    """
    section = SECTION.search(CHANGELOG.read_text(encoding="utf-8"))
    if section is None:
        raise ValueError("CHANGELOG.md has no section such as `## 1.0.0 - 2026-11-28`")
    return section[1], section[3].strip()


def problem(version: str) -> str | None:
    """Return why a version cannot be released, or None."""
    found, text = newest()
    if version != found:
        return f"{version!r} is not the newest version in CHANGELOG.md: expected {found}"
    if not text:
        return f"the section of {version} in CHANGELOG.md is empty"
    for readme, pattern in {README: SHOWN, ROOT / "README.md": CHECKOUT}.items():
        shown = set(pattern.findall(readme.read_text(encoding="utf-8")))
        if shown != {version}:
            return f"{readme.relative_to(ROOT)} shows {', '.join(shown)!r}: expected {version}"
    return None


def main(arguments: list[str]) -> int:
    """Print the notes, or the problem, and return the exit code."""
    if len(arguments) != 1:
        print("usage: release_notes.py VERSION", file=sys.stderr)
        return 1
    if found := problem(arguments[0]):
        print(found, file=sys.stderr)
        return 1
    print(newest()[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
