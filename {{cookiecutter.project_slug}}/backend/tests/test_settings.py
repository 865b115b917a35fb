import pytest

from app.settings import Settings


def test_a_value_that_cannot_be_used_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APP_UPSTREAM_TIMEOUT", "soon")
    with pytest.raises(ValueError, match=r"APP_UPSTREAM_TIMEOUT\n.*'soon'"):
        Settings()
