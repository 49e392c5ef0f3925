# The cuda backend: a plugin by nvcc (make cuda), and the same sources on an emulation of CUDA for tests (make test-cuda-emu). docs/cuda.md.

CUDA_SOURCES := $(wildcard worker/embed/cuda/*.cu)
CUDA_HEADERS := $(wildcard worker/embed/cuda/*.h) worker/embed/backend.h
CUDA_TOOLKIT := $(or $(CUDA_HOME),$(if $(wildcard /usr/local/cuda/bin/nvcc),/usr/local/cuda),build/cuda)
CUDA_PLUGIN  := build/lib/libopstream-cuda.so
# Code for the GPUs from Turing to Hopper; newer ones translate the last, as PTX, when they load it.
CUDA_CODE    := $(foreach a,75 80 86 89 90,-gencode arch=compute_$a,code=sm_$a) -gencode arch=compute_90,code=compute_90
NVCC_FLAGS   := -std=c++17 -O3 -I. -Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Werror,-Wno-unused-parameter -Werror all-warnings

build/cuda/.complete: scripts/cuda/requirements.txt
	@scripts/fetch-cuda.sh && touch $@

build/cuda-plugin/%.o: worker/embed/cuda/%.cu $(CUDA_HEADERS) $(if $(filter build/cuda,$(CUDA_TOOLKIT)),build/cuda/.complete)
	@mkdir -p $(@D)
	$(CUDA_TOOLKIT)/bin/nvcc $(NVCC_FLAGS) $(CUDA_CODE) -c $< -o $@
build/cuda-plugin/batch.o: worker/embed/batch.c worker/embed/backend.h
	@mkdir -p $(@D)
	$(CC) -std=gnu17 -O2 -I. -fPIC -fvisibility=hidden $(WARN) -c $< -o $@
# cuBLAS of the fetched toolkit lies beside the plugin, which looks there first.
$(CUDA_PLUGIN): $(patsubst worker/embed/cuda/%.cu,build/cuda-plugin/%.o,$(CUDA_SOURCES)) build/cuda-plugin/batch.o
	@mkdir -p $(@D)
	$(CXX) -shared -o $@ $^ -Wl,-z,relro,-z,now -Wl,--exclude-libs,ALL -Wl,--no-undefined \
	    -L$(CUDA_TOOLKIT)/lib64 -L$(CUDA_TOOLKIT)/lib -static-libstdc++ -static-libgcc -lcudart_static -ldl -lrt -lpthread
	@for l in libcublas.so.13 libcublasLt.so.13; do [ ! -f build/cuda/lib/$$l ] || ln -sfn ../cuda/lib/$$l build/lib/$$l; done

.PHONY: cuda test-cuda-emu
cuda: ## the plugin for NVIDIA GPUs (fetches a toolkit if there is none)
	@$(MAKE) --no-print-directory -q $(CUDA_PLUGIN) >/dev/null 2>&1 || echo "  building $(CUDA_PLUGIN) …"
	@$(QUIET_MAKE) $(CUDA_PLUGIN)

# ---- the emulation ----
# Program and plugin lie as installed ones do, in bin and lib side by side.

EMU_FLAGS := -std=gnu++17 -g -O3 -I. -Itests/cuda_emu/include -fPIC -fvisibility=hidden -Wall -Wextra -Werror -Wno-unknown-pragmas $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer -O2)
EMU_HEADERS := $(wildcard tests/cuda_emu/include/*.h)
EMU_PLUGIN := $(BUILD)/cuda_emu/lib/libopstream-cuda.so
EMU_BLAS  := $(BUILD)/cuda_emu/lib/libcublas.so.13
EMU_TESTS := $(BUILD)/cuda_emu/bin/test_cuda $(BUILD)/cuda_emu/bin/test_cuda_emu

$(BUILD)/cuda_emu/%.o: worker/embed/cuda/%.cu $(CUDA_HEADERS) $(EMU_HEADERS)
	@mkdir -p $(@D)
	$(CXX) $(EMU_FLAGS) -x c++ -c $< -o $@
$(BUILD)/cuda_emu/%.o: tests/cuda_emu/%.cc $(EMU_HEADERS)
	@mkdir -p $(@D)
	$(CXX) $(EMU_FLAGS) -c $< -o $@
$(BUILD)/cuda_emu/batch.o: worker/embed/batch.c worker/embed/backend.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -fPIC -fvisibility=hidden -c $< -o $@
$(EMU_BLAS): $(BUILD)/cuda_emu/cublas_emu.o
	@mkdir -p $(@D)
	$(CXX) -shared $(if $(SAN),-fsanitize=$(SAN)) -o $@ $^
$(EMU_PLUGIN): $(patsubst worker/embed/cuda/%.cu,$(BUILD)/cuda_emu/%.o,$(CUDA_SOURCES)) $(BUILD)/cuda_emu/cuda_emu.o $(BUILD)/cuda_emu/batch.o | $(EMU_BLAS)
	@mkdir -p $(@D)
	$(CXX) -shared $(if $(SAN),-fsanitize=$(SAN)) -o $@ $^ -ldl
$(BUILD)/libembed.a: $(filter $(BUILD)/worker/embed/%,$(WORKER))
$(BUILD)/cuda_emu/bin/test_cuda: $(BUILD)/tests/cuda/test_cuda.o $(BUILD)/libembed.a $(BUILD)/libsupport.a $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -Wl,--as-needed -o $@ $^ -lcmocka $(LIBS_WORKER) $(LIBS_COMMON)
$(BUILD)/cuda_emu/bin/test_cuda_emu: $(BUILD)/cuda_emu/test_cuda_emu.o $(BUILD)/cuda_emu/cuda_emu.o
	@mkdir -p $(@D)
	$(CXX) $(LDFLAGS) -o $@ $^ -lcmocka

.PHONY: build-cuda-emu
build-cuda-emu: $(EMU_PLUGIN) $(EMU_TESTS)
test-cuda-emu: ## the cuda backend on an emulated GPU, also under sanitizers
	@$(QUIET_MAKE) build-cuda-emu
	@$(QUIET_MAKE) build-cuda-emu SAN=address,undefined
	@scripts/run-tests.sh $(foreach f,plain san-address-undefined,$(addprefix build/$f/cuda_emu/bin/,test_cuda test_cuda_emu))

.PHONY: clean-cuda
clean: clean-cuda
clean-cuda:
	@rm -rf build/cuda-plugin build/lib build/gpu-test
