"""What this machine can do, measured in separate processes before a search starts.

May import, of this package: nothing but `search.defaults`.
"""
