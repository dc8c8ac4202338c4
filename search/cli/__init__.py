"""What a user asks for and where it is stored: flags, settings, the run folder, values confirmed on this machine.

May import, of this package: storage, policy; and `search.defaults`.
"""
