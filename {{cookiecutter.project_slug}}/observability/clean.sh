#!/bin/sh
# Deletes what the stack has stored, never the service's own data, after asking: make obs-clean
# The service itself goes on. CORE, COMPOSE: the docker compose command, without and with the overlay.
set -eu

# Each in a line of its own: left of a pipe a failure would not be seen.
config=$($COMPOSE config --format json)
core_volumes=$($CORE config --volumes)
all_volumes=$($COMPOSE config --volumes)
core_services=$($CORE config --services)
all_services=$($COMPOSE config --services)
existing=$(docker volume ls --quiet)

project=$(printf '%s\n' "$config" | sed -n 's/^  "name": "\(.*\)",$/\1/p')
volumes=$(printf '%s\n' "$all_volumes" | grep -vxF "$core_volumes" | sort)
services=$(printf '%s\n' "$all_services" | grep -vxF "$core_services" | sort)
present=$(for volume in $volumes; do printf '%s\n' "$existing" | grep -xF "${project}_$volume" || true; done)

if [ -z "$present" ]; then
  echo "Nothing to delete: $project has stored no metrics, logs or traces."
  exit 0
fi
echo "This stops the stack of $project, but not the service, and deletes these volumes for good:"
printf '  %s\n' $present
printf 'Type yes to delete them: '
read -r answer || answer=
if [ "$answer" != yes ]; then
  echo "Nothing was deleted."
  exit 1
fi
$COMPOSE rm --stop --force $services
docker volume rm $present >/dev/null
echo "Deleted. make obs-up starts the stack again."
