"""From a plan to a full store: any executor computes missing rows, only the driver writes. Imports `base`, `data`,
`design`, `store`, `training` and `estimation`.

The names of the face stand in `__init__.pyi` and are loaded when they are used: a worker process needs few of them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
