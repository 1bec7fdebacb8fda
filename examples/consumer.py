"""Print decisions as they come: `python examples/consumer.py embedded://closeloop-data`."""

import argparse
import sys

from streams import Client, Decision, StreamError


def line(decision: Decision) -> str:
    """A decision on one line."""
    return (
        f"{decision.ts:%Y-%m-%d %H:%M}  {decision.symbol:<8} {decision.action:<11} "
        f"x{decision.size_multiplier:.2f}  p={decision.probability:.3f}  "
        f"expected {decision.expected_return_pct:+.2f} %  {' '.join(decision.reasons)}"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Print decisions as they come.")
    parser.add_argument("address", help="such as embedded://DIR or redis://HOST:PORT")
    parser.add_argument("--after", default="$", help="a decision_id; 0-0: all; default: new ones")
    options = parser.parse_args()
    with Client(options.address) as client:
        for decision in client.decisions(options.after):
            print(line(decision), flush=True)


if __name__ == "__main__":
    try:
        main()
    except StreamError as error:
        sys.exit(f"consumer: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
