// The BullMQ side of the queue benchmark: `job.js produce COUNT RATE` or `job.js work`.
'use strict';
const fs = require('fs');
const { createRequire } = require('module');
// The packages lie where they were installed, not beside this file.
const { Queue, Worker } = createRequire(process.cwd() + '/')('bullmq');

const BULK = 1000;
const name = 'noop';
const env = process.env;
const connection = { host: '127.0.0.1', port: Number(env.BENCH_REDIS_PORT), password: env.BENCH_REDIS_PASSWORD, db: Number(env.BENCH_REDIS_DB), maxRetriesPerRequest: null };
const options = { removeOnComplete: true };

// Nanoseconds since 1970, as text; JavaScript's numbers hold no more than microseconds of it.
function now() {
  return Math.round((performance.timeOrigin + performance.now()) * 1000) + '000';
}

async function fill(queue, count) {
  for (let first = 0; first < count; first += BULK) {
    const jobs = [];
    for (let number = first; number < Math.min(first + BULK, count); number++)
      jobs.push({ name, data: { number, enqueued: now() }, opts: options });
    await queue.addBulk(jobs);
  }
}

async function trickle(queue, count, rate) {
  const begun = performance.now();
  const added = [];
  for (let number = 0; number < count; number++) {
    const early = begun + number * 1000 / rate - performance.now();
    if (early > 0)
      await new Promise(resume => setTimeout(resume, early));
    added.push(queue.add(name, { number, enqueued: now() }, options));
  }
  await Promise.all(added);
}

async function produce(count, rate) {
  const queue = new Queue('bench', { connection });
  await queue.waitUntilReady();
  await (rate ? trickle(queue, count, rate) : fill(queue, count));
  await queue.close();
}

function work() {
  const record = fs.openSync(env.BENCH_RECORD, 'a');
  const worker = new Worker('bench', async job => {
    fs.writeSync(record, `${job.data.number} ${job.data.enqueued} ${now()}\n`);
  }, { connection, concurrency: Number(env.BENCH_SLOTS), removeOnComplete: { count: 0 } });
  worker.on('error', problem => console.error(problem.message));
}

if (process.argv[2] === 'produce')
  produce(Number(process.argv[3]), Number(process.argv[4]));
else
  work();
