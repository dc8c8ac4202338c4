"""Search spaces, one a file. Importing this package imports nothing else; see spaces.catalogue."""
