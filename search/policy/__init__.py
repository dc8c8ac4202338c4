"""Decides what is trained next and what is restarted, from the record and the plan only: no Ray, no files, no clock.

May import, of this package: nothing but `search.defaults`.
"""
