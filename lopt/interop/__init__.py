"""Google's `learned_optimization` and this package, each as part of the other.

Code written for it runs here, on current JAX and without TensorFlow, and code written
for this package runs there. It is imported when something of it is asked for, never
before. Its releases cannot be declared as dependencies, since they pin packages that
are no longer there; hence two steps::

    python -m pip install '.[interop]'
    python -m pip install --no-deps learned_optimization==0.0.1

What is said of "their" objects here holds for the release 0.0.1 of 2022.
"""

from lopt.interop import from_learned_optimization as from_learned_optimization
from lopt.interop import to_learned_optimization as to_learned_optimization
from lopt.interop.compatibility import compatibility as compatibility
