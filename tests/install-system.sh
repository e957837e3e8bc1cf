#!/usr/bin/env bash
# Debian packages that some tests need, in one place. Quick when all of them are there; does nothing where it may not
# install (no apt-get, or not root): those tests then skip, naming what is missing. In CI they may not skip.
set -euo pipefail

packages=(
  g++ # torch.compile: tests/benchmarks/test_bench_bundle.py
  chromium # tests/benchmarks/report/test_browser.py and tests/docs/test_browser.py look at pages with it
  prometheus # its promtool: tests/test_deploy.py
  mosquitto # tests/camera/answers/test_mqtt.py
  xvfb # tests/camera/test_window.py
  python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-plugins-base # tests/test_examples.py runs examples/gstreamer_appsink.py
  # tests/camera/sources: an RTSP server (qtdemux and rtph264pay are in -good, h264parse in -bad), and gst-launch-1.0
  gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-tools
)

command -v dpkg-query >/dev/null || exit 0
missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
if [ "${#missing[@]}" -eq 0 ]; then
  exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed, and this user may not install them: ${missing[*]}" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
