-- A message handed to a session with stream management (XEP-0198) is a row here, too, until the client
-- acknowledges it. What is left of such a session is in its place among the messages that wait.

ALTER TABLE offline_messages ADD COLUMN
    push_due INTEGER NOT NULL DEFAULT 0; -- 1: a device that it was handed to may still need a push for it
