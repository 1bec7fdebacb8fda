"""Coverage-guided fuzzing of the decoders with atheris, where it is installed.

``python -m tests.fuzz.decoders [TARGET ...] [-runs=N] [other libFuzzer options]``: all targets, or
those named. Without atheris `bench/fuzz.py` and the tests drive the same targets by seed.
"""

import sys


def main(arguments: list[str]) -> None:
    """The command line."""
    try:
        import atheris  # type: ignore[import-untyped] # optional, and ships no types
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris, or use bench/fuzz.py")
    # What is imported earlier can't be followed.
    with atheris.instrument_imports(include=["streams", "snapshots"]):
        from tests.fuzz.mutation import corpus
        from tests.fuzz.targets import TARGETS
    options = [argument for argument in arguments if argument.startswith("-")]
    names = [argument for argument in arguments if not argument.startswith("-")] or list(TARGETS)
    seeds = corpus()

    def one(data: bytes) -> None:
        # The first byte chooses the target, so that one run covers all; empty input is libFuzzer's
        # own first try.
        name = names[data[0] % len(names)] if data else names[0]
        TARGETS[name](data[1:])

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        # Without a corpus folder: every now and then a fresh start from valid bytes.
        if seed % 50:
            return bytes(atheris.Mutate(data, max_size))
        choice = seed // 50 % len(names)
        valid = seeds[names[choice]]
        return (bytes([choice]) + valid[seed % len(valid)])[:max_size]

    atheris.Setup([sys.argv[0], "-max_len=20000", *options], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
