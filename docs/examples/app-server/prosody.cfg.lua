-- What Prosody needs for xmpppush, in addition to what it has (/etc/prosody/prosody.cfg.lua).

VirtualHost "example.org"
    modules_enabled = { "smacks", "cloud_notify" }

Component "push.example.org"
    component_secret = "change-me"
