"""Cut videos into windows of consecutive frames.

A window is a row ``(target, first, last)`` of absolute frame indices: the frame it predicts, and the frames
it may see. Position k of a window of length L shows frame ``clip(target + k - L // 2, first, last)``.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Shaped

Names = Shaped[np.ndarray, " n"]
VIBE_MULTIPLE = 16  # the original cuts videos to a multiple of this, whatever the window length


def video_spans(vid_names: Names) -> Int[np.ndarray, "videos 2"]:
    """Runs of equal names: first and last frame. A name that comes back later starts a new video."""
    names = np.asarray(vid_names)
    if len(names) == 0:
        return np.zeros((0, 2), np.int64)
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    return np.stack([starts, np.r_[starts[1:], len(names)] - 1], axis=1)


def first_occurrence_spans(vid_names: Names) -> Int[np.ndarray, "videos 2"]:
    """The original's videos: each runs to the first occurrence of the next distinct name."""
    starts = np.sort(np.unique(np.asarray(vid_names), return_index=True)[1])
    return np.stack([starts, np.r_[starts[1:], len(vid_names)] - 1], axis=1)


def split_into_chunks(
    vid_names: Names,
    seqlen: int,
    stride: int,
    is_train: bool = True,
    match_vibe: bool = True,
) -> Int[np.ndarray, "w 2"]:
    """The original's windows: first and last frame, inclusive; equal for one repeated frame.

    Videos shorter than ``seqlen`` give none. With ``stride != seqlen`` the ends are padded: by repeats of the
    first and last window in training, else by single frames. ``match_vibe`` drops the windows after the last
    multiple of 16 frames, if one ends there.
    """
    half, back = seqlen // 2, int(seqlen / 2 + 0.5) - 1
    chunks: list[np.ndarray] = []
    for first, last in first_occurrence_spans(vid_names):
        length = last - first + 1
        if length < seqlen:
            continue
        starts = np.arange(first, last - seqlen + 2, stride)
        if stride != seqlen:
            if match_vibe:
                end = first + length // VIBE_MULTIPLE * VIBE_MULTIPLE - 1
                match = np.flatnonzero(starts + seqlen - 1 == end)
                if len(match):
                    starts = starts[: match[0] + 1]
            if is_train:
                starts = np.r_[[starts[0]] * half, starts, [starts[-1]] * back]
            else:
                before = starts[0] + np.arange(half)
                after = starts[-1] + half + 1 + np.arange(back)
                chunks += [np.stack([before, before], 1), np.stack([starts, starts + seqlen - 1], 1)]
                chunks += [np.stack([after, after], 1)]
                continue
        chunks.append(np.stack([starts, starts + seqlen - 1], 1))
    return np.concatenate(chunks) if chunks else np.zeros((0, 2), np.int64)


def original_windows(vid_names: Names, seqlen: int, overlap: bool) -> Int[np.ndarray, "w 3"]:
    """Training windows as the original draws them."""
    chunks = split_into_chunks(vid_names, seqlen, 1 if overlap else seqlen)
    return np.column_stack([chunks[:, 0] + seqlen // 2, chunks])


def training_windows(vid_names: Names, seqlen: int, overlap: bool) -> Int[np.ndarray, "w 3"]:
    """Training windows.

    With ``overlap`` every frame is the target of exactly one window, whose ends repeat the video's border
    frames. Without, windows follow each other; the last one is moved back so that no frame is lost, and a
    video shorter than ``seqlen`` gives one window centred on it.
    """
    spans = video_spans(vid_names)
    if overlap:
        lengths = spans[:, 1] - spans[:, 0] + 1
        return np.column_stack([np.arange(lengths.sum()), np.repeat(spans, lengths, axis=0)])
    windows = []
    for first, last in spans:
        length = last - first + 1
        if length < seqlen:
            targets = np.array([first + length // 2])
        else:
            starts = np.arange(first, last + 1, seqlen)
            targets = np.minimum(starts, last - seqlen + 1) + seqlen // 2
        windows.append(np.column_stack([targets, np.broadcast_to([first, last], (len(targets), 2))]))
    return np.concatenate(windows) if windows else np.zeros((0, 3), np.int64)


def first_of_runs(windows: Int[np.ndarray, "n 3"], run_length: int) -> Int[np.ndarray, "m 3"]:
    """Those of training windows, one per frame, that begin a run of windows inside a video.

    A video of fewer than ``run_length`` frames has none.
    """
    last = windows[run_length - 1 :]
    first = windows[: len(last)]
    begins: np.ndarray = first[(first[:, 1] == last[:, 1]) & (last[:, 0] - first[:, 0] == run_length - 1)]
    return begins


def window_frames(
    windows: Int[np.ndarray, "n 3"], seqlen: int, run_length: int = 1
) -> Int[np.ndarray, "n t"]:
    """Frames that windows show, or runs of windows that begin with them: ``seqlen + run_length - 1``."""
    frames = windows[:, :1] + np.arange(seqlen + run_length - 1) - seqlen // 2
    return np.clip(frames, windows[:, 1:2], windows[:, 2:3])
