"""Kernels written once over ``self.xp``, an array namespace that follows NumPy's API: one mixin per op family.

They are what a young backend runs on, and what the others are checked against: clear before fast. A kernel takes arrays
and canonical attributes (dimensions non-negative and in tuples, shapes resolved) and returns fresh arrays, or views
where the op is a view.
"""
