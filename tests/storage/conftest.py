"""Storages of both kinds, on files of their own."""

import pytest

pytest.register_assert_rewrite("xmpppush.testing.stores")
