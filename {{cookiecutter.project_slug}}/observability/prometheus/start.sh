#!/bin/sh
# Prometheus reads credentials only from files, so write the token for the backend's /metrics to a file. It is
# empty if METRICS_TOKEN is not set.
set -eu

(umask 077 && printf %s "${METRICS_TOKEN:-}" >/tmp/metrics-token)
exec /bin/prometheus "$@"
