import pytest
from twisted.logger import globalLogPublisher


@pytest.fixture
def events():
    """What is logged."""
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)
