"""Update the lock files of the template: ``make lock`` runs this.

uv cannot read the template's backend/pyproject.toml before it is rendered. So this script generates
a project, runs ``make lock`` there, and copies the lock files back.
"""

import re
import subprocess
import tempfile
from pathlib import Path

from cookiecutter.main import cookiecutter

from hooks.post_gen_project import FEATURE_PATHS

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "{{cookiecutter.project_slug}}" / "backend" / "requirements"

# FastAPI depends on this package even without observability. Only the overlay's lock file pins it;
# elsewhere, the newest compatible version is installed. Matches:
# opentelemetry-api==1.45.1 \
#     --hash=sha256:...
OVERLAY_ONLY = re.compile(r"(?m)^opentelemetry-api==.*\n(?:    --hash.*\n)+")


def main() -> None:
    """Update the lock files in a generated project and copy them to the template."""
    with tempfile.TemporaryDirectory() as folder:
        project = cookiecutter(
            str(ROOT),
            no_input=True,
            default_config=True,
            output_dir=folder,
            extra_context=dict.fromkeys(FEATURE_PATHS, "yes"),
        )
        subprocess.run(["make", "-C", project, "lock"], check=True)
        for lock in LOCKS.glob("*.txt"):
            text = Path(project, "backend", "requirements", lock.name).read_text(encoding="utf-8")
            if lock.stem != "observability":
                text = OVERLAY_ONLY.sub("", text)
            lock.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
