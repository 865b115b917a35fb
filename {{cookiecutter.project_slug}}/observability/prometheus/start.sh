#!/bin/sh
# Starts Prometheus with the arguments that are passed on. It reads no environment variables itself, so the
# token for the backend's /metrics becomes a file; empty where none is asked for.
set -eu

(umask 077 && printf %s "${METRICS_TOKEN:-}" >/tmp/metrics-token)
exec /bin/prometheus "$@"
