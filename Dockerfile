# syntax=docker/dockerfile:1
#
#   docker build -t edgeproxy .
#   docker run --stop-timeout 40 -p 8080:8080 -v edgeproxy:/var/cache/edgeproxy \
#     -v ./edgeproxy.toml:/etc/edgeproxy/edgeproxy.toml:ro edgeproxy
#
# or, without a file:
#
#   docker run --stop-timeout 40 -p 8080:8080 -v edgeproxy:/var/cache/edgeproxy edgeproxy \
#     serve --origin http://shop:3000 --listen :8080
#
# The stop timeout leaves requests in flight their limits.drain_timeout (30 s).
# In the file, let readers in from outside the container with [[listen]] address = ":8080".

FROM python:3.13-slim AS build
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends gcc libc6-dev
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY edgeproxy ./edgeproxy
RUN python -m venv /opt/edgeproxy \
 && /opt/edgeproxy/bin/pip install --no-cache-dir . \
 && /opt/edgeproxy/bin/pip uninstall --yes pip

FROM python:3.13-slim
RUN groupadd --gid 10001 edgeproxy \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin edgeproxy \
 && install -d -o edgeproxy -g edgeproxy -m 0700 /var/cache/edgeproxy
COPY --from=build /opt/edgeproxy /opt/edgeproxy
# The default store is below XDG_CACHE_HOME: /var/cache/edgeproxy/store.
ENV PATH=/opt/edgeproxy/bin:$PATH \
    XDG_CACHE_HOME=/var/cache \
    EDGEPROXY_READY_URL=http://127.0.0.1:8081/readyz
USER edgeproxy
VOLUME /var/cache/edgeproxy
# The admin port stays on the container's loopback; EDGEPROXY_READY_URL says where if it is moved.
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import os; from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open(os.environ['EDGEPROXY_READY_URL'], timeout=2)"]
ENTRYPOINT ["edgeproxy"]
CMD ["serve", "--config", "/etc/edgeproxy/edgeproxy.toml"]
