"""Fixtures of the tests of compat."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def django_project(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Django in this process, with the tables of django-celery-results."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    folder = tmp_path_factory.mktemp("django")
    settings.configure(
        INSTALLED_APPS=["django_celery_results"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db.sqlite"}},
        CACHES={
            "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
            "results": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": folder / "cache"},
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)
