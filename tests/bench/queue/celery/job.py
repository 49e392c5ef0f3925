"""The Celery side of the queue benchmark: the application, and `job.py produce COUNT RATE`. Acknowledges late, so that a killed child's job is not lost."""
import os
import sys
import time

import celery

app = celery.Celery("job", broker="redis://:{BENCH_REDIS_PASSWORD}@127.0.0.1:{BENCH_REDIS_PORT}/{BENCH_REDIS_DB}".format(**os.environ))
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1, task_ignore_result=True,
                broker_connection_retry_on_startup=True)
record = os.open(os.environ["BENCH_RECORD"], os.O_WRONLY | os.O_APPEND)


@app.task(name="noop")
def noop(number, enqueued):
    os.write(record, b"%d %d %d\n" % (number, enqueued, time.time_ns()))


def produce(count, rate):
    begun = time.monotonic()
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(count):
            if rate:
                time.sleep(max(0, begun + number / rate - time.monotonic()))
            noop.apply_async((number, time.time_ns()), producer=producer)


if __name__ == "__main__":
    produce(int(sys.argv[2]), int(sys.argv[3]))
