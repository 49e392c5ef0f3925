// The River side of the queue benchmark: `river migrate`, `river produce COUNT RATE` or `river work`.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const bulk = 1000

type job struct {
	ID       int   `json:"id"`
	Enqueued int64 `json:"enqueued"`
}

func (job) Kind() string { return "noop" }

type worker struct {
	river.WorkerDefaults[job]
	record *os.File
}

func (w *worker) Work(_ context.Context, j *river.Job[job]) error {
	_, err := fmt.Fprintf(w.record, "%d %d %d\n", j.Args.ID, j.Args.Enqueued, time.Now().UnixNano())
	return err
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

func migrate(ctx context.Context, pool *pgxpool.Pool) {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	check(err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	check(err)
}

func fill(ctx context.Context, client *river.Client[pgx.Tx], count int) {
	for first := 0; first < count; first += bulk {
		var params []river.InsertManyParams
		for id := first; id < min(first+bulk, count); id++ {
			params = append(params, river.InsertManyParams{Args: job{id, time.Now().UnixNano()}})
		}
		_, err := client.InsertManyFast(ctx, params)
		check(err)
	}
}

func produce(ctx context.Context, pool *pgxpool.Pool, count, rate int) {
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{})
	check(err)
	if rate == 0 {
		fill(ctx, client, count)
		return
	}
	begun := time.Now()
	for id := range count {
		time.Sleep(time.Until(begun.Add(time.Duration(id) * time.Second / time.Duration(rate))))
		_, err = client.Insert(ctx, job{id, time.Now().UnixNano()}, nil)
		check(err)
	}
}

func work(ctx context.Context, pool *pgxpool.Pool) {
	record, err := os.OpenFile(os.Getenv("BENCH_RECORD"), os.O_WRONLY|os.O_APPEND, 0)
	check(err)
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{record: record})
	queues := map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: number(os.Getenv("BENCH_SLOTS"))}}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Queues: queues, Workers: workers})
	check(err)
	check(client.Start(ctx))
	select {}
}

func main() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("BENCH_DATABASE"))
	check(err)
	switch os.Args[1] {
	case "migrate":
		migrate(ctx, pool)
	case "produce":
		produce(ctx, pool, number(os.Args[2]), number(os.Args[3]))
	default:
		work(ctx, pool)
	}
}
