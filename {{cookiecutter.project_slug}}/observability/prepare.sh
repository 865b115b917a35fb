#!/bin/sh
# Runs before each make obs-...: rejects an old Docker, writes a password to .env if Compose finds none, and
# makes the configuration readable for the containers' users.
set -eu

# at_least VERSION MAJOR MINOR
at_least() { printf '%s\n' "${1#v}" | awk -F . '{exit !($1 > major || $1 == major && $2 + 0 >= minor)}' major="$2" minor="$3"; }
fail() { echo "$1" >&2 && exit 1; }

compose=$(docker compose version --short)
at_least "$compose" 2 21 || fail "Docker Compose $compose is too old: 2.21 or newer is required."
api=$(docker version --format '{{.Server.APIVersion}}')
at_least "$api" 1 41 || fail "Docker's API $api is too old: 1.41 or newer (Docker 20.10) is required."

# A fresh clone has no .env, a copy of .env.example no password. Compose reads .env: other parsers differ.
# shellcheck disable=SC2016 # Compose expands the variable
password=$(printf 'name: a\nservices: {a: {image: "${GRAFANA_ADMIN_PASSWORD:+already-}set"}}' | docker compose -f - config --images)
if [ "$password" = set ]; then
  from=.env
  [ -f .env ] || from=.env.example
  (
    umask 077
    password=$(head -c 24 /dev/urandom | base64 | tr '+/' '-_')
    # export GRAFANA_ADMIN_PASSWORD = x
    awk -v line="GRAFANA_ADMIN_PASSWORD=$password" '/^[[:blank:]]*(export[[:blank:]]+)?GRAFANA_ADMIN_PASSWORD[[:blank:]]*=/ {next}
      {print} END {print line}' "$from" >.env.new
    mv .env.new .env
  )
  echo "Wrote .env, with a new password for Grafana's admin."
fi

# After a clone with umask 077.
hidden=$(find observability -type d ! -perm -005 -o -type f ! -perm -004)
if [ -n "$hidden" ]; then
  chmod -R a+rX observability
  echo "Made observability/ readable for the users of the containers."
fi
