"""Progress on a pipe and on a terminal, and the honesty of its time left."""

from __future__ import annotations

import io

import pytest

from onestage.engine.progress import Progress, Rate, duration


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Pipe(io.StringIO):
    """A text stream with all that the type `TextIO` names."""

    buffer, mode, name = None, "w", "pipe"


class Terminal(Pipe):
    def isatty(self) -> bool:
        return True


def test_plain_lines_come_every_few_seconds_and_at_the_end() -> None:
    stream, clock = Pipe(), Clock()
    with Progress(100, stream=stream, every=5.0, clock=clock) as progress:
        for step in range(1, 101):
            clock.now += 0.5
            progress.update(step, {"align": f"{1 / step:.3f}", "img/s": "64", "wait": "3%"} if step > 1 else None)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "step 1/100 | ETA ?"
    assert lines[1] == "step 11/100 | align 0.091 | img/s 64 | wait 3% | ETA 44 s"
    assert [line.split(" ")[1] for line in lines] == [f"{step}/100" for step in (*range(1, 101, 10), 100)]
    assert lines[-1].endswith("ETA 0 s")


def test_fields_stay_and_notes_have_a_line_of_their_own() -> None:
    stream, clock = Pipe(), Clock()
    with Progress(10, start=3, stream=stream, every=1.0, clock=clock) as progress:
        progress.update(4, {"align": "0.5"})
        progress.note("saved [step 4]")
        clock.now += 2
        progress.update(5)
    assert stream.getvalue().splitlines() == [
        "step 4/10 | align 0.5 | ETA ?",
        "saved [step 4]",
        "step 5/10 | align 0.5 | ETA 10 s",
    ]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream, clock = Terminal(), Clock()
    with Progress(10, start=2, stream=stream, clock=clock) as progress:
        for step in (3, 4, 5):
            clock.now += 1
            progress.update(step, {"align": "[bold]"})
        progress.note("saved [red]")
        progress.update(10)
    shown = stream.getvalue()
    assert "5/10" in shown
    assert "10/10" in shown
    assert "align [bold]" in shown
    assert "ETA 5 s" in shown
    assert "saved [red]" in shown


def test_a_terminal_is_not_drawn_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream, clock = Terminal(), Clock()
    with Progress(1000, stream=stream, clock=clock) as progress:
        for step in range(1, 900):
            clock.now += 0.001
            progress.update(step)
    assert stream.getvalue().count("/1000") < 10


def test_the_time_left_follows_the_recent_rate() -> None:
    rate = Rate(window=60.0)
    assert rate.remaining(100) is None
    now, step = 0.0, 0
    rate.mark(now, step)
    assert rate.remaining(100) is None
    for _ in range(100):  # slow: 10 s a step
        now, step = now + 10, step + 1
        rate.mark(now, step)
    assert rate.remaining(200) == pytest.approx(1000, rel=1e-9)
    for _ in range(1000):  # then fast: 10 steps a second
        now, step = now + 0.1, step + 1
        rate.mark(now, step)
    assert rate.remaining(step + 500) == pytest.approx(50, rel=1e-6)
    assert rate.remaining(step - 5) == 0
    for _ in range(30):  # then a long pause counts
        now += 10
        rate.mark(now, step)
    assert rate.remaining(step + 1) is None


def test_marks_stay_few() -> None:
    rate = Rate(window=60.0)
    for step in range(20_000):
        rate.mark(step * 0.01, step)
    assert len(rate._marks) < 50


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0.4, "0 s"),
        (59.6, "1 min 00 s"),
        (200.0, "3 min 20 s"),
        (3600.0 * 5 + 125, "5 h 02 min"),
        (86400.0 * 2 + 3600 * 3 + 5, "2 d 03 h"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
