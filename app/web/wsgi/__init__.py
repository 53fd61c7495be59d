"""gunicorn: the server, its worker and how a request body is buffered."""
