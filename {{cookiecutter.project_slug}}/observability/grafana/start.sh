#!/bin/sh
# Runs the command that is passed on, unless that would let a whole network look without signing in.
set -eu

case "${BIND_ADDRESS:-127.0.0.1}" in
  127.* | ::1 | '[::1]') ;;
  *)
    if [ "${GF_AUTH_ANONYMOUS_ENABLED:-true}" != false ]; then
      echo "Refused: BIND_ADDRESS=$BIND_ADDRESS opens Grafana to a network, and anybody may look without signing in." >&2
      echo "Set GRAFANA_ANONYMOUS=false in .env, or leave BIND_ADDRESS at 127.0.0.1." >&2
      exit 1
    fi
    ;;
esac
exec "$@"
