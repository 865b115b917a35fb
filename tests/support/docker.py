"""Run the docker command."""

import subprocess


def docker(*arguments: str, check: bool = True) -> str:
    """Run docker and return its standard output.

    Raises:
        subprocess.CalledProcessError: the command failed and ``check`` is true.
    """
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=check)
    return done.stdout
