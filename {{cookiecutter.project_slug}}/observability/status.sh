#!/bin/sh
# Prints health, disk use and address of each service: make obs-status
# COMPOSE: the docker compose command with its files.
set -eu

# Not in pipes, which hide that a command on their left fails.
services=$($COMPOSE config --services)
config=$($COMPOSE config --format json)
project=$(printf '%s\n' "$config" | sed -n 's/^  "name": "\(.*\)",$/\1/p')
volumes=$(docker system df --verbose --format '{{range .Volumes}}{{.Name}} {{.Size}}{{println}}{{end}}')
containers=$($COMPOSE ps --all --format \
  '{{.Service}}|{{.Status}}|{{range .Publishers}}{{if .PublishedPort}}http://{{.URL}}:{{.PublishedPort}} {{end}}{{end}}')

printf '%-13s %-28s %-9s %s\n' SERVICE STATUS DISK ADDRESS
for service in $(printf '%s\n' "$services" | sort); do
  # The volumes of a service are those whose name begins with that of the service.
  size=$(printf '%s\n' "$volumes" | sed -n "s/^${project}_$service-[^ ]* //p")
  { printf '%s\n' "$containers" | grep "^$service|" || echo "|not created|"; } | while IFS='|' read -r _ status addresses; do
    printf '%-13s %-28s %-9s %s\n' "$service" "$status" "${size:--}" "${addresses:--}"
  done
done
