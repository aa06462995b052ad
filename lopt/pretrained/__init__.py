"""Meta-parameters in files: our own, and those that others have published.

`container` reads and writes bytes, `layout` knows the names and shapes of each
optimizer's arrays, `catalogue` what is published, and `location` where files are. The
npz files beside them are our own weights.
"""
