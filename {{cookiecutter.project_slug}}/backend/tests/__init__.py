"""Tests of the service. They do not depend on APP_* variables of the environment."""

import os

for name in [each for each in os.environ if each.startswith("APP_")]:
    del os.environ[name]
