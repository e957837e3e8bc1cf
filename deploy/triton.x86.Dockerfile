# Triton with this package, for x86-64. Not run in a cluster: no registry of images is within reach of this project.
#
#   make wheel
#   docker build -f deploy/triton.x86.Dockerfile --build-arg TRITON_TAG=... -t face-triton .
#
# TRITON_TAG: one whose Triton is 24.11 or newer; an older one garbles the arrays of numpy 2, and the models refuse it.
ARG TRITON_TAG
FROM nvcr.io/nvidia/tritonserver:${TRITON_TAG}
# cpu: ONNX Runtime. tensorrt,cuda13 and tensorrt12,cuda12: engines, for drivers of CUDA 13 and 12.
ARG EXTRAS=cpu
# The image's Python belongs to its distribution, and so does its pip.
ENV PIP_BREAK_SYSTEM_PACKAGES=1
COPY dist/logoformer-0.1.0-py3-none-any.whl /wheels/
RUN python3 -m pip install --no-cache-dir "/wheels/logoformer-0.1.0-py3-none-any.whl[triton,${EXTRAS}]" \
 && useradd --create-home --uid 1001 face
USER 1001
EXPOSE 8000 8001 8002
CMD ["tritonserver", "--model-repository=/models", "--exit-on-error=false"]
# Longer than twice --timeout, which is longer than --idle of logoformer triton.
HEALTHCHECK --interval=30s --timeout=30s --start-period=120s \
  CMD ["logoformer", "triton-check", "localhost:8001", "--timeout", "12"]
