"""A student stands alone: its bundle holds its teacher's text tower and tokenizer, whatever library made them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers as hf

from onestage import api, pretraining
from onestage.evaluation import class_weights
from onestage.spec import UserError, read_yaml
from onestage.teachers import load
from onestage.teachers.hf import quiet
from published import NATIVE, TEXT, WORDS, saved, tokenizer
from test_teachers_hf import saved as saved_hf

LEAN = {"batch": "4", "workers": "0", "precision": "fp32", "models.student.depth": "1", "models.student.width": "32"}
SHORT = TEXT | {"vocab_size": 80}
LAST = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
OTHERS: dict[str, dict[str, Any]] = {
    "siglip": SHORT | LAST | {"hf_tokenizer_name": "there/is-none", "tokenizer_kwargs": {"clean": "canonicalize"}},
    "pooled first": TEXT | {"pool_type": "first", "no_causal_mask": True},
    "cleaned otherwise": TEXT | {"tokenizer_kwargs": {"clean": "canonicalize"}},
}


def student(teacher: str, out: Path) -> tuple[Path, list[str]]:
    """One step of UTA, and what it said."""
    said: list[str] = []
    pretraining.start(
        api.make_recipe("uta_tiny", steps=1, settings=LEAN, data="digits", teacher=teacher), out, [], said.append
    )
    return out, said


def open_clip_folder(root: Path, kind: str) -> Path:
    """A model of open_clip whose texts are not read as CLIP's are."""
    folder = saved(root / kind.replace(" ", "_"), NATIVE | {"text_cfg": OTHERS[kind], "custom_text": True})
    if kind == "siglip":
        tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", OTHERS)
def test_other_texts_of_open_clip(kind: str, tmp_path: Path) -> None:
    folder = open_clip_folder(tmp_path / "teacher", kind)
    reference = f"open_clip:local-dir:{folder}"
    model: Any = open_clip.create_model_from_pretrained(f"local-dir:{folder}", return_transform=False).eval()
    expected = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(WORDS)).detach()
    teacher = load(reference)
    torch.testing.assert_close(teacher.text(WORDS), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)
    run, said = student(reference, tmp_path / "run")
    shutil.rmtree(tmp_path / "teacher")
    assert read_yaml(run / "bundle" / "bundle.yaml")["text"]["encoder"] == {
        "library": "open_clip",
        "kind": "library_text",
    }
    assert not [line for line in said if "no texts" in line]
    alone = load(str(run))
    torch.testing.assert_close(alone.text(WORDS), expected, atol=1e-5, rtol=1e-5)
    assert alone.scale == pytest.approx(teacher.scale) and not any(part.training for part in alone.parts())


def test_texts_of_another_kind_of_network(tmp_path: Path) -> None:
    """open_clip with a text network of transformers, as its XLM-RoBERTa models have: a small BERT here."""
    source = tmp_path / "bert"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    torch.manual_seed(3)
    with quiet():
        hf.BertModel(hf.BertConfig(**sizes, vocab_size=80, pad_token_id=1)).save_pretrained(source)
    texts = {"hf_model_name": str(source), "hf_tokenizer_name": str(source), "context_length": 12}
    texts |= {"hf_pooler_type": "mean_pooler", "hf_proj_type": "mlp"}
    folder = saved(tmp_path / "teacher", NATIVE | {"text_cfg": texts})
    tokenizer().save_pretrained(folder)
    reference = f"open_clip:local-dir:{folder}"
    expected = load(reference).text(WORDS)
    run, _ = student(reference, tmp_path / "run")
    shutil.rmtree(folder)
    shutil.rmtree(source)
    torch.testing.assert_close(load(str(run)).text(WORDS), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "metaclip_2", "siglip"])
def test_texts_of_transformers(kind: str, tmp_path: Path) -> None:
    """And a student of the student has them too."""
    folder = saved_hf(tmp_path / kind, kind)
    teacher = load(f"hf:{folder}")
    expected = teacher.text(WORDS)
    weights = class_weights(teacher, ["seven", "three"], ["a {}"])
    run, said = student(f"hf:{folder}", tmp_path / "run")
    shutil.rmtree(folder)
    assert not [line for line in said if "no texts" in line]
    again, _ = student(str(run), tmp_path / "again")
    shutil.move(run, tmp_path / "moved")
    for one in (tmp_path / "moved", again):
        alone = load(str(one))
        assert alone.scale == pytest.approx(teacher.scale) and alone.licence.endswith("cc-by-4.0")
        torch.testing.assert_close(alone.text(WORDS), expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(class_weights(alone, ["seven", "three"], ["a {}"]), weights, atol=1e-6, rtol=1e-5)
    assert not list(again.rglob("*.bin")) + list(again.rglob("*.pt"))


def test_a_teacher_without_its_tokenizer_makes_a_student_without_texts(tmp_path: Path) -> None:
    """Said when the run starts, and when a text is asked for; images are learned all the same."""
    folder = saved_hf(tmp_path / "mute", "siglip")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    run, said = student(f"hf:{folder}", tmp_path / "run")
    (line,) = [line for line in said if "no texts" in line]
    assert "no zero-shot" in line and "Put its files there (tokenizer.json" in line
    alone = load(str(run))
    assert alone.has_joint and not alone.has_text
    with pytest.raises(UserError, match="no text tower"):
        alone.text(WORDS)


def test_a_damaged_copy_is_named(tmp_path: Path) -> None:
    run, _ = student(f"open_clip:local-dir:{open_clip_folder(tmp_path / 'teacher', 'siglip')}", tmp_path / "run")
    (run / "bundle" / "text" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"bundle/text: its tokenizer is not there"):
        load(str(run))
    (run / "bundle" / "text" / "text.safetensors").unlink()
    with pytest.raises(UserError, match=r"text.safetensors: cannot be read"):
        load(str(run))
    run, _ = student(f"hf:{saved_hf(tmp_path / 'clip', 'clip')}", tmp_path / "other")
    (run / "bundle" / "text" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"bundle/text: the text tower cannot be opened"):
        load(str(run))
