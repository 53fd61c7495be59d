"""The engine as the web service sees it: one connection a request."""
