"""Tests of the extension, without the settings of OpenTelemetry and Prometheus around them."""

import os

for name in [each for each in os.environ if each.startswith(("OTEL_", "PROMETHEUS_"))]:
    del os.environ[name]
