"""gunicorn: the server, its worker and the buffer for requests."""
