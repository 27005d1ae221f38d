# interview_peer as an image: `docker build -t interview-peer .` for any engine, and
# `--target fly` for Fly.io. `make image-test` builds and tries both without an engine.
#
# The base is pinned by its digest; the tag beside it is for the reader. To renew both:
#   docker buildx imagetools inspect docker.io/library/python:3.11-slim-bookworm
# take the newest 3.11.x tag with the digest of its index, then `make image-test`.
ARG BASE=docker.io/library/python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# -- build: everything with a compiler ------------------------------------------------------------
FROM ${BASE} AS build

# Debian removes superseded versions from its mirrors, so naming one would break the build of
# tomorrow; nothing of these packages reaches the image but the code they compile.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

# What changes seldom comes first: a change of source leaves these layers as they are.
COPY requirements.lock requirements-build.lock ./
RUN python3 -m venv tools \
    && tools/bin/python -m pip install --require-hashes -r requirements-build.lock \
    && python3 -m venv --without-pip /opt/interview-peer \
    && tools/bin/python -m pip --python /opt/interview-peer/bin/python install \
        --require-hashes -r requirements.lock

COPY pyproject.toml hatch_build.py README.md ./
COPY interview_peer interview_peer
COPY static static
# An image without the native forwarder would work, and cost a third more: better no image.
RUN tools/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && tools/bin/python -m pip --python /opt/interview-peer/bin/python install \
        --no-deps --no-index --find-links wheels interview-peer \
    && /opt/interview-peer/bin/python -I -c \
        'from interview_peer.media import native; raise SystemExit(native.missing)'

# -- runtime: what both images share --------------------------------------------------------------
FROM ${BASE} AS runtime

RUN groupadd --gid 10001 interview-peer \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin interview-peer \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=build /opt/interview-peer /opt/interview-peer

# Libraries look into HOME for files; without one of our own it may be root's, which is closed.
ENV PATH=/opt/interview-peer/bin:$PATH \
    HOME=/nonexistent \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    INTERVIEW_HOST=0.0.0.0 \
    INTERVIEW_DATA_DIR=/data
# No .env lies here: in a container settings come from its environment.
WORKDIR /opt/interview-peer

# 8080 web pages and signalling, 8081 the browsers' audio. 9091, the metrics, is for the inside.
EXPOSE 8080/tcp 8081/udp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-m", "interview_peer.container.health"]

# -- fly: the volumes of Fly.io belong to root ----------------------------------------------------
FROM runtime AS fly

# Root for as long as it takes to hand /data over; the server runs as 10001 here, too.
# hadolint ignore=DL3002
USER 0:0
ENTRYPOINT ["python", "-m", "interview_peer.container.enter", "10001:10001", "/data", "interview-peer"]
CMD ["serve"]

# -- the image that is built when no target is named ----------------------------------------------
FROM runtime AS server

VOLUME ["/data"]
USER 10001:10001
ENTRYPOINT ["interview-peer"]
CMD ["serve"]
