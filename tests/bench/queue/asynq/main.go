// The asynq side of the queue benchmark: `asynq produce COUNT RATE` or `asynq work`.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hibiken/asynq"
)

const kind = "noop"

type job struct {
	ID       int   `json:"id"`
	Enqueued int64 `json:"enqueued"`
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	check(err)
	return n
}

func redis() asynq.RedisClientOpt {
	return asynq.RedisClientOpt{
		Addr:     "127.0.0.1:" + os.Getenv("BENCH_REDIS_PORT"),
		Password: os.Getenv("BENCH_REDIS_PASSWORD"),
		DB:       number(os.Getenv("BENCH_REDIS_DB")),
	}
}

func enqueue(client *asynq.Client, id int) {
	payload, err := json.Marshal(job{id, time.Now().UnixNano()})
	check(err)
	_, err = client.Enqueue(asynq.NewTask(kind, payload))
	check(err)
}

// There is no bulk call, so that several goroutines fill the queue.
func fill(client *asynq.Client, count int) {
	const writers = 8
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for id := w; id < count; id += writers {
				enqueue(client, id)
			}
		})
	}
	all.Wait()
}

func produce(count, rate int) {
	client := asynq.NewClient(redis())
	defer client.Close()
	if rate == 0 {
		fill(client, count)
		return
	}
	begun := time.Now()
	for id := range count {
		time.Sleep(time.Until(begun.Add(time.Duration(id) * time.Second / time.Duration(rate))))
		enqueue(client, id)
	}
}

func work() {
	record, err := os.OpenFile(os.Getenv("BENCH_RECORD"), os.O_WRONLY|os.O_APPEND, 0)
	check(err)
	config := asynq.Config{Concurrency: number(os.Getenv("BENCH_SLOTS")), LogLevel: asynq.WarnLevel}
	if os.Getenv("BENCH_VARIANT") == "shortest poll" {
		config.TaskCheckInterval = time.Millisecond
	}
	check(asynq.NewServer(redis(), config).Run(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		started := time.Now().UnixNano()
		var j job
		if err := json.Unmarshal(task.Payload(), &j); err != nil {
			return err
		}
		line := strconv.AppendInt(nil, int64(j.ID), 10)
		line = strconv.AppendInt(append(line, ' '), j.Enqueued, 10)
		line = strconv.AppendInt(append(line, ' '), started, 10)
		_, err := record.Write(append(line, '\n'))
		return err
	})))
}

func main() {
	if os.Args[1] == "produce" {
		produce(number(os.Args[2]), number(os.Args[3]))
	} else {
		work()
	}
}
