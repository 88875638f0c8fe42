# Two images. The API:
#
#   docker build --target serving --tag wine-quality-api .
#   docker run --read-only --tmpfs /tmp --publish 127.0.0.1:8000:8000 \
#     --volume "$PWD/deployment/models:/app/models:ro" --volume wine-log:/app/data wine-quality-api
#
# The image has no model: `make pipeline`, or `python -m experiment_tracking.registry export`, puts the bundle into
# deployment/models. A bundle is served by the Python that made it, 3.11 here; for another:
# --build-context base=docker-image://python:3.12-slim-bookworm
#
# The other image, `--target project`, is what compose.yaml runs beside the API: MLflow, Prefect and the worker.

# A tag can be moved; a digest cannot. To pin one, write python:…@sha256:…, as `docker buildx imagetools inspect` shows it.
FROM python:3.11.15-slim-bookworm AS base

FROM base AS serving-packages
WORKDIR /app
COPY requirements.txt .
COPY deployment/requirements.txt serving.txt
# The driver for a prediction log on PostgreSQL comes from the project's lock, version and digest.
RUN sed -n '/^psycopg/,/[^\\]$/p' requirements.txt > driver.txt \
    && python -m venv .venv \
    && .venv/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check --no-deps --require-hashes \
    -r serving.txt -r driver.txt \
    && .venv/bin/python -m pip uninstall --quiet --yes pip setuptools \
    && mkdir data models

FROM base AS serving
WORKDIR /app
COPY --from=serving-packages /app/.venv .venv
# Docker gives a new volume the owner of the folder that it covers.
COPY --from=serving-packages --chown=10001:10001 /app/data data
COPY --from=serving-packages --chown=10001:10001 /app/models models
COPY atomic_files.py commands.py settings.py ./
COPY wine_data/__init__.py wine_data/schema.py wine_data/
COPY wine_data/table wine_data/table
COPY wine_quality_training/__init__.py wine_quality_training/
COPY wine_quality_training/bundle/__init__.py wine_quality_training/bundle/bundle.py \
    wine_quality_training/bundle/metadata.py wine_quality_training/bundle/profile.py \
    wine_quality_training/bundle/decision.py wine_quality_training/bundle/explanation.py \
    wine_quality_training/bundle/grade_sets.py wine_quality_training/bundle/compiled.py wine_quality_training/bundle/
COPY deployment/*.py deployment/
COPY deployment/api deployment/api
COPY deployment/prediction_log deployment/prediction_log
# A number and no name: nothing has to be written to /etc/passwd, and Kubernetes can see that it is not root.
USER 10001:10001
ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
ENV WINE_HOST=0.0.0.0 WINE_PORT=8000 WINE_SERVING_MODELS=/app/models WINE_LOG_URL=sqlite:////app/data/predictions.db
EXPOSE 8000
VOLUME ["/app/data", "/app/models"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['WINE_PORT']}/ready\", timeout=4)"]
CMD ["python", "-m", "deployment.serve"]

FROM base AS project-packages
WORKDIR /app
COPY requirements.txt .
RUN python -m venv .venv \
    && .venv/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check --no-deps --require-hashes \
    -r requirements.txt \
    && mkdir data models

FROM base AS project
WORKDIR /app
COPY --from=project-packages /app/.venv .venv
COPY --from=project-packages --chown=10001:10001 /app/data data
COPY --from=project-packages --chown=10001:10001 /app/models models
COPY atomic_files.py commands.py executors.py figure_style.py settings.py pyproject.toml prefect.yaml requirements.txt ./
COPY wine_data wine_data
COPY wine_quality_training wine_quality_training
COPY experiment_tracking experiment_tracking
COPY deployment deployment
COPY monitoring monitoring
COPY orchestration orchestration
USER 10001:10001
ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp PREFECT_HOME=/app/data/prefect
ENV DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false MLFLOW_DISABLE_TELEMETRY=true
ENV WINE_SERVING_MODELS=/app/models WINE_DOWNLOADS=/app/data/downloads WINE_SNAPSHOTS=/app/data/snapshots \
    WINE_AUDIT_FIGURE=/app/data/audit.png WINE_TRAINING_MODELS=/app/data/candidates \
    WINE_BATCH_WINES=/app/data/to_score WINE_BATCH_ANSWERS=/app/data/answers \
    WINE_LOAD_REPORTS=/app/data/load_reports WINE_MONITORING_REPORTS=/app/data/reports \
    WINE_LOG_URL=sqlite:////app/data/predictions.db MLFLOW_TRACKING_URI=sqlite:////app/data/mlflow.db \
    WINE_MLFLOW_ARTIFACTS=/app/data/mlartifacts
VOLUME ["/app/data", "/app/models"]
CMD ["python", "-m", "orchestration.flows"]
