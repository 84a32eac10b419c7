from kbdenoise.progress import Advance, Event, Fact, counting, silent


def test_counting_reports_every_count_as_its_task() -> None:
    events: list[Event] = []
    count = counting(events.append, "read pictures")

    count(1, 2)
    count(2, 2)

    assert events == [
        Advance(task="read pictures", done=1, total=2),
        Advance(task="read pictures", done=2, total=2),
    ]


def test_silence_takes_any_event() -> None:
    silent(Fact(label="device", text="cpu"))
