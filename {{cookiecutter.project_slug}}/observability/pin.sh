#!/bin/sh
# Fixes the stack's images by their digests: make obs-pin. A version's name can be given to another image, a digest cannot.
# Writes X_IMAGE=name:version@sha256:... to .env for each image that is here, and keeps all other lines.
set -eu

umask 077 # .env has a password
new=.env.new
trap 'rm -f "$new" "$new.old"' EXIT
trap 'exit 130' HUP INT TERM
cp .env "$new"
[ -z "$(tail -c 1 "$new")" ] || echo >>"$new"

images=$(sed -n 's/^ *image: ${\([A-Z_]*_IMAGE\):-\([^}]*\)}.*/\1 \2/p' compose.observability.yml)
while read -r variable default; do
  image=$(sed -n "s/^$variable=//p" "$new" | tail -n 1)
  image=${image:-$default}
  image=${image%@*}
  if ! found=$(docker image inspect --format '{{index .RepoDigests 0}}' "$image" 2>/dev/null); then
    echo "$image has no digest: it is not here, or was not pulled from a registry." >&2
    continue
  fi
  line="$variable=$image@${found#*@}"
  if grep -q "^$variable=" "$new"; then
    mv "$new" "$new.old"
    sed "s|^$variable=.*|$line|" "$new.old" >"$new"
  else
    echo "$line" >>"$new"
  fi
  echo "$line"
done <<END
$images
END
chmod 600 "$new"
mv "$new" .env
