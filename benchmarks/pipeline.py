"""The speed of loading and of writing submissions beside naive versions, in one run.

    python -m benchmarks.pipeline [--quick]

Prints patches a second of the loader against decoding files for every sample, CSV rows a second
against `DataFrame.to_csv`, and values a second of submissions whose rows are pictures; writes them
to benchmarks/results/.
"""

import argparse
import json
from dataclasses import asdict
from typing import Any

from benchmarks import csv_rows, loader, record


def main() -> None:
    """Measure everything, print it and write the dated result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small pictures, for a trial")
    quick = parser.parse_args().quick
    figures: dict[str, Any] = {"loader": asdict(loader.measure(seconds=1.0 if quick else 4.0))}
    print(json.dumps(figures["loader"]))
    rates = csv_rows.measure_csv_rows(pages=2 if quick else 8)
    figures["csv"] = {**asdict(rates), "times_pandas": rates.times_pandas}
    print(json.dumps(figures["csv"]))
    pictures = csv_rows.measure_picture_rows(repeats=1 if quick else 3)
    figures["picture_rows"] = {name: asdict(each) for name, each in pictures.items()}
    print(json.dumps(figures["picture_rows"]))
    if not quick:
        print(f"written: {record.write_result('pipeline', figures)}")


if __name__ == "__main__":
    main()
