"""Recover everybody in a video and write files for other programs: python recover.py [my.mp4] [FOLDER]

Without a video it takes the sample, which `tcmr assets` fetches.
"""

import sys

import tcmr

video = sys.argv[1] if len(sys.argv) > 1 else None
folder = sys.argv[2] if len(sys.argv) > 2 else "recovered"
scene = tcmr.recover(video)
for person in scene.people:
    print(f"person {person.person_id}: poses {person.poses.shape}, frames {person.frame_ids[[0, -1]]}")
print(*tcmr.export(scene, folder, ["glb", "bvh", "npz"]), sep="\n")
