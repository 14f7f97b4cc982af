# One image for every command: `docker run IMAGE --help`, `docker run IMAGE demo`; on its own it is a worker.

FROM python:3.11-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /src

# Packages first: this layer is made anew only when the pins change.
COPY requirements/run.txt requirements/build.txt requirements/
RUN python -m venv /opt/cancelq \
    && /opt/cancelq/bin/python -m pip install --require-hashes -r requirements/run.txt \
    && python -m pip install --require-hashes -r requirements/build.txt

COPY pyproject.toml ./
COPY producers/ producers/
COPY worker/ worker/
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/cancelq/bin/python -m pip install --no-deps /wheel/*.whl \
    && /opt/cancelq/bin/python -m pip check


FROM python:3.11-slim-bookworm

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cancelq" \
      org.opencontainers.image.description="Cancels orders at exchanges: one confirmed outcome for every accepted intent" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

RUN groupadd --system --gid 10001 cancelq \
    && useradd --system --uid 10001 --gid cancelq --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin cancelq
COPY --from=build /opt/cancelq /opt/cancelq
ENV PATH=/opt/cancelq/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# The number, not the name: Kubernetes checks `runAsNonRoot` against it.
USER 10001:10001
WORKDIR /tmp
# A worker told to stop takes nothing new, finishes what was sent and ends within 10 s.
STOPSIGNAL SIGTERM
ENTRYPOINT ["cancelq"]
CMD ["worker"]
