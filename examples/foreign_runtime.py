"""Run a method of fozo on a runtime of your own: here, a plain session of ONNX Runtime.

    python foreign_runtime.py BUNDLE IMAGES

A method computes no forwards. Its step is a generator that asks for them; whoever drives it decides where
they run: on a GPU, in another process, on a server. `answer_with_session` is all that you have to replace.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import fozo
import numpy as np
import onnxruntime
from fozo.methods import Outputs, Prediction, Request, State, Step, drive


def answer_with_session(session: Any, request: Request) -> list[Outputs]:
    """Run the images of a request once for each of its sets of tunables."""
    names = [node.name for node in session.get_outputs()]
    feeds = neutral_tunables(session)
    answers = []
    for tunables in request.tunables:
        values = session.run(names, {"images": request.images, **feeds, **tunables})
        answers.append(Outputs(**dict(zip(names, values, strict=True))))
    return answers


def neutral_tunables(session: Any) -> dict[str, Any]:
    """Return values for all tunables that leave the network as it was trained: no prompts, zero addends."""
    return {
        node.name: np.zeros((1, *(n if isinstance(n, int) else 0 for n in node.shape[1:])), np.float32)
        for node in session.get_inputs()
        if node.name != "images"
    }


async def drive_async(
    step: Step[State], answer: Callable[[Request], Awaitable[list[Outputs]]]
) -> tuple[Prediction, State]:
    """Run a step whose forwards are awaited, as from a server: `fozo.methods.drive` written out."""
    outputs: Any = None
    while True:
        try:
            request = step.send(outputs)  # None starts the generator
        except StopIteration as end:
            prediction, state = end.value
            return prediction, state
        outputs = await answer(request)


def main() -> None:
    """Adapt to the images of a folder, eight at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder made by fozo export, of a vision transformer")
    parser.add_argument("images", type=Path, help="folder of images")
    arguments = parser.parse_args()

    bundle = fozo.Bundle.open(arguments.bundle)
    session = onnxruntime.InferenceSession(str(bundle.graph("fp32")), providers=["CPUExecutionProvider"])
    method = fozo.method("pizo").bind(bundle.info("fp32"))
    state = method.init(seed=0)

    paths = sorted(path for path in arguments.images.iterdir() if path.is_file())
    for start in range(0, len(paths), 8):
        batch = [fozo.read_image(path) for path in paths[start : start + 8]]
        images = np.stack([fozo.preprocess(image, bundle.manifest.preprocessing) for image in batch])
        prediction, state = drive(
            method.step(state, images), lambda request: answer_with_session(session, request)
        )
        print(*prediction.logits.argmax(axis=1), flush=True)


if __name__ == "__main__":
    main()
