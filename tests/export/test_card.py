import pytest

from kbdenoise.errors import DataError
from kbdenoise.export.card import ExportCard


def card(**changes: object) -> ExportCard:
    usual: dict[str, object] = {
        "model": "tone+kbnet-s",
        "channels": 3,
        "hyperparameters": {"encoder_blocks": [1, 2], "norm": "none"},
        "parameters": 17,
        "format": "onnx",
        "precision": "fp32",
        "tile": 256,
        "overlap": 64,
        "multiple": 16,
        "radius": None,
        "sees_page": True,
        "bytes_per_pixel": 1234.5,
        "weights_sha256": "ab" * 32,
        "versions": {"torch": "2.13.0"},
        "details": {"opset": "17"},
    }
    return ExportCard(**(usual | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("radius", [None, 0, 17])
def test_a_card_is_the_same_after_a_journey_as_texts(radius: int | None) -> None:
    written = card(radius=radius).to_strings()

    assert all(key.startswith("kbdenoise.") for key in written)
    assert all(isinstance(value, str) for value in written.values())
    assert ExportCard.from_strings({**written, "other": "1"}, where="x") == card(radius=radius)


def test_a_package_of_somebody_else_is_named() -> None:
    with pytest.raises(DataError, match=r"model\.onnx is no package that kbdenoise wrote"):
        ExportCard.from_strings({"author": "somebody"}, where="model.onnx")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format_version", "99"),
        ("channels", "4"),
        ("multiple", "0"),
        ("tile", '"wide"'),
        ("radius", "1.5"),
        ("sees_page", "3"),
        ("bytes_per_pixel", "-1"),
    ],
)
def test_values_that_would_lead_astray_are_refused(key: str, value: str) -> None:
    strings = card().to_strings() | {f"kbdenoise.{key}": value}

    with pytest.raises(
        DataError, match="another version" if key == "format_version" else "damaged"
    ):
        ExportCard.from_strings(strings, where="x")
