"""Where everybody's pelvis is, picture by picture, while a film plays: python examples/live.py my.mp4

A camera's number or an address does as well; then leave out ``drop=False``.
"""

import sys

from tcmr.live.stream import LiveOptions, live

for body in live(LiveOptions(sys.argv[1], drop=False, person="all")):
    x, y, z = body.joints[0]
    print(f"{body.time:7.3f} s  person {body.person_id}  {x:+.2f} {y:+.2f} {z:+.2f} m")
