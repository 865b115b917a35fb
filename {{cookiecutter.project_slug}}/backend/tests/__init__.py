"""Tests of the service, whatever settings are in the environment of whoever runs them."""

import os

for name in [each for each in os.environ if each.startswith("APP_")]:
    del os.environ[name]
