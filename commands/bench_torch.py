"""Process that takes one sample of `fozo bench --torch`: `python -m fozo.commands.bench_torch REQUEST`.

It joins the measuring loop of the evaluation with the eager PyTorch backend, which do not know each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engine.bundle.bundle import Bundle
    from ..engine.model import ImageArray


def load_torch(
    request: Mapping[str, Any], bundle: Bundle, images: ImageArray
) -> tuple[Callable[[], object], int]:
    """Load a method in eager PyTorch; see `fozo.eval.bench.worker.measure`."""
    from ..export.eager import make_step

    options = {name: request[name] for name in ("method", "precision", "threads", "part")}
    return make_step(bundle, images, **options), request["part"] or len(images)


def main() -> None:
    """Answer the request in the first argument."""
    from ..eval.bench.worker import main as serve

    serve(load_torch)


if __name__ == "__main__":
    main()
