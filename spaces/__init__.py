"""Search spaces, one per file; `spaces.catalogue` lists them. Importing this package imports no space."""
