#!/bin/sh
# Make .venv with all that the tests and the demo need, from whatever Python tools are there:
# uv; else Python with pip; else Debian's bare python3, with pip taken from a Debian package.
set -eu
cd "$(dirname "$0")/.."

locks=requirements-dev.txt
venv=.venv
# The Makefile puts the environment on the PATH; the uv in it would delete itself.
PATH=${PATH#"$PWD/$venv/bin:"}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

# The lock file's entry for uv, with its hashes.
lock_of_uv() {
  awk '/^[^ ]/ { in_uv = /^uv==/ } in_uv' "$locks"
}

# Debian splits pip off python3; its wheel can be run from the package, without installing it.
# The package lists may be missing or old: then they are read into a folder of our own.
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
    fail "Python is missing. Install python3 (3.11 or newer), or uv: https://docs.astral.sh/uv/"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$(python3 --version) is too old: 3.11 or newer is needed. Install it, or uv: https://docs.astral.sh/uv/"
  echo "Installing into $venv with pip ..."
  lock_of_uv >"$tmp/uv.txt"
  if python3 -c 'import ensurepip' 2>/dev/null; then
    python3 -m venv "$venv"
    pip="-m pip"
  elif command -v apt-get >/dev/null && pip=$(pip_from_debian); then
    python3 -m venv --without-pip "$venv"
    pip=$pip/pip
  else
    fail "Python's pip is missing, and cannot be had from here. Install it: apt install python3-venv"
  fi
  # --no-user: pip fails in an environment where PIP_USER=1 or its configuration asks for user installs.
  # shellcheck disable=SC2086 # two words on purpose
  "$venv/bin/python" $pip install --quiet --no-user --disable-pip-version-check --require-hashes -r "$tmp/uv.txt"
  uv=$venv/bin/uv
fi
"$uv" pip sync --quiet --python "$venv" --require-hashes "$locks"
