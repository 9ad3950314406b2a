# SPDX-License-Identifier: Apache-2.0
# A thin front for Meson: `make`, `make demo`, `make test`, `make bench`, `make install`.
BUILD ?= build
MESON_ARGS ?=

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

$(BUILD)/build.ninja:
	meson setup $(BUILD) $(MESON_ARGS)

setup:
	./scripts/setup.sh

demo:
	./scripts/setup.sh --python
	./scripts/demo.sh

test: setup
	./scripts/test.sh

test-guest:
	./scripts/setup.sh --guest
	$(MAKE) --no-print-directory all
	TOOLS=$(BUILD)/tools ./scripts/test-guest.sh
	BUILD=$(BUILD) ./scripts/test-guest-kernel.sh

bench:
	./scripts/setup.sh --python
	./scripts/bench.sh

install: all
	meson install -C $(BUILD) --no-rebuild $(if $(DESTDIR),--destdir $(abspath $(DESTDIR)))

format:
	clang-format-19 -i $$(git ls-files '*.c' '*.h')

clean:
	rm -rf build build-*

.PHONY: all setup demo test test-guest bench install format clean
