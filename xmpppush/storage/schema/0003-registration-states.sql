-- Times are seconds since the epoch.

ALTER TABLE registrations ADD COLUMN state TEXT NOT NULL DEFAULT 'active'; -- active, suspended
ALTER TABLE registrations ADD COLUMN reason TEXT NOT NULL DEFAULT '';      -- why suspended
ALTER TABLE registrations ADD COLUMN next_try REAL NOT NULL DEFAULT 0;     -- when a suspended one is tried again
ALTER TABLE registrations ADD COLUMN missed INTEGER NOT NULL DEFAULT 0;    -- messages since the device was last there
