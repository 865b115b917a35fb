#!/bin/sh
# Runs its arguments, unless unauthenticated clients in a network could then read Grafana.
set -eu

case "${BIND_ADDRESS:-127.0.0.1}" in
  127.* | ::1 | '[::1]') ;;
  *)
    if [ "${GF_AUTH_ANONYMOUS_ENABLED:-true}" != false ]; then
      echo "Refused: BIND_ADDRESS=$BIND_ADDRESS exposes Grafana to a network, with unauthenticated read access." >&2
      echo "Set GRAFANA_ANONYMOUS=false in .env, or keep BIND_ADDRESS=127.0.0.1." >&2
      exit 1
    fi
    ;;
esac
exec "$@"
