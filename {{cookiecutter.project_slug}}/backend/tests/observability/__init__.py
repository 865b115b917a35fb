"""Tests of the extension. They do not depend on OTEL_* and PROMETHEUS_* variables."""

import os

for name in [each for each in os.environ if each.startswith(("OTEL_", "PROMETHEUS_"))]:
    del os.environ[name]
