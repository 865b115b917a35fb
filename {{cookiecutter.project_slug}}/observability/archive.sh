#!/bin/sh
# Saves what the stack has stored, never the service's own data, in one file, and puts it back:
#   make obs-backup FILE=stack.tar.gz, make obs-restore FILE=stack.tar.gz
# CORE, COMPOSE: the docker compose command, without and with the overlay.
set -eu
trap 'exit 130' HUP INT TERM # so that the traps on EXIT below run, too

command=$1
file=$2
cd_file=$(cd "$(dirname "$file")" && pwd)/$(basename "$file")
here=$(cd "$(dirname "$0")" && pwd)

# Each in a line of its own: left of a pipe a failure would not be seen.
config=$($COMPOSE config --format json)
core_volumes=$($CORE config --volumes)
all_volumes=$($COMPOSE config --volumes)
core_services=$($CORE config --services)
images=$($COMPOSE config --images backend)
running=$($COMPOSE ps --services --status running)

project=$(printf '%s\n' "$config" | sed -n 's/^  "name": "\(.*\)",$/\1/p')
volumes=$(printf '%s\n' "$all_volumes" | grep -vxF "$core_volumes" | sort)
image=$(printf '%s\n' "$images" | grep ':observability$')
writers=$(printf '%s\n' "$running" | grep -vxF "$core_services" || true)

if ! docker image inspect "$image" >/dev/null 2>&1; then
  echo "The image $image is missing. Run make obs-up once." >&2
  exit 1
fi

# Runs archive.py with a right or two; the rest of the arguments are docker's.
archive() {
  step=$1
  shift
  docker run --rm --log-driver none --user 0:0 --network none --read-only --cap-drop ALL --security-opt no-new-privileges \
    --memory 512m --pids-limit 64 --mount "$(file_at "$here/archive.py" /archive.py)" \
    "$@" "$image" python /archive.py "$step" "$project" $volumes
}

# A mount is a line of CSV, so that a path may have colons, commas and quotes.
file_at() { printf 'type=bind,"source=%s",target=%s,readonly' "$(printf %s "$1" | sed 's/"/""/g')" "$2"; }

mounts() { for volume in $volumes; do printf -- '--volume %s_%s:/volumes/%s%s ' "$project" "$volume" "$volume" "$1"; done; }

# Files that are being written would not fit together. The backend goes on, and so does its log.
stop_writers() {
  if [ -n "$writers" ]; then
    trap '$COMPOSE start $writers' EXIT
    $COMPOSE stop $writers
  fi
}

# As Compose would make them.
create_volumes() {
  for volume in $volumes; do
    docker volume create --label "com.docker.compose.project=$project" \
      --label "com.docker.compose.volume=$volume" "${project}_$volume" >/dev/null
  done
}

case $command in
  backup)
    if [ -e "$cd_file" ]; then
      echo "$file exists. Give another name: make obs-backup FILE=..." >&2
      exit 1
    fi
    create_volumes
    stop_writers
    umask 077 # it has log lines
    trap 'rm -f "$cd_file.part"; [ -z "$writers" ] || $COMPOSE start $writers' EXIT
    archive write --cap-add DAC_READ_SEARCH $(mounts :ro) >"$cd_file.part"
    archive verify --cap-add DAC_READ_SEARCH --mount "$(file_at "$cd_file.part" /archive)"
    mv "$cd_file.part" "$cd_file"
    echo "Wrote $file."
    ;;
  restore)
    if [ ! -f "$cd_file" ]; then
      echo "There is no file $file." >&2
      exit 1
    fi
    archive verify --cap-add DAC_READ_SEARCH --mount "$(file_at "$cd_file" /archive)"
    echo "This stops the stack of $project and replaces all that is in these volumes:"
    printf "  ${project}_%s\n" $volumes
    printf 'Type yes to replace it: '
    read -r answer || answer=
    if [ "$answer" != yes ]; then
      echo "Nothing was changed."
      exit 1
    fi
    create_volumes
    stop_writers
    archive restore --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER $(mounts '') \
      --mount "$(file_at "$cd_file" /archive)"
    echo "Restored."
    ;;
esac
