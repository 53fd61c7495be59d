"""The API as OpenAPI 3.1 describes it, from the tables and dataclasses that the service itself works by."""
