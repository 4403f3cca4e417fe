"""open_clip models by name: tags, files, their statistics, their GELU; safetensors only, never a download."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch

from onestage.spec import UserError
from onestage.teachers import LibraryTeacher, load
from onestage.teachers.open_clip import load_open_clip
from published import NATIVE, WORDS, registered, saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One published folder."""
    return saved(tmp_path_factory.mktemp("names") / "native", NATIVE)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_by_name_and_file(folder: Path, tmp_path: Path) -> None:
    """The same weights, with open_clip's default statistics, which are CLIP's."""
    name = registered(tmp_path, "onestage-by-name", NATIVE)
    by_name = load(f"open_clip:{name}/{folder / 'open_clip_model.safetensors'}")
    by_folder = load(f"open_clip:local-dir:{folder}")
    assert by_name.text(WORDS).equal(by_folder.text(WORDS))
    assert (by_name.statistics, by_folder.statistics) == ("clip", "own")
    image = torch.rand(1, 3, 32, 32)
    assert not torch.allclose(by_name.tokens(image, "joint").pooled, by_folder.tokens(image, "joint").pooled)


def test_what_is_not_there(folder: Path, tmp_path: Path, offline: None) -> None:
    weights = folder / "open_clip_model.safetensors"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "open_clip_config.json").write_text("{}")
    for reference, said in {
        "open_clip:ViT-B-32/laion3b": "neither a file here nor a tag of ViT-B-32, which has the tags openai",
        "open_clip:ViT-B-32": "expected open_clip:NAME/TAG_OR_FILE; ViT-B-32 has the tags",
        "open_clip:ViT-B-32/gone.safetensors": "there is no file gone.safetensors",
        f"open_clip:ViT-B-23/{weights}": "open_clip has no model 'ViT-B-23'; did you mean 'ViT-B-32'",
        f"open_clip:ViT-B-32/{weights}": "open_clip cannot load it",
        f"open_clip:local-dir:{tmp_path}/nowhere": "open_clip_config.json",
        f"open_clip:local-dir:{tmp_path}/empty": "holds no weights .expected open_clip_model.safetensors",
        f"{tmp_path}/nowhere": "there is no such folder",
        f"{tmp_path}": "it holds no run.yaml",
    }.items():
        with pytest.raises(UserError, match=said) as caught:
            load(reference)
        assert str(caught.value).startswith(reference)
    assert "hf:NAME_OR_DIR" in str(caught.value), "every form is named"


def test_partial_and_foreign_files(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "pickled")
    weights = tmp_path / "pickled" / "open_clip_model.safetensors"
    weights.rename(weights.with_name("open_clip_pytorch_model.bin"))
    with pytest.raises(UserError, match=r"open_clip_pytorch_model.bin is a pickle.*so it is not.*\n.*save_file"):
        load(f"open_clip:local-dir:{tmp_path / 'pickled'}")
    # open_clip prefers this name to a model.safetensors beside it.
    shutil.copy(folder / "open_clip_model.safetensors", tmp_path / "pickled" / "model.safetensors")
    with pytest.raises(UserError, match="is a pickle"):
        load(f"open_clip:local-dir:{tmp_path / 'pickled'}")
    (tmp_path / "ViT-B-32.pt").write_bytes(b"a pickle")
    with pytest.raises(UserError, match="is a pickle"):
        load(f"open_clip:ViT-B-32/{tmp_path / 'ViT-B-32.pt'}")
    (tmp_path / "weights.npz").write_bytes(b"numbers")
    with pytest.raises(UserError, match=r"expected .safetensors"):
        load(f"open_clip:ViT-B-16-SigLIP/{tmp_path / 'weights.npz'}")


