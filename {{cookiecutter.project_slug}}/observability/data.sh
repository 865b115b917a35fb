#!/bin/sh
# Backs up, restores or deletes the data of the stack, never of the service:
#   make obs-backup FILE=stack.tar.gz, make obs-restore FILE=stack.tar.gz, make obs-clean
# COMPOSE: docker compose with its -f options.
# shellcheck disable=SC2086 # word splitting is intended; names in Compose have no spaces
set -eu
trap 'exit 130' HUP INT TERM # also runs the EXIT trap

command=$1
file=${2:-}
folder=$(cd "$(dirname "$file")" && pwd)
path=$folder/$(basename "$file")
here=$(cd "$(dirname "$0")" && pwd)

# Not in pipes, which hide errors of the left command.
config=$($COMPOSE config --format json)
core="docker compose -f compose.yml"
both="$core -f compose.observability.yml"
core_volumes=$($core config --volumes)
all_volumes=$($both config --volumes)
core_services=$($core config --services)
all_services=$($both config --services)

# "name": "my-service",
project=$(printf '%s\n' "$config" | sed -n 's/^  "name": "\(.*\)",$/\1/p')
volumes=$(printf '%s\n' "$all_volumes" | grep -vxF "$core_volumes" | sort)
services=$(printf '%s\n' "$all_services" | grep -vxF "$core_services" | sort)

fail() { echo "$1" >&2 && exit 1; }

# confirm "changed" "question": exits unless the answer is yes.
confirm() {
  printf '%s\nType yes to continue: ' "$2"
  read -r answer || answer=
  [ "$answer" = yes ] || { echo "Nothing was $1." && exit 1; }
}

# --mount reads CSV, so a path can contain colons, commas and quotes.
mount() { printf 'type=bind,"source=%s",target=%s,readonly' "$(printf %s "$1" | sed 's/"/""/g')" "$2"; }

# archive write|verify|restore [docker run options]
archive() {
  step=$1
  shift
  docker run --rm --log-driver none --user 0:0 --network none --read-only --cap-drop ALL --security-opt no-new-privileges \
    --security-opt label=disable \
    --memory 512m --pids-limit 64 --mount "$(mount "$here/archive.py" /archive.py)" \
    "$@" "$image" python /archive.py "$step" "$project" $volumes
}

# Creates missing volumes, as Compose would, and stops the services that write to them, so that the files are
# consistent. The backend keeps running; its log is read afterwards. Sets $mounts, with suffix $1 per volume.
prepare_volumes() {
  mounts=
  for volume in $volumes; do
    name=${project}_$volume
    docker volume create --label "com.docker.compose.project=$project" --label "com.docker.compose.volume=$volume" "$name" >/dev/null
    mounts="$mounts --volume $name:/volumes/$volume$1"
  done
  trap 'rm -f "$part"; [ -z "$writers" ] || $COMPOSE start $writers' EXIT
  [ -z "$writers" ] || $COMPOSE stop $writers
}

if [ "$command" = clean ]; then
  existing=$(docker volume ls --quiet)
  present=$(for volume in $volumes; do printf '%s\n' "$existing" | grep -xF "${project}_$volume" || true; done)
  [ -n "$present" ] || { echo "Nothing to delete: $project has no metrics, logs or traces." && exit 0; }
  confirm deleted "This stops the stack of $project, but not the service, and permanently deletes these volumes:
$(printf '  %s\n' $present)"
  $COMPOSE rm --stop --force $services
  docker volume rm $present >/dev/null
  echo "Deleted. To start the stack again: make obs-up"
  exit
fi

image=$($COMPOSE --profile check config --images obs-check)
running=$($COMPOSE ps --services --status running)
writers=$(printf '%s\n' "$running" | grep -xF "$services" || true)
docker image inspect "$image" >/dev/null 2>&1 || fail "The image $image is missing. Run make obs-up once."

if [ "$command" = backup ]; then
  [ ! -e "$path" ] || fail "$file already exists. Choose another name: make obs-backup FILE=..."
  umask 077 # the backup contains logs
  part=$path.part
  prepare_volumes :ro
  archive write --cap-add DAC_READ_SEARCH $mounts >"$part"
  archive verify --cap-add DAC_READ_SEARCH --mount "$(mount "$part" /archive)"
  mv "$part" "$path"
  echo "Wrote $file."
else
  [ -f "$path" ] || fail "File not found: $file"
  archive verify --cap-add DAC_READ_SEARCH --mount "$(mount "$path" /archive)"
  confirm changed "This stops the stack of $project and replaces all data in these volumes:
$(printf "  ${project}_%s\n" $volumes)"
  part=
  prepare_volumes ''
  archive restore --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER $mounts --mount "$(mount "$path" /archive)"
  echo "Restored."
fi
