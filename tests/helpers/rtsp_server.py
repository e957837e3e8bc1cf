#!/usr/bin/python3
"""RTSP server for tests, a child of the system's Python: `rtsp_server.py FILE.mp4 PORT [USER:PASSWORD]`.

Debian: python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good (qtdemux, rtph264pay) and -bad (h264parse).
Each client sees the file from its first frame, at its own pace; H.264 is passed on, not encoded again.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = 'filesrc location="{}" ! qtdemux ! h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96'


class Factory(GstRtspServer.RTSPMediaFactory):
    """One pipeline a client."""

    def do_create_element(self, _url):
        return Gst.parse_launch(PIPELINE.format(sys.argv[1]))


def main():
    Gst.init(None)
    server, factory = GstRtspServer.RTSPServer(), Factory()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[2])
    factory.set_shared(False)
    if len(sys.argv) > 3:
        user, password = sys.argv[3].split(":")
        auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        for permission in ("media.factory.access", "media.factory.construct"):
            permissions.add_permission_for_role("user", permission, True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/face", factory)
    if not server.attach(None):
        sys.exit("the port is taken")
    print(f"rtsp://127.0.0.1:{sys.argv[2]}/face", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
