"""The main job with nothing but a stock stub: grpcio and code generated from proto/. Argument: host:port, data directory."""

import glob
import queue
import sys
import time
import zlib

import grpc
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from annals.v1 import consumer_pb2, consumer_pb2_grpc, offsets_pb2, offsets_pb2_grpc
from annals.v1 import producer_pb2, producer_pb2_grpc, record_pb2, topics_pb2, topics_pb2_grpc

address, data = sys.argv[1], sys.argv[2]

# --- docs: connect
channel = grpc.insecure_channel(address)
producer = producer_pb2_grpc.ProducerServiceStub(channel)
consumer = consumer_pb2_grpc.ConsumerServiceStub(channel)
offsets = offsets_pb2_grpc.OffsetServiceStub(channel)
# --- end

# --- docs: produce
records = [record_pb2.Record(key=b"cust-%d" % n, value=b'{"id":%d}' % n) for n in range(10)]
stored = producer.Produce(producer_pb2.ProduceRequest(topic="orders", partition=0, records=records))
print("stored from offset", stored.appends[0].base_offset)
# --- end
assert stored.appends[0].base_offset == 0 and stored.appends[0].record_count == 10
assert stored.appends[0].durability == record_pb2.DURABILITY_FSYNC


def run_of(batch):
    """The bytes of field 15 as a stub writes them."""
    return record_pb2.RecordBatch(records=batch.records).SerializeToString()


# The sum is end to end: the producer's own, checked by the server, found again in the batch.
request = producer_pb2.ProduceRequest(topic="orders", partition=0, records=records)
request.records_crc32 = zlib.crc32(record_pb2.RecordBatch(records=records).SerializeToString())
assert producer.Produce(request).appends[0].base_offset == 10
request.records_crc32 ^= 1
try:
    producer.Produce(request)
    raise AssertionError("a wrong sum was taken")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error

# --- docs: fetch
seen, group = [], "billing"
position = consumer_pb2.FetchPosition(topic="orders", partition=0, committed_by=group)
while True:
    answer = consumer.Fetch(consumer_pb2.FetchRequest(positions=[position], max_wait_ms=100))
    for batch in answer.slices[0].batches:
        seen.extend(record.value for record in batch.records)
    done = answer.slices[0].next_offset
    offsets.CommitOffsets(offsets_pb2.CommitOffsetsRequest(
        group=group, offsets=[offsets_pb2.CommitPosition(topic="orders", partition=0, next_offset=done)]))
    if not answer.slices[0].batches:
        break
# --- end
assert seen == [record.value for record in records] * 2, seen
committed = offsets.GetOffsets(offsets_pb2.GetOffsetsRequest(group=group)).offsets
assert [(one.partition, one.next_offset, one.lag_records) for one in committed] == [(0, 20, 0)], committed

# --- docs: member
says, owned, mine = queue.SimpleQueue(), {}, []
say = lambda **command: says.put(consumer_pb2.ConsumeRequest(**command))
say(join=consumer_pb2.ConsumeJoin(group="mail", topics=["orders"], member_name="mail-1",
                                  credit=consumer_pb2.ConsumeCredit(bytes=1 << 40)))
for event in consumer.Consume(iter(says.get, None)):
    kind = event.WhichOneof("event")
    if kind == "assigned":
        owned.update({(one.topic, one.partition): one.assignment_epoch for one in event.assigned.partitions})
    elif kind == "slice":
        part = event.slice
        mine.extend(record.value for batch in part.batches for record in batch.records)
        say(commit=consumer_pb2.ConsumeCommit(offsets=[offsets_pb2.CommitPosition(
            topic=part.topic, partition=part.partition, next_offset=part.next_offset,
            assignment_epoch=owned[part.topic, part.partition])]))
    elif kind == "revoked":  # everything of these that came was processed and committed above
        say(released=consumer_pb2.ConsumeReleased(partitions=event.revoked.partitions))
    elif kind == "heartbeat":
        say(heartbeat=consumer_pb2.ConsumeHeartbeat())
    elif kind == "committed" and len(mine) == 20:
        say(leave=consumer_pb2.ConsumeLeave())
# --- end
assert mine == [record.value for record in records] * 2, mine
committed = offsets.GetOffsets(offsets_pb2.GetOffsetsRequest(group="mail")).offsets
assert [(one.partition, one.next_offset) for one in committed] == [(0, 20)], committed

# From the middle of a batch: it begins where it was asked to, and its sums hold.
position = consumer_pb2.FetchPosition(topic="orders", partition=0, offset=13)
answer = consumer.Fetch(consumer_pb2.FetchRequest(positions=[position]))
batch = answer.slices[0].batches[0]
assert (batch.base_offset, batch.record_count, len(batch.records)) == (13, 7, 7), batch
assert batch.records_crc32 == zlib.crc32(run_of(batch))
assert batch.records[0].value == records[3].value

listed = offsets.ListOffsets(offsets_pb2.ListOffsetsRequest(topic="orders", partitions=[0])).offsets[0]
assert (listed.earliest_offset, listed.latest_offset) == (0, 20), listed

# A long poll with nothing to come ends empty and OK.
position = consumer_pb2.FetchPosition(topic="orders", partition=0, offset=20)
began = time.monotonic()
answer = consumer.Fetch(consumer_pb2.FetchRequest(positions=[position], max_wait_ms=200))
assert not answer.slices[0].batches and time.monotonic() - began >= 0.15

# Every error says why in a way that programs read.
try:
    consumer.Fetch(consumer_pb2.FetchRequest(positions=[consumer_pb2.FetchPosition(topic="ordrs", partition=0)]))
    raise AssertionError("a topic that is not there was read")
except grpc.RpcError as error:
    info = error_details_pb2.ErrorInfo()
    details = [d for d in rpc_status.from_call(error).details if d.Unpack(info)]
    assert details and info.reason == "TOPIC_NOT_FOUND" and info.domain == "annals", error

services = ProtoReflectionDescriptorDatabase(channel).get_services()
assert "annals.v1.ProducerService" in services and "grpc.health.v1.Health" in services, services

# A sealed segment file is a message any decoder reads.
topics = topics_pb2_grpc.TopicServiceStub(channel)
topics.CreateTopic(topics_pb2.CreateTopicRequest(
    topic="sealed", config=topics_pb2.TopicConfig(partitions=1, segment_bytes=1 << 20)))
for _ in range(6):
    big = [record_pb2.Record(value=b"v" * 500_000)]
    producer.Produce(producer_pb2.ProduceRequest(topic="sealed", partition=0, records=big))
sealed = []
for _ in range(100):
    for path in sorted(glob.glob(data + "/topics/*/0/*.log")):
        with open(path, "rb") as file:
            try:
                piece = record_pb2.LogSlice.FromString(file.read())
            except Exception:  # the active segment ends in zeros, which no decoder takes for a field
                continue
        if piece.HasField("sealed"):
            sealed.append(piece)
    if sealed:
        break
    time.sleep(0.1)
assert sealed, "no sealed segment appeared"
assert sealed[0].segment.base_offset == 0 and sealed[0].sealed.last_offset == len(sealed[0].batches) - 1
assert all(batch.records_crc32 == zlib.crc32(run_of(batch)) for batch in sealed[0].batches)
print("a stock stub does the main job")
