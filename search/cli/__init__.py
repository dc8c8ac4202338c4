"""What a user asks for, and how it is kept: flags, settings, the run folder, values named on this machine.

May import, of this package: storage, policy; and `search.defaults`.
"""
