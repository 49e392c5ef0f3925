# Opstream. `make help` lists the targets. Everything that is built goes below build/; SAN=address,undefined or SAN=thread builds a flavour
# of its own beside the plain one, FAULTS=1 one with fault points (common/fault.h).

SHELL    := /bin/bash
CC       ?= gcc
comma    := ,
FLAVOUR  := $(if $(SAN),san-$(subst $(comma),-,$(SAN)),plain)$(if $(FAULTS),-faults)$(if $(filter clang%,$(notdir $(CC))),-clang)
BUILD    := build/$(FLAVOUR)
BIN      := $(if $(filter plain,$(FLAVOUR)),build/bin,$(BUILD)/bin)
PG_INC   := $(shell pg_config --includedir 2>/dev/null)

WARN     := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla -Wundef
HARDEN   := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer -O1,-O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong)
CFLAGS   := -std=gnu17 -D_GNU_SOURCE $(if $(FAULTS),-DOPSTREAM_FAULTS) -g -I. -isystem $(PG_INC) $(if $(wildcard /usr/include/libxml2),-isystem /usr/include/libxml2) -fPIE -pthread $(WARN) $(HARDEN)
LDFLAGS  := -pie -pthread $(if $(SAN),-fsanitize=$(SAN)) -Wl,-z,relro,-z,now
LIBS_COMMON := -lpq -lhiredis -lcjson -lssl -lcrypto -largon2 -lcrypt -lm
LIBS_API := -lmicrohttpd -lwebsockets -luv -lcurl -lz
LIBS_WORKER := -lmicrohttpd -lxml2 -larchive -lmagic -luchardet -lutf8proc -lseccomp -ldl

