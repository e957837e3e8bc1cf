"""The model `clip` inside Triton's Python backend: a whole clip in, its answer out.

Inputs: `clip` uint8 `[T, H, W, 3]` (RGB), or `golden` int32 `[1]`: the number of a golden clip, which the model has
itself, so that a probe need not carry it. Output: `probabilities` float32 `[C]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..engine.golden import SelftestReport, answers_of_clip, check_answers
from ..errors import BadInputError, LogoformerError
from .settings import open_served
from .stream_model import triton_error


class ClipModel:
    """What Triton calls; `model.py` of the repository names it `TritonPythonModel`."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the bundle's copy and answers the golden clips.

        Raises:
            RefusedError: the copy is not what its index promises.
            VerificationError: an answer is wrong; the model does not become available.
        """
        _, self._runtime = open_served(args)
        runtime, self._golden = self._runtime, self._runtime.bundle.golden()
        check = check_answers(
            "clip", answers_of_clip(runtime.session("clip"), self._golden), self._golden, runtime.precision
        )
        bundle, clips = str(runtime.bundle.path), len(self._golden.clips)
        SelftestReport(bundle, runtime.backend, runtime.precision, clips, (check,)).require()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers the requests one after the other."""
        import triton_python_backend_utils as pb

        responses = []
        for request in requests:
            try:
                result = self._runtime(self._clip_of(request), color="rgb")
                responses.append(pb.InferenceResponse([pb.Tensor("probabilities", result.probabilities)]))
            except LogoformerError as error:
                responses.append(pb.InferenceResponse(error=triton_error(pb, error)))
        return responses

    def finalize(self) -> None:
        """Frees the sessions."""
        self._runtime.close()

    def _clip_of(self, request: Any) -> Any:
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        if len(given) != 1:
            raise BadInputError("A request holds either a clip or the number of a golden clip.")
        if "clip" in given:
            return given["clip"]
        number, count = int(np.ravel(given["golden"])[0]), len(self._golden.clips)
        if not 0 <= number < count:
            raise BadInputError(f"There is no golden clip {number}; this bundle has {count}.")
        return self._golden.clips[number]
