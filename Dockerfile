# fozo for CPU-only use: no PyTorch, no compiler.
FROM python:3.12-slim
COPY . /source
RUN pip install --no-cache-dir /source && rm -rf /source
WORKDIR /work
ENTRYPOINT ["fozo"]
