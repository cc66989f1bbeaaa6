"""Runs of the size of a test, as the integration tests have them."""

from integration.conftest import plugin, teacher, tiny, train_net  # noqa: F401
