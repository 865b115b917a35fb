#!/bin/sh
# Deletes what the stack has stored, never the service's own data, after asking: make obs-clean
# CORE, COMPOSE: the docker compose command, without and with the overlay.
set -eu

project=$($COMPOSE config --format json | sed -n 's/^  "name": "\(.*\)",$/\1/p')
core_volumes=$($CORE config --volumes)
volumes=$($COMPOSE config --volumes | grep -vxF "$core_volumes" | sort)
present=$(for volume in $volumes; do docker volume ls --quiet --filter "name=^${project}_$volume\$"; done)

if [ -z "$present" ]; then
  echo "Nothing to delete: $project has stored no metrics, logs or traces."
  exit 0
fi
echo "This stops the stack of $project and deletes these volumes for good:"
printf '  %s\n' $present
printf 'Type yes to delete them: '
read -r answer || answer=
if [ "$answer" != yes ]; then
  echo "Nothing was deleted."
  exit 1
fi
$COMPOSE down
docker volume rm $present >/dev/null
echo "Deleted."
