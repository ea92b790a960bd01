"""apps: devices that register with the app server, in the ways that the clients out there know."""
