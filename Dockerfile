# docker build -t nbnet . && docker run --rm -v "$PWD/runs:/data/runs" nbnet train
FROM python:3.13-slim
COPY . /src
RUN pip install --no-cache-dir /src && rm -rf /src && useradd --create-home nbnet && install -d -o nbnet /data
USER nbnet
WORKDIR /data
RUN nbnet warmup
ENTRYPOINT ["nbnet"]
CMD ["--help"]
