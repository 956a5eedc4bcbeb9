"""On the null card with NULLCARD_NUMBERS=1: as soon as torch is imported, its operators get right numbers
(numbers_layer.py)."""

import os
import sys

if os.environ.get("NULLCARD_NUMBERS") == "1" and "libcudart" in os.environ.get("LD_PRELOAD", ""):
    import importlib.abc
    import importlib.machinery

    class _AfterTorch(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name != "torch":
                return None
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            if spec and spec.loader:
                run = spec.loader.exec_module

                def exec_module(module):
                    sys.meta_path.remove(self)
                    run(module)
                    import numbers_layer

                    numbers_layer.install()

                spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, _AfterTorch())
