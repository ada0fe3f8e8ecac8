"""VMC (Virtual Motion Capture protocol, over OSC and UDP): a person's bones for avatars.

Unity's axes are left-handed, y up; an avatar faces +z with its left at -x. So x is mirrored against SMPL's,
and rotations are those of mirrored space. https://protocol.vmc.info, performer to marionette.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ..utils.errors import UserError
from .engine import LiveBody
from .sink import Sink

BONES = {  # of VRM's humanoid, parents first: the SMPL joint that each turns about, and its parent
    "Hips": (0, None),
    "LeftUpperLeg": (1, "Hips"),
    "RightUpperLeg": (2, "Hips"),
    "Spine": (3, "Hips"),
    "LeftLowerLeg": (4, "LeftUpperLeg"),
    "RightLowerLeg": (5, "RightUpperLeg"),
    "Chest": (6, "Spine"),
    "LeftFoot": (7, "LeftLowerLeg"),
    "RightFoot": (8, "RightLowerLeg"),
    "UpperChest": (9, "Chest"),
    "LeftToes": (10, "LeftFoot"),
    "RightToes": (11, "RightFoot"),
    "Neck": (12, "UpperChest"),
    "LeftShoulder": (13, "UpperChest"),
    "RightShoulder": (14, "UpperChest"),
    "Head": (15, "Neck"),
    "LeftUpperArm": (16, "LeftShoulder"),
    "RightUpperArm": (17, "RightShoulder"),
    "LeftLowerArm": (18, "LeftUpperArm"),
    "RightLowerArm": (19, "RightUpperArm"),
    "LeftHand": (20, "LeftLowerArm"),
    "RightHand": (21, "RightLowerArm"),
}
_FOLDED = {20: 22, 21: 23}  # SMPL's hands turn with VRM's, which begin at the wrists
_PER_DATAGRAM = 16  # messages, so that a datagram fits into an Ethernet frame
_MIRROR = np.array([-1.0, 1.0, 1.0])

Message = tuple[str, list[Any]]


class Vmc(Sink):
    """Sends the person of the smallest number, and the newest frame of theirs."""

    metavar = "HOST:PORT"
    text = "send the person's bones to avatars over the VMC protocol, as 127.0.0.1:39539"

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise UserError(f"--vmc {target}: expected HOST:PORT, as 127.0.0.1:39539")
        try:
            from pythonosc.udp_client import UDPClient
        except ImportError:
            raise UserError(
                "--vmc needs the package python-osc: run `pip install python-osc` (the extra `live`)"
            ) from None
        try:
            self._client = UDPClient(host.strip("[]"), int(port))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"--vmc {target}: there is no such host ({reason}); expected the name or number of the "
                "machine with the avatar"
            ) from error

    def bodies(self, bodies: Sequence[LiveBody]) -> None:
        if not bodies:
            return
        first = min(body.person_id for body in bodies)
        newest = max((body for body in bodies if body.person_id == first), key=lambda body: body.frame)
        for datagram in datagrams(messages(newest)):
            try:
                self._client.send(datagram)
            except OSError:
                # The network or the receiver is away for a moment: what is live is not sent again.
                continue

    def close(self) -> None:
        self._client.close()


def messages(body: LiveBody) -> list[Message]:
    """Addresses and arguments of one frame."""
    found: list[Message] = [
        ("/VMC/Ext/OK", [1]),
        ("/VMC/Ext/T", [float(body.time)]),
        ("/VMC/Ext/Root/Pos", ["root", *[0.0] * 6, 1.0]),
    ]
    rotmat, rest = body.rotmat.astype(np.float64), body.skeleton.rest
    for name, (joint, parent) in BONES.items():
        turn = rotmat[joint]
        if joint in _FOLDED:
            turn = turn @ rotmat[_FOLDED[joint]]
        place = body.joints[0] if parent is None else rest[joint] - rest[BONES[parent][0]]
        x, y, z, w = Rotation.from_matrix(turn).as_quat()
        numbers = [*(_MIRROR * place), x, -y, -z, w]
        found.append(("/VMC/Ext/Bone/Pos", [name, *map(float, numbers)]))
    return found


def datagrams(found: Sequence[Message]) -> Iterator[Any]:
    """OSC bundles of messages, sent at once, each of a size that networks carry in one piece."""
    from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
    from pythonosc.osc_message_builder import OscMessageBuilder

    for start in range(0, len(found), _PER_DATAGRAM):
        bundle = OscBundleBuilder(IMMEDIATELY)
        for address, arguments in found[start : start + _PER_DATAGRAM]:
            message = OscMessageBuilder(address)
            for argument in arguments:
                message.add_arg(argument)
            bundle.add_content(message.build())
        yield bundle.build()
