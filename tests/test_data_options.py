"""What a user says of a source after its name: keys, prompts, how captions are read, and what keeps them true."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loading import drawn, made, sized
from onestage.data import Mixture, Scenes, open_source
from onestage.data.adapted import Adapted
from onestage.data.options import Options
from onestage.data.verify import verify
from onestage.engine.texts import in_turn
from onestage.roles import BadSample, Source
from onestage.spec import UserError
from shards import captioned, write_tar


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((6, 5, 3), np.uint8)).save(path)


def refused(text: str) -> str:
    with pytest.raises(UserError) as caught:
        open_source(text)
    return str(caught.value)


def test_prompts_are_made_of_classes(tmp_path: Path) -> None:
    for name in ("tree frog", "Käfer"):
        image(tmp_path / name / "a.png")
    source = open_source(f"{tmp_path}?prompt=a+photo+of+a+{{}}&prompt={{}}%3F+%26")
    assert source.has_texts and source.keeps_captions == {"crop", "flip", "colour"} and len(source) == 2
    assert source[0].texts == ("a photo of a Käfer", "Käfer? &") and source[1].texts[0] == "a photo of a tree frog"
    (tmp_path / "names.txt").write_text("beetle\nfrog\n")
    named = open_source(f"{tmp_path}?classes={tmp_path}/names.txt&prompt={{}}")
    assert named.classes == ("beetle", "frog") and named[1].texts == ("frog",)
    plain = open_source(str(tmp_path))
    assert len({one.fingerprint() for one in (source, named, plain)}) == 3 and not plain.has_texts
    assert named.fingerprint() == open_source(f"{tmp_path}?prompt={{}}&classes={tmp_path}/names.txt").fingerprint()


def test_a_sample_without_a_class_has_no_prompt(tmp_path: Path) -> None:
    for name in "ab":
        image(tmp_path / f"{name}.png")
    rows = [{"file_name": "a.png", "label": "ape", "text": "mine"}, {"file_name": "b.png"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = open_source(f"{tmp_path}?prompt=one+{{}}")
    assert source[0].texts == ("one ape",)
    with pytest.raises(BadSample, match="no label to make a prompt of"):
        source[1]


def test_keys_of_a_captioned_folder(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    row = {"path": "a.png", "text": "usual", "title": ["one", "two"], "kind": 7}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    source = open_source(f"{tmp_path}?image=path&text=title&label=kind")
    assert source[0].texts == ("one", "two") and source.classes == ("7",)
    assert "there is no file_name (found: path, text, title, kind)" in refused(str(tmp_path))
    told = refused(f"{tmp_path}?image=path&text=tilte")
    assert "nothing is called 'tilte', which was given as text=; there are: kind, path, text, title" in told
    assert "there is no file (found: path" in refused(f"{tmp_path}?image=file")
    (tmp_path / "metadata.jsonl").unlink()
    assert "keys are for a folder with metadata.jsonl" in refused(f"{tmp_path}?text=title")


def test_keys_of_shards(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    png = (tmp_path / "a.png").read_bytes()
    members = []
    for number in range(3):
        told = {"text": "usual", "alt": f"alt {number}", "group": 2 - number, "many": ["x", "y"]}
        members += [
            (f"{number}.small.png", b"small"),
            (f"{number}.png", png),
            (f"{number}.txt", b"from a member"),
            (f"{number}.title", b"title %d" % number),
            (f"{number}.json", json.dumps(told).encode()),
        ]
    write_tar(tmp_path / "a.tar", members)
    shards = f"{tmp_path}/a.tar"
    assert open_source(shards)[1].texts == ("from a member",)
    assert open_source(f"{shards}?text=title")[1].texts == ("title 1",)
    assert open_source(f"{shards}?text=many")[1].texts == ("x", "y")
    keyed = open_source(f"{shards}?text=alt&label=group&image=png")
    assert keyed[1].texts == ("alt 1",) and keyed.classes == ("0", "1", "2") and keyed[0].label == 2
    assert keyed[0].picture.size == (5, 6) and keyed.has_labels
    assert keyed.fingerprint() != open_source(shards).fingerprint()
    told = refused(f"{shards}?text=caption")
    assert "nothing is called 'caption'" in told and "alt, group, json, many, png, small.png, text, title, txt" in told


def test_shards_with_options_are_checked_to_the_byte(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", captioned(0, 4))
    named = open_source(f"{shard}?keeps=none&captions=all")
    assert verify(named, 0, lambda done, total: None) == []
    content = bytearray(shard.read_bytes())
    place = content.index(b"picture 2")
    content[place : place + 7] = b"Picture"
    shard.write_bytes(content)
    assert [fault.key for fault in verify(named, 0, lambda done, total: None)] == ["a.tar/000002.txt"]


def test_how_captions_are_read_and_what_keeps_them_true() -> None:
    source = open_source("scenes?captions=all&keeps=flip,crop")
    assert (
        source.reads == "all" and source.keeps_captions == {"flip", "crop"} and open_source("scenes").reads == "random"
    )
    assert open_source("digits?keeps=none").keeps_captions == frozenset()
    mixed = open_source("0.5*digits?prompt=a+drawn+{}&keeps=flip+0.5*scenes?keeps=flip,crop")
    assert isinstance(mixed, Mixture)
    assert [part.has_texts for part in mixed.parts] == [True, True] and mixed.keeps_captions == {"flip"}
    assert mixed[0].texts[0].startswith("a drawn ")


def test_all_captions_come_in_their_turn() -> None:
    """In as many epochs as a sample has captions each is read once; at random, some are read twice."""
    for first in (0, 3, 2**31):
        assert sorted(in_turn("abcde", first, epoch) for epoch in range(5)) == list("abcde")
    scenes = Scenes(length=12)
    data = made(Adapted("x", scenes, Options(captions="all")), sized("clip"), batch=4)
    random = made(scenes, sized("clip"), batch=4)
    firsts, repeats = set(), 0
    for index in range(12):
        texts = scenes[index].texts
        numbers = [number for number in range(12 * len(texts)) if data.stream.at(number).sample == index]
        read = [drawn(data, number)[0].text for number in numbers]
        assert Counter(read) == Counter(texts)
        firsts.add(texts.index(str(read[0])))
        repeats += len(texts) - len({drawn(random, number)[0].text for number in numbers})
    assert len(firsts) > 1 and repeats > 0


def test_a_wrapped_source_says_all_that_the_source_says() -> None:
    scenes = open_source("scenes")
    wrapped = Adapted("x", scenes, Options(keeps=frozenset({"crop"})))
    said = Source.__annotations__.keys() - {"name", "keeps_captions"}
    assert all(getattr(wrapped, name) == getattr(scenes, name) for name in said)
    assert wrapped[3].texts == scenes[3].texts and wrapped.keeps_captions == {"crop"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("digits?promt=a+{}", "there is no option 'promt'; did you mean 'prompt'?"),
        ("digits?prompt=a+photo", "prompt=a photo has no place for the class"),
        ("digits?prompt=", "prompt= is empty"),
        ("digits?keeps=flips", "keeps=flips; expected none, or some of colour,crop,flip"),
        ("digits?captions=some", "captions=some; expected random or all"),
        ("digits?captions=all&captions=all", "captions= is given twice"),
        ("digits?text=caption", "digits: has no keys to choose from; those with keys: captioned folders, tar shards"),
        ("masks:a,b?text=caption", "masks:a,b: has no keys to choose from"),
        ("digits?classes=nowhere.txt", "cannot be read as a file of class names"),
    ],
)
def test_mistakes_in_options(text: str, told: str) -> None:
    assert told in refused(text)


def test_a_prompt_needs_classes(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    assert "prompt= makes texts of classes, and" in refused(f"{tmp_path}?prompt={{}}")
    (tmp_path / "names.txt").write_text("one\n")
    assert "names 1 classes, and there are 10" in refused(f"digits?classes={tmp_path}/names.txt")
