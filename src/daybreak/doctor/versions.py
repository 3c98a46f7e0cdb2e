"""Python and the packages. Must be importable where none of them is."""

import importlib
import importlib.metadata
import platform
import re

from daybreak.doctor.finding import Finding, in_a_line

# As in pyproject.toml.
_REQUIRED = {
    "torch": ">=2.11,<2.14",
    "numpy": ">=2.0",
    "pydantic": ">=2.10,<3",
    "safetensors": ">=0.5",
    "tiktoken": ">=0.9",
    "tokenizers": ">=0.21",
    "typer": ">=0.15",
    "rich": ">=13",
}


def versions() -> Finding:
    """Python and every package that daybreak needs, each imported."""
    here, missing, untried = [f"Python {platform.python_version()}"], [], []
    for package, bounds in _REQUIRED.items():
        try:
            importlib.import_module(package)
            version = importlib.metadata.version(package)
        except Exception as error:  # whatever an import runs into
            missing.append(f"{package} ({in_a_line(error)})")
            continue
        here.append(f"{package} {version}")
        if not _is_within(version, bounds):
            untried.append(f"{package}{bounds}")
    if missing:
        return Finding(
            f"Not usable: {', '.join(missing)}. Here: {', '.join(here)}.",
            "nothing can be trained, and nothing else was checked; pip install daybreak",
            broken=True,
        )
    costs = f"it may work, but daybreak was only tried with {', '.join(untried)}"
    return Finding(f"{', '.join(here)}.", costs if untried else "")


def _is_within(version: str, bounds: str) -> bool:
    """Whether major and minor of a version fit bounds such as `>=2.11,<2.14`."""
    here = _numbers(version)
    wanted = [(sign, _numbers(number)) for sign, number in re.findall(r"(>=|<)([\d.]+)", bounds)]
    return all(here >= number if sign == ">=" else here < number for sign, number in wanted)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
