-- Whom to tell when a device is gone (XEP-0357 section 8): the bare JID that registered it, in clear, where
-- [app:NAME] keep_account says so; '': nobody.
ALTER TABLE devices ADD COLUMN account TEXT NOT NULL DEFAULT '';
