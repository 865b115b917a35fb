#!/bin/sh
# Prints health, address and disk use of each service: make obs-status
# COMPOSE: the docker compose command with its files.
set -eu

services=$($COMPOSE config --services)
config=$($COMPOSE config --format json) # left of a pipe a failure would not be seen
project=$(printf '%s\n' "$config" | sed -n 's/^  "name": "\(.*\)",$/\1/p')
sizes=$(docker system df --verbose --format '{{range .Volumes}}{{.Name}} {{.Size}}{{println}}{{end}}')
containers=$($COMPOSE ps --all --format \
  '{{.Service}}|{{.Status}}|{{range .Publishers}}{{if .PublishedPort}}http://{{.URL}}:{{.PublishedPort}} {{end}}{{end}}')

line() { printf '%-13s %-28s %-9s %s\n' "$@"; }

# A service's volumes are those whose name begins with the service's own.
disk() { printf '%s\n' "$sizes" | awk -v start="${project}_$1-" 'index($1, start) == 1 {print $2}'; }

line SERVICE STATUS DISK ADDRESS
for service in $(printf '%s\n' "$services" | sort); do
  printf '%s\n' "$containers" | grep "^$service|" || echo "$service|not created|"
done | while IFS='|' read -r service status addresses; do
  size=$(disk "$service")
  line "$service" "$status" "${size:--}" "${addresses:--}"
done
