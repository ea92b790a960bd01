-- Devices that registered with the app server for an app ([app:NAME], docs/registration.rst). Who owns one is
-- only ever compared, so it is kept as a hash: SHA-256, hexadecimal. Tigase's apps want the account's JID in
-- each notification: there it is in data.
CREATE TABLE devices (
    host TEXT NOT NULL,                 -- JID that it registered with
    node TEXT NOT NULL,                 -- random; where its notifications are published to
    app TEXT NOT NULL,                  -- NAME of its [app:NAME]
    way TEXT NOT NULL,                  -- how it registered: p2, appserver, tigase
    key TEXT NOT NULL,                  -- hash of app, way, owner, device id and room: a repeat has the same
    owner TEXT NOT NULL,                -- hash of the bare JID that registered it
    publisher TEXT NOT NULL,            -- hash of the bare JID that publishes
    domain TEXT NOT NULL,               -- domain of that JID, whose server publishes
    token TEXT NOT NULL,                -- device token: a secret
    secret TEXT NOT NULL,               -- that the publisher has to know; '': none
    data TEXT NOT NULL,                 -- JSON object: what its app finds in each notification
    created REAL NOT NULL,              -- seconds since the epoch, first registration
    renewed REAL NOT NULL,              -- seconds since the epoch, last registration
    PRIMARY KEY (host, node)
) WITHOUT ROWID;
CREATE UNIQUE INDEX devices_of_key ON devices (host, key);
CREATE INDEX devices_of_owner ON devices (owner, app);

-- What Tigase's elements in <enable/> ask for, as JSON; '': there were none. May hold the key that the device's
-- notifications are encrypted with.
ALTER TABLE registrations ADD COLUMN extensions TEXT NOT NULL DEFAULT '';
