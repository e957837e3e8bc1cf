# Triton with this package, for JetPack 6 alone: the exception. Its last image is the -igpu one of 26.02; newer Jetsons
# take triton.arm64.Dockerfile. Not run in a cluster: no registry of images is within reach of this project.
#
#   make wheel
#   docker build --platform linux/arm64 -f deploy/triton.jetpack6.Dockerfile -t face-triton .
#
# Run it with `--runtime nvidia`. Triton's own documents advise to answer in process on a Jetson: `logoformer watch`
# without --triton does.
FROM nvcr.io/nvidia/tritonserver:26.02-py3-igpu
# cpu: ONNX Runtime. jetson,cuda12: engines by the TensorRT that JetPack 6 brings.
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
