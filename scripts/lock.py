"""Resolve the template's dependencies again: ``make lock`` runs this.

The template's lock files cannot be compiled in place, for backend/pyproject.toml is rendered. So a
project is generated, its own ``make lock`` run, and the result copied back.
"""

import re
import subprocess
import tempfile
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "{{cookiecutter.project_slug}}" / "backend" / "requirements"

# FastAPI requires this package, also where nothing is observed. Without an entry it is still
# installed, at the newest version that fits; the overlay's lock file has the entry.
OVERLAY_ONLY = re.compile(r"(?m)^opentelemetry-api==.*\n(?:    --hash.*\n)+")


def main() -> None:
    """Compile the locks of a generated project and copy them into the template."""
    with tempfile.TemporaryDirectory() as folder:
        project = cookiecutter(str(ROOT), no_input=True, default_config=True, output_dir=folder)
        subprocess.run(["make", "-C", project, "lock"], check=True)
        for lock in LOCKS.glob("*.txt"):
            text = Path(project, "backend", "requirements", lock.name).read_text(encoding="utf-8")
            if lock.stem in ("core", "dev"):
                text = OVERLAY_ONLY.sub("", text)
            lock.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
