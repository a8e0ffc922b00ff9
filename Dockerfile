# The image of the worker, beat and the migrations: `docker compose build`, or `docker build --tag centavo-worker .`

FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/centavo
COPY constraints.txt pyproject.toml README.md ./
COPY sdk/ sdk/
COPY billing/ billing/
COPY config/ config/
COPY db/ db/
COPY payments/ payments/
COPY services/ services/
COPY tasks/ tasks/
COPY worker/ worker/
COPY api/ api/
COPY cli/ cli/
COPY sandbox/ sandbox/
COPY bench/ bench/
COPY chaos/ chaos/
# Both in one go: `centavo` is then what lies in sdk/, never what an index has under that name.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/centavo/bin/python --disable-pip-version-check --no-input \
    install --constraint constraints.txt ./sdk .

FROM python:3.11-slim
ENV PATH=/opt/centavo/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number that the host can rely on, and no name that a volume could belong to by accident.
RUN groupadd --gid 10001 centavo \
    && useradd --uid 10001 --gid centavo --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin centavo
COPY --from=build /opt/centavo /opt/centavo
# Not writable for the user below: `python -m` looks for modules here first.
WORKDIR /opt/centavo
USER 10001:10001
ENTRYPOINT ["centavo"]
CMD ["--help"]
