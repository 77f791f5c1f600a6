"""Make models ready to run fast: `tonsor.deploy(model, x)`.

`tonsor.deploy` is both this package and its verb, so that `tonsor.deploy.portable` works too.
"""

from __future__ import annotations

import sys
from types import ModuleType

from tonsor.deploy.deployed import Deployed, portable
from tonsor.deploy.deploying import deploy
from tonsor.deploy.report import DeployReport, Row

__all__ = ["DeployReport", "Deployed", "Row", "deploy", "portable"]


class _Verb(ModuleType):
    __call__ = staticmethod(deploy)


sys.modules[__name__].__class__ = _Verb
