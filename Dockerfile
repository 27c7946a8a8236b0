# Backend and host agent in one image, with the CPU build of torch. For a GPU, build with
#   --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
FROM python:3.11-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/ktrdr
ENV PATH=/opt/ktrdr/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# torch first and by itself: it is most of the image, and changes least.
COPY constraints.txt ./
RUN pip install --constraint constraints.txt --index-url "$TORCH_INDEX" torch
COPY pyproject.toml README.md LICENSE ./
COPY ktrdr ktrdr
COPY host_agent host_agent
RUN pip install --constraint constraints.txt '.[postgres]'

FROM python:3.11-slim
COPY --from=build /opt/ktrdr /opt/ktrdr
# Volumes take their owner from the image: these directories must be there, and the user's, before.
RUN useradd --uid 1000 --no-create-home --home-dir /var/lib/ktrdr ktrdr \
    && install -d -o ktrdr -g ktrdr /var/lib/ktrdr /var/lib/ktrdr/home /var/lib/ktrdr/models /definitions
ENV PATH=/opt/ktrdr/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    KTRDR_HOME=/var/lib/ktrdr/home \
    KTRDR_MODELS_DIR=/var/lib/ktrdr/models \
    KTRDR_DATA_DIR=/data \
    KTRDR_STRATEGIES_DIR=/strategies
USER ktrdr
WORKDIR /var/lib/ktrdr
ENTRYPOINT ["ktrdr"]
CMD ["serve"]
