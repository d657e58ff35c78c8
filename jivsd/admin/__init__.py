"""The HTTP API. Importing this package alone imports no web framework: the client needs only its `wire`."""
