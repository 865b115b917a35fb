#!/bin/sh
# make obs-pin: pins the stack's images by digest, because a tag can be moved to another image.
# Writes X_IMAGE=name:version@sha256:... to .env for each local image, and keeps all other lines.
set -eu
umask 077 # .env contains a password

# Matches `    image: ${LOKI_IMAGE:-grafana/loki:3.7.8}`.
pins=$(sed -n 's/^ *image: ${\([A-Z_]*_IMAGE\):-\([^}]*\)}.*/\1 \2/p' compose.observability.yml | while read -r variable image; do
  # shellcheck disable=SC2016 # Compose expands the variable
  image=$(printf 'name: a\nservices: {a: {image: "${%s:-%s}"}}' "$variable" "$image" | docker compose -f - config --images)
  image=${image%@*}
  if digest=$(docker image inspect --format '{{index .RepoDigests 0}}' "$image" 2>/dev/null); then
    echo "$variable=$image@${digest#*@}"
  else
    echo "$image has no digest: it is not on this machine or was not pulled from a registry." >&2
  fi
done)
[ -n "$pins" ] || exit 0
{
  # export LOKI_IMAGE = x
  printf '%s\n' "$pins" | awk '{name = $0; sub(/[[:blank:]]*=.*/, "", name); sub(/^[[:blank:]]*(export[[:blank:]]+)?/, "", name)}
    NR == FNR {pinned[name]; next} !(name in pinned)' - .env
  printf '%s\n' "$pins"
} >.env.new
mv .env.new .env
printf '%s\n' "$pins"
