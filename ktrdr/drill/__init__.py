"""The promises of this system, checked against a user's own broker, in names that are thrown away after."""
