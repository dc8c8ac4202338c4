"""What this machine can do, measured in processes of their own before a search starts.

May import, of this package: nothing but `search.defaults`.
"""
