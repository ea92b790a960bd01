"""A pubsub host with apps."""

import pytest

from xmpppush.testing.apps import World


@pytest.fixture
def world():
    return World()
