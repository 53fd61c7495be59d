"""Who may do what: keys, sessions, rate limits, security headers."""
