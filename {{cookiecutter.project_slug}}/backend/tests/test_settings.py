import pytest

from app.settings import Settings


def test_invalid_setting_is_reported_with_its_variable_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APP_UPSTREAM_TIMEOUT", "soon")
    with pytest.raises(ValueError, match=r"APP_UPSTREAM_TIMEOUT\n.*'soon'"):
        Settings()
