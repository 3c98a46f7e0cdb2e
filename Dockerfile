# Daybreak in a container, small and for CPUs:
#
#   make docker
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" daybreak:cpu demo
#
# and for NVIDIA GPUs, with torch's build for the CUDA that the driver knows:
#
#   make docker TORCH=cu130
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" --volume "$PWD:/work" daybreak:cu130 doctor
FROM python:3.11-slim

# A build of torch by uv's name for it: cpu, cu126, cu130 …
ARG TORCH=cpu
ARG EXTRAS=data,study

# torch.compile needs a compiler.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv==0.13.8

# torch alone first: a change of Daybreak leaves this layer as it is.
COPY constraints.txt /daybreak/
RUN uv pip install --system --no-cache --torch-backend "$TORCH" --constraints /daybreak/constraints.txt torch

COPY pyproject.toml README.md LICENSE /daybreak/
COPY src /daybreak/src
RUN uv pip install --system --no-cache --torch-backend "$TORCH" --constraints /daybreak/constraints.txt \
    "/daybreak[$EXTRAS]" && mkdir --mode 1777 /work

# Whoever runs it need not be known here; caches go where anybody may write.
ENV HOME=/tmp
USER 65534
WORKDIR /work
ENTRYPOINT ["daybreak"]
CMD ["--help"]
