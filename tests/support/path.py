"""PATH variables on which a program is a stub, or missing."""

import os
from pathlib import Path


def path_with_stub(
    script: str, folder: Path, program: str = "docker", path: str | None = None
) -> str:
    """Return a PATH on which a shell script replaces a program.

    Args:
        script: The shell script.
        folder: The folder for the script.
        program: The program to replace.
        path: The PATH to extend; None is that of this process.
    """
    stub = folder / program
    folder.mkdir(parents=True, exist_ok=True)
    stub.write_text(script, encoding="utf-8")
    stub.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH'] if path is None else path}"


def path_without(program: str, folder: Path) -> str:
    """Return the PATH without a program.

    Each folder that contains it is replaced by a folder of links to the other programs.
    """
    paths = []
    for number, name in enumerate(os.environ["PATH"].split(os.pathsep)):
        path = Path(name)
        if (path / program).exists():
            links = folder / str(number)
            links.mkdir()
            for each in path.iterdir():
                if each.name != program:
                    (links / each.name).symlink_to(each)
            path = links
        paths.append(str(path))
    return os.pathsep.join(paths)
