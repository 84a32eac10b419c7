"""Arrays and files: everything that knows pixels and no network."""
