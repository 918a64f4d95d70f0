"""Package installation: ``pip install -e .``; ``./setup_environment.sh`` does all of it."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def requirements(name: str) -> list[str]:
    """The requirements in a file of setup/, without comments."""
    lines = (HERE / "setup" / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


setup(
    name="week1-inference-baseline",
    version="1.0.0",
    description="Measures and diagnoses the inference of transformer text classifiers",
    license="MIT",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["utils", "utils.*"]),
    package_data={"utils.reporting": ["templates/*"]},
    install_requires=requirements("requirements.txt"),
    extras_require={"dev": requirements("requirements-dev.txt"), "ray": ["ray[data]>=2.60,<2.64"]},
)
