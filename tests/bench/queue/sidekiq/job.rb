# The Sidekiq side of the queue benchmark: the job's class, and `job.rb produce COUNT RATE`.
require 'sidekiq'

server = { url: "redis://127.0.0.1:#{ENV.fetch('BENCH_REDIS_PORT')}/#{ENV.fetch('BENCH_REDIS_DB')}", password: ENV.fetch('BENCH_REDIS_PASSWORD') }
Sidekiq.configure_server { |config| config.redis = server }
Sidekiq.configure_client { |config| config.redis = server }
RECORD = File.open(ENV.fetch('BENCH_RECORD'), File::WRONLY | File::APPEND)

def now
  Process.clock_gettime(Process::CLOCK_REALTIME, :nanosecond)
end

class Noop
  include Sidekiq::Worker

  def perform(number, enqueued)
    RECORD.syswrite("#{number} #{enqueued} #{now}\n")
  end
end

def fill(count)
  (0...count).each_slice(1000) do |numbers|
    Sidekiq::Client.push_bulk('class' => Noop, 'args' => numbers.map { |number| [number, now] })
  end
end

def trickle(count, rate)
  begun = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  count.times do |number|
    early = begun + number.to_f / rate - Process.clock_gettime(Process::CLOCK_MONOTONIC)
    sleep(early) if early.positive?
    Noop.perform_async(number, now)
  end
end

if ARGV[0] == 'produce'
  count, rate = ARGV[1, 2].map(&:to_i)
  rate.zero? ? fill(count) : trickle(count, rate)
end