sources   = $(shell find $(1) -name '*.c' 2>/dev/null | sort)
objects   = $(patsubst %.c,$(BUILD)/%.o,$(call sources,$(1)))
COMMON   := $(call objects,common sql)
API      := $(filter-out $(BUILD)/api/main.o,$(call objects,api))
WORKER   := $(filter-out $(BUILD)/worker/main.o,$(call objects,worker))
UNIT     := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/unit/test_*.c))
STORE    := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/store/test_*.c))
LOAD_PARTS := $(addprefix $(BUILD)/tests/bench/relay/,load_client.o load_figures.o load_frames.o)
SUPPORT  := $(call objects,tests/support) $(LOAD_PARTS)
TOOLS    := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/tools/*.c))
BENCH    := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/bench/*.c))
GENERATED := build/queries.h build/migrations.h build/web_files.def
WEB_FILES := $(sort $(shell find api/web api/clients -type f ! -name '*.md' 2>/dev/null))
RELAY_BENCH := $(addprefix $(BUILD)/tests/bench/relay/,load publish peers/epoll)

.PHONY: all
all: $(BIN)/opstream-api $(BIN)/opstream-worker ## build both programs

build/queries.h: sql/embed.awk $(wildcard sql/queries/*.sql)
	@mkdir -p build
	@LC_ALL=C awk -f sql/embed.awk $(sort $(wildcard sql/queries/*.sql)) >$@.tmp && mv $@.tmp $@
build/migrations.h: sql/embed.awk $(wildcard sql/migrations/*.sql)
	@mkdir -p build
	@LC_ALL=C awk -v migrations=1 -f sql/embed.awk $(sort $(wildcard sql/migrations/*.sql)) >$@.tmp && mv $@.tmp $@

# A file that went away changes the list of folders' times only.
build/web_files.def: scripts/embed-files.sh $(WEB_FILES) $(sort $(dir $(WEB_FILES)))
	@mkdir -p build
	@scripts/embed-files.sh build/web $(WEB_FILES) >$@.tmp && mv $@.tmp $@

$(BUILD)/worker/embed/cpu.o: HARDEN_EXTRA := -Wno-psabi $(if $(SAN),,-O3)
$(BUILD)/worker/projection/%.o: HARDEN_EXTRA := -Wno-psabi -ffp-contract=off $(if $(SAN),,-O3)
$(BUILD)/%.o: %.c | $(GENERATED)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(HARDEN_EXTRA) -MMD -MP -c $< -o $@

$(BUILD)/libcommon.a: $(COMMON)
$(BUILD)/libapi.a: $(API)
$(BUILD)/libworker.a: $(WORKER)
$(BUILD)/libsupport.a: $(SUPPORT)
$(BUILD)/%.a:
	@mkdir -p $(@D) && rm -f $@
	@ar qcs $@ $^

$(BIN)/opstream-api: $(BUILD)/api/main.o $(BUILD)/libapi.a $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_API) $(LIBS_COMMON)
$(BIN)/opstream-worker: $(BUILD)/worker/main.o $(BUILD)/libworker.a $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_WORKER) $(LIBS_COMMON)

TEST_LIBS := $(BUILD)/libapi.a $(BUILD)/libworker.a $(BUILD)/libsupport.a $(BUILD)/libcommon.a
$(UNIT) $(STORE) $(BENCH): %: %.o $(TEST_LIBS)
	$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(TEST_LIBS) -Wl,--end-group -lcmocka $(LIBS_API) $(LIBS_WORKER) $(LIBS_COMMON)
$(TOOLS): %: %.o $(BUILD)/libcommon.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_COMMON)
$(RELAY_BENCH): %: %.o $(LOAD_PARTS) $(BUILD)/libcommon.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_COMMON)

# Where what is built is not the point: without the commands, on all cores unless -j says otherwise.
QUIET_MAKE = $(MAKE) --no-print-directory -s $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

.PHONY: setup
setup: ## install what is missing: packages, pgvector, the model
	@scripts/setup.sh

# On a fresh checkout that is a good half minute, which a person should know about.
build-programs = @$(MAKE) --no-print-directory -q all >/dev/null 2>&1 || echo "  building …"; $(QUIET_MAKE) all

.PHONY: demo
demo: setup ## set up, start everything, index a folder live, ask questions (DOCS=folder for your own)
	$(build-programs)
	@scripts/demo.sh

.PHONY: up down clean-data
up: setup ## start PostgreSQL, Redis, API and worker in the background
	$(build-programs)
	@scripts/up.sh
down: ## stop them; the data stay
	@scripts/down.sh
clean-data: ## stop them and remove the data
	@scripts/down.sh --forget

.PHONY: test test-unit test-store build-tests
test: setup ## set up, then run all tests
	@scripts/test.sh
build-tests: all $(UNIT) $(STORE) $(TOOLS)
test-unit: setup ## unit tests only: seconds
	@$(QUIET_MAKE) $(UNIT)
	@scripts/run-tests.sh $(UNIT)
test-store: setup ## store tests against a private PostgreSQL and Redis
	@$(QUIET_MAKE) $(STORE)
	@scripts/with-services.sh scripts/run-tests.sh $(STORE)

.PHONY: check check-model format
check: setup ## format, static analysis, builds by gcc and clang
	@scripts/check.sh
check-model: setup ## the model of the protocol, by spin (under a minute)
	@scripts/check-model.sh
format: ## reformat the C sources
	@find api common sql tests worker -name '*.[ch]' -o -name '*.cu' -o -name '*.cc' | xargs clang-format -i

.PHONY: bench bench-queue bench-relay build-bench-relay fuzz chaos chaos-short
bench: setup ## measurements that a person runs
	@$(QUIET_MAKE) all $(BENCH) $(RELAY_BENCH)
	@scripts/bench.sh
bench-queue: setup ## the worker beside BullMQ, Sidekiq, asynq, River and Celery (BENCH_PEERS=bullmq,asynq chooses)
	@$(QUIET_MAKE) all
	@OPSTREAM_RUN_DIR=build/bench-queue BENCH_PARTS=queue BENCH_PEERS=$${BENCH_PEERS:-all} scripts/bench.sh
build-bench-relay: all $(RELAY_BENCH)
bench-relay: setup ## the relay beside a bare epoll relay and others (FULL=1: all of it, RELAY_ARGS=)
	@$(QUIET_MAKE) build-bench-relay
	@/usr/bin/python3 tests/bench/relay/bench_relay.py $(if $(FULL),--full) $(RELAY_ARGS)
fuzz: setup ## a short run of every fuzzer
	@scripts/fuzz.sh
chaos: setup ## walk all fault points, then 1,000 random kills under load (SEED= KILLS= MINUTES= PART= FAULTS= POINTS= ROUND=)
	@$(QUIET_MAKE) all FAULTS=1
	@scripts/chaos.sh
chaos-short: setup ## the essential fault points and some kills: two minutes
	@$(QUIET_MAKE) all FAULTS=1
	@scripts/chaos.sh --short --seed 20 --kills 15

-include mk/cuda.mk

.PHONY: clean help
clean: ## remove what was built (not the data, models or toolkits)
	rm -rf build/plain build/plain-faults build/plain-clang build/san-* build/bin build/web build/queries.h build/migrations.h build/web_files.def
help: ## this list
	@echo "make …"
	@awk -F ':.*## ' '/^[a-z-]+( [a-z-]+)*:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