@pytest.mark.parametrize(
    ("name", "tag", "right"),
    [
        ("ViT-B-16", "openai", "open_clip:ViT-B-16-quickgelu/..."),
        ("ViT-L-14", "dfn2b", "open_clip:ViT-L-14-quickgelu/..."),
        ("ViT-H-14-worldwide", "metaclip2_worldwide", "open_clip:ViT-H-14-worldwide-quickgelu/..."),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "open_clip:ViT-B-32/..."),
    ],
)
def test_the_wrong_gelu_is_refused_with_the_right_name(name: str, tag: str, right: str, tmp_path: Path) -> None:
    """By tag, by a file that bears it, and by a folder that does."""
    (tmp_path / tag).mkdir()
    files = [tmp_path / f"{name}-{tag}.safetensors", tmp_path / tag / "open_clip_model.safetensors"]
    for file in files:
        file.write_bytes(b"not read")
    tags = [tag] if tag in open_clip.list_pretrained_tags_by_model(name) else []
    for given in [*tags, *files]:
        with pytest.raises(UserError, match=f"weights '{tag}' were trained with") as caught:
            load(f"open_clip:{name}/{given}")
        assert right in str(caught.value)


def test_every_tag_is_let_through_under_one_name(offline: None) -> None:
    """Nothing published is refused for its GELU under both of its names."""
    refused: set[tuple[str, str]] = set()
    for name, tag in open_clip.list_pretrained():
        with pytest.raises(UserError) as caught:
            load_open_clip(f"open_clip:{name}/{tag}", torch.device("cpu"))
        assert ("QuickGELU" in str(caught.value)) or ("neither in the cache nor to be had" in str(caught.value))
        if "QuickGELU" in str(caught.value):
            refused.add((name, tag))
    assert ("ViT-B-16", "openai") in refused and len(refused) > 20
    assert not [name for name, _ in refused if name.endswith("-quickgelu")]
    assert all(tag in open_clip.list_pretrained_tags_by_model(f"{name}-quickgelu") for name, tag in refused)


def test_statistics_of_a_file_are_those_of_its_architecture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip gives every file CLIP's own, which is wrong for SigLIP; and ViT-L-14 has two."""
    given = []

    def stop(name: str, **options: object) -> None:
        given.append(options)
        raise RuntimeError("enough")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", stop)
    plain = folder / "open_clip_model.safetensors"
    half = folder / "laion2b_s32b_b82k.safetensors"
    shutil.copy(plain, half)
    for reference in (f"ViT-B-16-SigLIP/{plain}", f"ViT-L-14/{half}", f"ViT-B-16/{plain}", f"PE-Core-B-16/{plain}"):
        with pytest.raises(UserError, match="enough"):
            load(f"open_clip:{reference}")
    clip = open_clip.OPENAI_DATASET_MEAN
    assert [options["image_mean"] for options in given] == [(0.5,) * 3, (0.5,) * 3, clip, (0.5,) * 3]
    assert [options["image_interpolation"] for options in given] == ["bicubic", "bicubic", "bicubic", "bilinear"]
    with pytest.raises(UserError, match=r"ViT-L-14 normalise pixels in 2 ways.*Put the tag into its name"):
        load(f"open_clip:ViT-L-14/{plain}")


def test_a_tag_goes_to_the_hub_and_takes_its_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    """Through the hub's own cache, laid out as its client lays it out: nothing is fetched."""
    with pytest.raises(UserError, match=r"open_clip_model.safetensors of timm/.*openai is neither in the cache"):
        load("open_clip:ViT-B-16-quickgelu/openai")
    name = registered(tmp_path, "onestage-tagged", NATIVE)
    published = {"hf_hub": "owner/model/", "url": "", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    tags = {name: {"webli": published | {"interpolation": "bilinear", "resize_mode": "squash"}}}
    monkeypatch.setattr(open_clip.pretrained, "_PRETRAINED", tags)
    commit = "0" * 40
    cache = tmp_path / "hub" / "models--owner--model"
    (cache / "snapshots" / commit).mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    shutil.copy(folder / "open_clip_model.safetensors", cache / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    teacher = load(f"open_clip:{name}/webli")
    assert isinstance(teacher, LibraryTeacher)
    assert (teacher.statistics, teacher.interpolation) == ("half", "bilinear")
    assert teacher.licence == "see https://huggingface.co/owner/model"
    assert teacher.text(WORDS).equal(load(f"open_clip:local-dir:{folder}").text(WORDS))
