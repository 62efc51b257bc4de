# The image of workers on an engine that starts them in containers: anchormix at the locked versions, its kernels already
# compiled, and Beam's own program as the entry. docs/workers.md says how to build, check and use it.
#
#   docker build --tag REGISTRY/anchormix:0.1.0 .

# Of Beam's image only the program that starts workers is taken; its hundreds of packages stay behind.
FROM apache/beam_python3.11_sdk:2.77.0 AS beam

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /project
COPY requirements.lock ./
RUN pip install --no-cache-dir --constraint requirements.lock build setuptools wheel
COPY setup.py pyproject.toml MANIFEST.in README.md LICENSE ./
COPY pipeline ./pipeline
COPY transforms ./transforms
RUN python -m build --no-isolation --outdir /dist

FROM python:3.11-slim-bookworm
COPY --from=beam /opt/apache/beam /opt/apache/beam
COPY --from=wheel /dist /dist
COPY requirements.lock requirements-consumers.lock /locks/
COPY engines/dataflow/requirements.lock /locks/google.lock
# boto3 is for s3://, the packages of google.lock are for gs:// and for Dataflow.
RUN pip install --no-cache-dir --no-deps --requirement /locks/google.lock \
 && pip install --no-cache-dir --constraint /locks/requirements.lock --constraint /locks/requirements-consumers.lock \
        "anchormix[aws] @ file://$(ls /dist/*.whl)" \
 && pip check

# Workers need to write nowhere but in their home, in /tmp, and where compiled kernels lie.
RUN useradd --create-home --uid 10001 worker \
 && mkdir --parents /opt/anchormix/kernels \
 && chown worker /opt/anchormix/kernels
USER 10001
WORKDIR /home/worker

# A kernel is found again only by a processor of the same name and features. So they are compiled for a level that all
# have which are younger than 2013 (Haswell) or 2017 (Zen), and not for the one that builds the image. Without the next
# two lines workers run anywhere, and compile for a minute of processor time first.
ARG CPU=x86-64-v3
ENV NUMBA_CPU_NAME=$CPU NUMBA_CPU_FEATURES=""
ENV NUMBA_CACHE_DIR=/opt/anchormix/kernels
# There is nothing to install when a worker starts, so it needs no environment of its own for that.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
RUN anchormix init warm \
 && anchormix run warm/quickstart.yaml --quiet \
 && anchormix run warm/quickstart.yaml --quiet --set diversity.metrics=full --set output=full --set index=full.index \
 && rm -r warm

ENTRYPOINT ["/opt/apache/beam/boot"]
