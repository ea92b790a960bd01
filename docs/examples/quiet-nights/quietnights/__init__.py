"""No push notifications at night, except for calls."""
