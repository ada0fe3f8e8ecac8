"""The landmark vector: independence of what must not matter, and its layout."""

import numpy as np
import pytest
import torch

from lib.landmarks.features import (
    LANDMARK_FLIP,
    LIMB_JOINTS,
    LIMB_LANDMARKS,
    VECTOR_SIZE,
    landmark_arrays,
    landmark_boxes,
    landmark_vector,
    torso_frame,
)
from lib.models.landmark_net import LandmarkNet


@pytest.fixture
def person() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(300, 80, (5, 33, 2)), rng.random((5, 33)), rng.normal(0, 0.4, (5, 33, 3))


def test_boxes_are_tight_squares(person) -> None:
    xy = person[0]
    for box, points in zip(landmark_boxes(xy), xy):
        assert box[2] == box[3] == pytest.approx(np.ptp(points, axis=0).max(), rel=1e-6)
        assert (np.abs(points - box[:2]) <= box[2] / 2 + 1e-3).all()


def test_vector_ignores_image_position_scale_and_world_origin(person) -> None:
    xy, visibility, world = person
    expected, boxes = landmark_arrays(xy, visibility, world)
    moved, moved_boxes = landmark_arrays(2.5 * xy + [100, -40], visibility, world + np.array([0.3, 5, -2]))
    assert expected.shape == (5, VECTOR_SIZE)
    assert expected.dtype == torch.float32
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    np.testing.assert_allclose(moved_boxes[:, 2], 2.5 * boxes[:, 2], rtol=1e-6)


def test_turning_the_body_changes_only_the_camera_frame_parts(person) -> None:
    xy, visibility, world = person
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    before, after = (landmark_arrays(xy, visibility, seen)[0].numpy() for seen in (world, world @ turn.T))
    np.testing.assert_allclose(after[:, :99], before[:, :99], atol=1e-6)
    np.testing.assert_allclose(after[:, -99:], before[:, -99:], atol=1e-5)
    frames = before[:, 198:204].reshape(5, 3, 2)
    np.testing.assert_allclose(after[:, 198:204].reshape(5, 3, 2), turn @ frames, atol=1e-5)


def test_torso_frame_is_a_rotation_with_left_and_up(person) -> None:
    frame = torso_frame(torch.from_numpy(person[2])).numpy()
    np.testing.assert_allclose(frame @ frame.transpose(0, 2, 1), np.tile(np.eye(3), (5, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(frame), 1, atol=1e-6)
    standing = torch.zeros(33, 3)
    standing[[11, 12, 23, 24]] = torch.tensor([[0.2, -0.5, 0], [-0.2, -0.5, 0], [0.1, 0, 0], [-0.1, 0, 0]])
    np.testing.assert_allclose(torso_frame(standing)[:, :2], [[1, 0], [0, -1], [0, 0]], atol=1e-6)


def test_clips_in_batches_give_what_single_frames_give(person) -> None:
    tensors = [torch.from_numpy(part) for part in person]
    vectors, boxes = landmark_vector(*(part.expand(3, *part.shape) for part in tensors))
    one_by_one = [landmark_vector(*frame) for frame in zip(*tensors)]
    torch.testing.assert_close(vectors, torch.stack([v for v, _ in one_by_one]).expand(3, 5, -1))
    torch.testing.assert_close(boxes, torch.stack([b for _, b in one_by_one]).expand(3, 5, -1))


def test_flip_is_an_involution_and_limb_lists_agree() -> None:
    assert [LANDMARK_FLIP[i] for i in LANDMARK_FLIP] == list(range(33))
    assert list(range(25, 37)) == LIMB_JOINTS
    # right ankle, knee, hip, left hip, knee, ankle, right wrist, elbow, shoulder, left shoulder, elbow, wrist
    assert LIMB_LANDMARKS == [28, 26, 24, 23, 25, 27, 16, 14, 12, 11, 13, 15]


def test_a_wild_landmark_cannot_throw_the_network_far(person) -> None:
    net = LandmarkNet(width=32, feature_size=8, blocks=1)
    vectors, _ = landmark_arrays(*person)
    huge = vectors.clone()
    huge[:, 100] = 1e9
    limited = vectors.clone()
    limited[:, 100] = 5
    torch.testing.assert_close(net(huge), net(limited))
