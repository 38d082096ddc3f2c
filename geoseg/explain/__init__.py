"""What a model looks at: attention, sampling points, masks and features of a scene.

Everything is recorded while the real model runs, by hooks that are gone afterwards.
"""
