"""Tests of the service. They ignore APP_* environment variables."""

import os

for name in [each for each in os.environ if each.startswith("APP_")]:
    del os.environ[name]
