# A watcher: reads cameras, finds faces, sends their crops to a Triton. For x86-64 and ARM64; it needs no GPU.
# Not run in a cluster: no registry of images is within reach of this project.
#
#   make wheel
#   docker build -f deploy/watch.Dockerfile -t face-watch .
#
# PyAV's wheel holds parts under the GPL (x264, x265): do not publish this image as Apache-2.0 alone.
FROM python:3.12-slim
COPY dist/logoformer-0.1.0-py3-none-any.whl /wheels/
# cpu: ONNX Runtime, which finds the faces.
RUN pip install --no-cache-dir "/wheels/logoformer-0.1.0-py3-none-any.whl[cpu,camera,watch,mqtt,triton]" \
 && useradd --create-home --uid 1001 face
USER 1001
EXPOSE 8080
# The exec form: signals reach the program itself.
CMD ["logoformer", "--help"]
HEALTHCHECK --interval=10s --timeout=3s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://localhost:8080/healthz', timeout=2)"]
