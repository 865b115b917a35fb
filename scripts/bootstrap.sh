#!/bin/sh
# Creates .venv with everything that the tests and the demo need. Uses the first available of:
# uv; Python with pip; Debian's python3 without pip, with pip from a Debian package.
set -eu
cd "$(dirname "$0")/.."

locks=requirements-dev.txt
venv=.venv
# Take .venv off the PATH, where the Makefile puts it: the uv in it would delete itself.
PATH=${PATH#"$PWD/$venv/bin:"}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

# Prints the lock file's entry for uv, with its hashes.
lock_of_uv() {
  awk '/^[^ ]/ { in_uv = /^uv==/ } in_uv' "$locks"
}

# Debian has pip in a separate package. Its wheel can run without being installed.
# If the package lists are missing or outdated, this downloads them to a temporary folder.
pip_from_debian() (
  cd "$tmp"
  if ! apt-get -qq download python3-pip-whl 2>/dev/null; then
    mkdir -p lists/partial cache/archives/partial
    set -- -qq -o Dir::State::Lists="$tmp/lists" -o Dir::Cache="$tmp/cache" \
      -o APT::Sandbox::User="$(id -un)"
    apt-get "$@" update && apt-get "$@" download python3-pip-whl
  fi >&2 || return 1
  dpkg-deb -x python3-pip-whl_*.deb . && ls "$tmp"/usr/share/python-wheels/pip-*.whl
)

if command -v uv >/dev/null; then
  echo "Installing into $venv with uv ..."
  uv venv --quiet --allow-existing --python '>=3.11' "$venv"
  uv=uv
else
  command -v python3 >/dev/null ||
    fail "python3 not found. Install Python 3.11 or newer, or uv: https://docs.astral.sh/uv/"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$(python3 --version) is too old: 3.11 or newer is required. Install it, or uv: https://docs.astral.sh/uv/"
  echo "Installing into $venv with pip ..."
  lock_of_uv >"$tmp/uv.txt"
  if python3 -c 'import ensurepip' 2>/dev/null; then
    python3 -m venv "$venv"
    pip="-m pip"
  elif command -v apt-get >/dev/null && pip=$(pip_from_debian); then
    python3 -m venv --without-pip "$venv"
    pip=$pip/pip
  else
    fail "pip not found, and it cannot be downloaded. Install it: apt install python3-venv"
  fi
  # --no-user: pip fails in a virtual environment if PIP_USER=1 or its configuration enables user installs.
  # shellcheck disable=SC2086 # two words on purpose
  "$venv/bin/python" $pip install --quiet --no-user --disable-pip-version-check --require-hashes -r "$tmp/uv.txt"
  uv=$venv/bin/uv
fi
# Compiled now, or each process that a test starts would compile its imports if PYTHONDONTWRITEBYTECODE is set.
"$uv" pip sync --quiet --compile-bytecode --python "$venv" --require-hashes "$locks"
