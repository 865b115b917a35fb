#!/bin/sh
# make obs-status: health, disk usage and address of each service
# COMPOSE: docker compose with its -f options.
set -eu

# Not in pipes, which hide errors of the left command.
services=$($COMPOSE config --services)
config=$($COMPOSE config --format json)
# "name": "my-service",
project=$(printf '%s\n' "$config" | sed -n 's/^  "name": "\(.*\)",$/\1/p')
volumes=$(docker system df --verbose --format '{{range .Volumes}}{{.Name}} {{.Size}}{{println}}{{end}}')
containers=$($COMPOSE ps --all --format \
  '{{.Service}}|{{.Status}}|{{range .Publishers}}{{if .PublishedPort}}http://{{.URL}}:{{.PublishedPort}} {{end}}{{end}}')

printf '%-13s %-28s %-9s %s\n' SERVICE STATUS DISK ADDRESS
for service in $(printf '%s\n' "$services" | sort); do
  # A service's volumes start with its name: my-service_loki-data 1.2GB
  size=$(printf '%s\n' "$volumes" | sed -n "s/^${project}_$service-[^ ]* //p")
  { printf '%s\n' "$containers" | grep "^$service|" || echo "|not created|"; } | while IFS='|' read -r _ status addresses; do
    printf '%-13s %-28s %-9s %s\n' "$service" "$status" "${size:--}" "${addresses:--}"
  done
done
