"""What all routes share: errors, fields, JSON bodies, server-sent events."""
