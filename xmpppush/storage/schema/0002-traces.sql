-- What happened to pushes, for `xmpppush push trace`. A row is what was noted within a moment, not one note:
-- a push makes two notes, and an index by account would cost each of them more than everything else about it.
-- Looking one up reads them all, which takes a fraction of a second and is done rarely.
--   SELECT note.value FROM traces, json_each(traces.notes) AS note;
CREATE TABLE traces (
    number INTEGER PRIMARY KEY,         -- of its last note, counting from the first one kept
    until REAL NOT NULL,                -- seconds since the epoch, of its last note
    notes TEXT NOT NULL                 -- JSON: [trace, at, account, node, decision, reason, fields] each
);

-- The story that the push belongs to goes on after a restart.
ALTER TABLE deliveries ADD COLUMN trace TEXT NOT NULL DEFAULT '';  -- id, '': none
