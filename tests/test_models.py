"""The networks against outputs of the original implementation on recipe weights, and by their definition."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lib.models import resnet_inference
from lib.models.body import BodyData
from lib.models.encoder import PoseForecast
from lib.models.hmr import HMR, load_hmr
from lib.models.motion_discriminator import MotionDiscriminator
from lib.models.regressor import Regressor
from lib.models.resnet_inference import InferenceResNet50
from lib.models.tcmr import TCMR
from lib.models.weights import load_weights
from lib.utils.errors import UserError
from tests.golden_tools import GOLDEN, fill_by_recipe, load_golden

_OUTPUTS = ("theta", "verts", "kp_2d", "kp_3d", "rotmat", "scores")
_DISCRIMINATORS = {
    "table4": {
        "rnn_size": 1024,
        "num_layers": 2,
        "feature_pool": "attention",
        "attention_layers": 3,
        "attention_dropout": 0.2,
    },
    "concat_h64": {"rnn_size": 64, "num_layers": 1, "feature_pool": "concat"},
    "last_h64": {"rnn_size": 64, "num_layers": 1, "feature_pool": "last"},
}


def _shapes(module: torch.nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def _golden_shapes(model: str) -> dict[str, list[int]]:
    return json.loads((GOLDEN / "state_dicts.json").read_text())[model]


def _small(body: BodyData, **options) -> TCMR:
    torch.manual_seed(0)
    return TCMR(
        **{"n_layers": 1, "hidden_size": 16, "feature_size": 24, "regressor_hidden_size": 32, **options},
        body=body,
    ).eval()


@pytest.mark.parametrize(
    ("case", "hidden", "layers", "seqlen"),
    [("h64_l2", 64, 2, 16), ("h64_l1", 64, 1, 16), ("h64_l2_seq15", 64, 2, 15), ("h1024_l2", 1024, 2, 16)],
)
def test_tcmr_equals_the_original(
    smpl_body: BodyData, case: str, hidden: int, layers: int, seqlen: int
) -> None:
    model = TCMR(seqlen, layers, hidden, body=smpl_body).eval()
    fill_by_recipe(model)
    golden = load_golden(f"tcmr/forward_{case}")
    x = torch.from_numpy(golden["input_x16"].astype(np.float32)) / 16
    regressor = torch.from_numpy(smpl_body.J_regressor_h36m)
    with torch.no_grad():
        for mode, options in (
            ("eval", {}),
            ("evalJ", {"J_regressor": regressor}),
            ("train", {"is_train": True, "J_regressor": regressor}),
        ):
            (full,), scores = model(x, **options)
            (fast,), _ = model(x, return_verts=False, **options)
            assert fast.keys() == full.keys() - {"verts"}
            torch.testing.assert_close(full["scores"], scores, atol=0, rtol=0)
            full_sum = full["verts"].double().sum(dim=-2)
            full["verts"] = full["verts"][..., golden["verts_index"], :]
            for name in _OUTPUTS:
                if f"{mode}_{name}" in golden:
                    expected = golden[f"{mode}_{name}"]
                    np.testing.assert_allclose(full[name].numpy(), expected, atol=1e-5, err_msg=name)
                    if name in fast:
                        np.testing.assert_allclose(fast[name].numpy(), expected, atol=1e-5, err_msg=name)
            if mode != "evalJ":
                np.testing.assert_allclose(full_sum.numpy(), golden[f"{mode}_verts_sum"], atol=2e-2)
                encoded = model.encoder(x, is_train=mode == "train")[0][..., :64]
                np.testing.assert_allclose(encoded.numpy(), golden[f"enc_{mode}"], atol=1e-5)


@pytest.mark.parametrize("which", ["smpl_body", "open_body"])
def test_state_dict_names_and_shapes_are_the_originals(which: str, request: pytest.FixtureRequest) -> None:
    body = request.getfixturevalue(which)
    assert _shapes(TCMR(16, 2, 1024, body=body)) == _golden_shapes("tcmr_h1024_l2")
    assert _shapes(TCMR(16, 2, 64, body=body)) == _golden_shapes("tcmr_h64_l2")
    assert _shapes(HMR(body)) == _golden_shapes("hmr")
    table4 = MotionDiscriminator(input_size=69, output_size=1, **_DISCRIMINATORS["table4"])
    assert _shapes(table4) == _golden_shapes("motion_discriminator_table4")
    assert sum(p.numel() for p in table4.parameters()) == 11_762_690


def test_number_of_parameters(smpl_body: BodyData) -> None:
    model = TCMR(body=smpl_body)
    assert sum(p.numel() for p in model.parameters()) == 81_912_608
    assert sum(p.numel() for p in model.encoder.parameters()) == 78_437_891
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == 56 and not any(".smpl." in name for name in trained)


def test_encoder_branches_see_only_their_frames() -> None:
    torch.manual_seed(0)
    encoder = PoseForecast(n_layers=2, seq_len=16, hidden_size=8, feature_size=12).eval()
    x = torch.randn(2, 16, 12)
    with torch.no_grad():
        features, scores = encoder(x, is_train=True)
        middle = x.clone()
        middle[:, 8] += 1
        moved, _ = encoder(middle, is_train=True)
        torch.testing.assert_close(moved[:, :2], features[:, :2], atol=0, rtol=0)
        assert not torch.allclose(moved[:, 2], features[:, 2])
        past = x.clone()
        past[:, :8] += 1
        moved, _ = encoder(past, is_train=True)
        torch.testing.assert_close(moved[:, 1], features[:, 1], atol=0, rtol=0)
        assert not torch.allclose(moved[:, 0], features[:, 0])
        integrated, _ = encoder(x)
    torch.testing.assert_close(integrated, features[:, 2])
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(2))


def test_no_branch_gets_all_of_the_attention() -> None:
    """Whatever the weights: the scores of a softmax over numbers between -1 and 1."""
    encoder = PoseForecast(n_layers=1, seq_len=6, hidden_size=8, feature_size=12).eval()
    torch.nn.init.constant_(encoder.attention.attention[4].bias, -50)
    encoder.attention.attention[4].bias.data[1] = 50
    with torch.no_grad():
        _, scores = encoder(torch.randn(2, 6, 12))
    bounds = 1 / (2 + np.exp(2)), 1 / (1 + 2 * np.exp(-2))
    torch.testing.assert_close(scores, torch.tensor([[bounds[0], bounds[1], bounds[0]]] * 2).float())


@pytest.mark.parametrize(("layers", "seqlen"), [(1, 16), (2, 15), (3, 16), (2, 5)])
def test_shared_work_of_overlapping_windows_changes_nothing(layers: int, seqlen: int) -> None:
    torch.manual_seed(0)
    encoder = PoseForecast(layers, seqlen, hidden_size=8, feature_size=12).double().eval()
    frames = torch.randn(30, 12, dtype=torch.float64)
    windows = torch.randint(0, 30, (9, seqlen))
    windows[0] = 4
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode_windows(frames, windows), encoder(frames[windows]))


def test_regressor_has_no_memory_of_the_batch_and_takes_initial_values(open_body: BodyData) -> None:
    torch.manual_seed(0)
    regressor = Regressor(open_body, feature_size=24, hidden_size=32).eval()
    x = torch.randn(3, 24)
    with torch.no_grad():
        whole = regressor(x)[0]
        single = regressor(x[1:2], return_verts=False)[0]
        torch.testing.assert_close(single["theta"], whole["theta"][1:2])
        start = regressor(x, n_iter=0)[0]
        torch.testing.assert_close(start["theta"][:, :3], torch.tensor([[0.9, 0.0, 0.0]]).expand(3, 3))
        torch.testing.assert_close(start["rotmat"][:, 1:], torch.eye(3).expand(3, 23, 3, 3))
        shaped = regressor(x, init_shape=torch.ones(3, 10), n_iter=0)[0]
    torch.testing.assert_close(shaped["theta"][:, 75:], torch.ones(3, 10))
    assert not torch.allclose(shaped["verts"], start["verts"])


def test_training_mode_gives_gradients_to_every_trained_weight(open_body: BodyData) -> None:
    model = _small(open_body, regressor_dropout=0.0).train()
    (output,), _ = model(torch.randn(2, 16, 24), is_train=True, return_verts=False)
    assert output["theta"].shape == (2, 3, 85) and output["kp_3d"].shape == (2, 3, 49, 3)
    (output["kp_2d"].square().sum() + output["theta"].square().sum()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def _images() -> torch.Tensor:
    images = [cv2.imread(str(GOLDEN / "hmr" / f"img{i}.png"))[..., ::-1] for i in range(2)]
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    scaled = (np.stack(images) / 255 - mean) / deviation
    return torch.from_numpy(scaled.astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def test_hmr_equals_the_original_and_loads_from_a_spin_checkpoint(
    smpl_body: BodyData, tmp_path: Path
) -> None:
    source = HMR(smpl_body)
    fill_by_recipe(source)
    weights = {name: value for name, value in source.state_dict().items() if not name.startswith("smpl.")}
    torch.save({"model": weights, "epoch": np.int64(3)}, tmp_path / "spin.pth.tar")
    model = load_hmr(tmp_path / "spin.pth.tar", smpl_body)
    assert not model.training
    golden = load_golden("hmr/hmr_forward")
    images = _images()
    np.testing.assert_allclose(images.mean(dim=(2, 3)).numpy(), golden["input_mean"], atol=1e-5)
    with torch.inference_mode():
        features = model.feature_extractor(images)
        (output,) = model(features)
    np.testing.assert_allclose(features.numpy(), golden["features"], rtol=1e-4, atol=5e-5)
    for name in ("theta", "kp_2d", "kp_3d"):
        np.testing.assert_allclose(output[name].numpy(), golden[name], atol=5e-5, err_msg=name)
    np.testing.assert_allclose(output["verts"].double().sum(dim=1).numpy(), golden["verts_sum"], atol=5e-2)

    del weights["layer3.2.conv1.weight"]
    torch.save({"model": weights}, tmp_path / "broken.pth.tar")
    with pytest.raises(UserError, match=r"missing layer3\.2\.conv1\.weight"):
        load_hmr(tmp_path / "broken.pth.tar", smpl_body)
    torch.save({"state": weights}, tmp_path / "other.pth.tar")
    with pytest.raises(UserError, match="no weights in an entry 'model'"):
        load_hmr(tmp_path / "other.pth.tar", smpl_body)


@pytest.mark.parametrize("onednn", [True, False])
def test_inference_trunk_equals_the_trunk(smpl_body: BodyData, monkeypatch, onednn: bool) -> None:
    """Both ways to compute it; whatever mode the model is in, and without a change to the model."""
    if not onednn:
        monkeypatch.setattr(resnet_inference, "_has_onednn", lambda dtype: False)
    monkeypatch.setattr(resnet_inference, "_CPU_IMAGES", 2)
    model = HMR(smpl_body).eval()
    fill_by_recipe(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.cat([_images(), _images().flip(3)[:1]])
    kept = images.clone()
    with torch.inference_mode():
        expected = model.feature_extractor(images)
        features = InferenceResNet50(model.train())(images)
        rough = InferenceResNet50(model, torch.bfloat16)(images)
    assert model.training
    assert (features - expected).abs().max() <= 1e-6 * expected.abs().max()
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().mean()))
    golden = load_golden("hmr/hmr_forward")["features"]
    np.testing.assert_allclose(features[:2].numpy(), golden, rtol=1e-4, atol=5e-5)
    assert rough.dtype == torch.float32 and 1e-4 < (rough - expected).norm() / expected.norm() < 0.01
    torch.testing.assert_close(images, kept, rtol=0, atol=0)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, msg=name)


def test_fused_convolutions_are_used_where_torch_has_them(monkeypatch) -> None:
    usable = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    assert resnet_inference._has_onednn(torch.float32) == usable
    monkeypatch.delattr(torch.ops.mkldnn, "_convolution_pointwise", raising=False)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not resnet_inference._has_onednn(torch.float32)


@pytest.mark.parametrize("case", _DISCRIMINATORS)
def test_motion_discriminator_equals_the_original(case: str) -> None:
    model = MotionDiscriminator(input_size=69, output_size=1, **_DISCRIMINATORS[case]).eval()
    fill_by_recipe(model)
    golden = load_golden(f"motion_discriminator/{case}")
    x = torch.from_numpy(golden["input"])
    with torch.no_grad():
        np.testing.assert_allclose(model(x).numpy(), golden["output"], atol=1e-5)
        alone = model(x[:1])  # the original collapsed the batch axis here
    assert alone.shape == (1, 1)
    np.testing.assert_allclose(alone.numpy(), golden["output"][:1], atol=1e-5)


def test_weights_load_with_and_without_the_body(smpl_body: BodyData, open_body: BodyData) -> None:
    for body in (smpl_body, open_body):
        source, target = _small(body), _small(body)
        fill_by_recipe(source)
        full = source.state_dict()
        slim = {name: value for name, value in full.items() if ".smpl." not in name}
        x = torch.randn(2, 16, 24)
        for weights, kind in ((full, None), (full, body.kind), (slim, body.kind)):
            fresh = _small(body)
            fresh.load_weights(weights, kind)
            with torch.no_grad():
                found, expected = (m(x, return_verts=False)[0][0] for m in (fresh, source))
            torch.testing.assert_close(found, expected)
        assert not torch.equal(target.encoder.linear_bef.weight, source.encoder.linear_bef.weight)
    _small(smpl_body).load_weights(slim)  # a slim checkpoint that names no body is an official one


def test_weights_of_the_other_body_are_refused(smpl_body: BodyData, open_body: BodyData) -> None:
    official, free = _small(smpl_body), _small(open_body)
    slim = {name: value for name, value in official.state_dict().items() if ".smpl." not in name}
    for weights, kind in ((official.state_dict(), None), (slim, None), (slim, "smpl")):
        with pytest.raises(UserError, match=r"trained with the official SMPL body.*SMPL_NEUTRAL\.pkl"):
            free.load_weights(weights, kind, "model.pth.tar")
    for weights, kind in ((free.state_dict(), None), (slim, "open")):
        with pytest.raises(UserError, match="trained with the open body"):
            official.load_weights(weights, kind)


def test_what_is_no_tensor_is_named(smpl_body: BodyData) -> None:
    weights = {**_small(smpl_body).state_dict(), "regressor.fc2.bias": 3}
    with pytest.raises(UserError, match=r"x\.pth holds no weights .*regressor\.fc2\.bias is no tensor"):
        load_weights(_small(smpl_body), weights, "x.pth")


def test_weights_that_do_not_fit_are_named(smpl_body: BodyData) -> None:
    model = _small(smpl_body)
    weights = dict(_small(smpl_body, hidden_size=8).state_dict())
    del weights["regressor.fc2.bias"]
    weights["regressor.fc3.bias"] = torch.zeros(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        model.load_weights(weights, source="wrong.pth.tar")
    message = str(caught.value)
    for part in (
        "wrong.pth.tar",
        "missing regressor.fc2.bias",
        "unexpected regressor.fc3.bias",
        "encoder.gru_cur.weight_ih_l0 has shape (24, 24), expected (48, 24)",
        " more",
    ):
        assert part in message
    torch.testing.assert_close(dict(model.state_dict()), before, atol=0, rtol=0)


def test_pretrained_regressor(open_body: BodyData, smpl_body: BodyData, tmp_path: Path) -> None:
    source = _small(open_body)
    fill_by_recipe(source)
    weights = {n: v for n, v in source.regressor.state_dict().items() if not n.startswith("smpl.")}
    path = tmp_path / "landmark_net.pth.tar"
    torch.save({"model": {**weights, "extractor.fc.weight": torch.zeros(1)}, "body": "open"}, path)
    model = _small(open_body, pretrained=path)
    torch.testing.assert_close(model.regressor.fc1.weight, source.regressor.fc1.weight)
    with pytest.raises(UserError, match="trained with the open body"):
        _small(smpl_body, pretrained=path)
    with pytest.raises(UserError, match=r"fc1\.weight has shape \(32, 181\), expected \(32, 187\)"):
        _small(open_body, pretrained=path, feature_size=30)
    with pytest.raises(UserError, match="does not exist"):
        _small(open_body, pretrained=tmp_path / "missing.pth.tar")


def test_models_do_not_import_torchvision() -> None:
    code = (
        "import sys, lib.models.hmr, lib.models.predict, lib.models.motion_discriminator, lib.core.loss;"
        "assert not [m for m in sys.modules if m.startswith(('torchvision', 'chumpy'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[1])
