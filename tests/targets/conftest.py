"""Cost models know the kernels that are registered; those of these tests are tvmpipe's."""

from __future__ import annotations

import tvmpipe.passes.kernels  # noqa: F401
