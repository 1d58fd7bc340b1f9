"""A stage of a pipeline, each step once, with nothing but a stock stub. Arguments: address, stage (1, 2 or 3)."""

import json
import random
import sys
import time
import uuid

import grpc
from annals.v1 import consumer_pb2, consumer_pb2_grpc, offsets_pb2, producer_pb2, producer_pb2_grpc, record_pb2

address, stage = sys.argv[1], int(sys.argv[2])
# Over a socket file grpcio sends the file's path as the authority, which no HTTP/2 server has to take.
options = [("grpc.default_authority", "localhost"),
           ("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 100)]
channel = grpc.insecure_channel(address, options=options)
producer = producer_pb2_grpc.ProducerServiceStub(channel)
consumer = consumer_pb2_grpc.ConsumerServiceStub(channel)
source, sink = [("flights", "legs"), ("legs", "visits"), ("visits", "late")][stage - 1]
group = f"stage-{stage}"


def process(key, value):
    """What a record becomes: the same as in tests/pipeline.rs."""
    if stage == 1:
        flight = json.loads(value)
        yield key, b"%s %s %d" % (flight["origin"].encode(), flight["dest"].encode(), flight.get("delay_min") or 0)
    elif stage == 2:
        origin, dest, delay = value.split(b" ")
        yield key, b"departs " + origin + b" " + delay
        yield key, b"arrives " + dest + b" " + delay
    else:
        what, airport, delay = value.split(b" ")
        if int(delay) > 15:
            yield key + b"@" + airport, what


def patiently(call, request):
    """The same request until it is answered. ABORTED: somebody else of the group was faster."""
    while True:
        try:
            return call(request, timeout=5)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.ABORTED:
                return None
            time.sleep(0.02)


positions = [consumer_pb2.FetchPosition(topic=source, partition=p, committed_by=group) for p in range(3)]
# --- docs: step
while True:
    answer = patiently(consumer.Fetch, consumer_pb2.FetchRequest(positions=positions, max_wait_ms=50, max_bytes=1))
    for slice in answer.slices:
        records = [record for batch in slice.batches for record in batch.records]
        outputs = [record_pb2.Record(key=k, value=v) for r in records for k, v in process(r.key, r.value)]
        step = producer_pb2.AppendAndCommitRequest(request_id=str(uuid.uuid4()), group=group, offsets=[
            offsets_pb2.CommitPosition(topic=slice.topic, partition=slice.partition, topic_id=slice.topic_id,
                                       expected_offset=slice.start_offset, next_offset=slice.next_offset)])
        if outputs:
            step.outputs.append(producer_pb2.Output(topic=sink, records=outputs))
        if records:
            patiently(producer.AppendAndCommit, step)
# --- end
        time.sleep(random.uniform(0, 0.01))
