# make            the static binary
# make check      every test
# make demo       the main job, shown end to end
# make install    PREFIX, DESTDIR, BINDIR and MANDIR as usual
# make fuzz       each fuzz target for FUZZ_SECONDS (60)
# make soak       SOAK_REQUESTS (1000000) requests with faults on both sides
# make help       the rest

ARCH    := $(shell uname -m)
TARGET  ?= $(ARCH)-unknown-linux-musl
PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
MANDIR  ?= $(PREFIX)/share/man
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR  ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
CARGO   ?= cargo

CARGO_TARGET_DIR ?= $(CURDIR)/target
CARGO_HOME       ?= $(HOME)/.cargo
export CARGO_TARGET_DIR

# ring compiles a little C; for musl any gcc of the same architecture will do.
export CC_$(subst -,_,$(TARGET)) ?= gcc

BIN     := $(CARGO_TARGET_DIR)/$(TARGET)/release/broker-exec
SHARE   := $(CARGO_TARGET_DIR)/$(TARGET)/release/share
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
DIST    := broker-exec-$(VERSION)-$(TARGET)
SOURCES := Cargo.toml Cargo.lock Makefile $(shell find src -name '*.rs')
SCRIPTS := $(SHARE)/broker-exec.bash $(SHARE)/_broker-exec $(SHARE)/broker-exec.fish

# The same source gives the same bytes wherever it lies: no path of this machine gets in, nor the
# name that cargo gives to the registry it was told to use.
remap = $(1)=$(CURDIR)=/src $(1)=$(CARGO_HOME)=/cargo \
	$$(for dir in '$(CARGO_HOME)'/registry/src/*; do printf '%s ' "$(1)=$$dir=/cargo/src"; done)

all: $(BIN) $(SCRIPTS)

# The tools are looked for only when there is something to build: not by `sudo make install`.
$(BIN): $(SOURCES)
	@$(MAKE) --no-print-directory tools
	$(CARGO) fetch --quiet --locked --target $(TARGET)
	RUSTFLAGS="$(call remap,--remap-path-prefix)" CFLAGS="$(call remap,-ffile-prefix-map)" \
		$(CARGO) build --release --locked --target $(TARGET)
	@touch $@

$(SHARE)/broker-exec.bash: $(BIN)
	@mkdir -p $(SHARE) && $(BIN) --completions bash >$@
$(SHARE)/_broker-exec: $(BIN)
	@mkdir -p $(SHARE) && $(BIN) --completions zsh >$@
$(SHARE)/broker-exec.fish: $(BIN)
	@mkdir -p $(SHARE) && $(BIN) --completions fish >$@

check: tools-tests
	$(CARGO) test --locked --no-fail-fast --target $(TARGET)

demo: tools-tests $(BIN)
	@BROKER_EXEC='$(BIN)' $(CARGO) run --quiet --locked --target $(TARGET) --example demo -- '$(BIN)'

bench: $(BIN)
	bench/run '$(BIN)'

fuzz: tools
	@$(call need,g++,install the package g++)
	fuzz/run

soak: $(BIN)
	@BROKER_EXEC='$(BIN)' $(CARGO) run --quiet --release --locked --target $(TARGET) --example soak

lint: tools
	@$(call need,mandoc,install the package mandoc)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets --target $(TARGET) -- -D warnings
	@echo mandoc -Tlint -Wall man/broker-exec.1
	@out=$$(mandoc -Tlint -Wall man/broker-exec.1 2>&1) && test -z "$$out" || { echo "$$out"; exit 1; }
	@if command -v cargo-deny >/dev/null; then \
		echo cargo deny check bans licenses sources; \
		$(CARGO) deny --locked check bans licenses sources; \
	else \
		echo 'SKIPPED: cargo-deny is not installed, so dependencies and licences were not checked'; \
	fi

man:
	@if command -v mandoc >/dev/null; then mandoc -a man/broker-exec.1; \
	else man ./man/broker-exec.1; fi

# Builds once more at another path, of another length, and compares the bytes.
ELSEWHERE := $(CARGO_TARGET_DIR)/some/other/place
reproducible: $(BIN)
	@rm -rf $(ELSEWHERE) && mkdir -p $(ELSEWHERE)
	@cp -R Cargo.toml Cargo.lock Makefile src $(ELSEWHERE)
	@CARGO_TARGET_DIR=$(ELSEWHERE)/target $(MAKE) -C $(ELSEWHERE) --no-print-directory \
		TARGET=$(TARGET) $(ELSEWHERE)/target/$(TARGET)/release/broker-exec
	cmp $(BIN) $(ELSEWHERE)/target/$(TARGET)/release/broker-exec
	@rm -rf $(CARGO_TARGET_DIR)/some
	@echo 'reproducible: both builds are the same bytes'

install: all
	install -d '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(MANDIR)/man1' \
		'$(DESTDIR)$(BASHDIR)' '$(DESTDIR)$(ZSHDIR)' '$(DESTDIR)$(FISHDIR)'
	install -m 755 $(BIN) '$(DESTDIR)$(BINDIR)/broker-exec'
	install -m 644 man/broker-exec.1 '$(DESTDIR)$(MANDIR)/man1/broker-exec.1'
	install -m 644 $(SHARE)/broker-exec.bash '$(DESTDIR)$(BASHDIR)/broker-exec'
	install -m 644 $(SHARE)/_broker-exec '$(DESTDIR)$(ZSHDIR)/_broker-exec'
	install -m 644 $(SHARE)/broker-exec.fish '$(DESTDIR)$(FISHDIR)/broker-exec.fish'

uninstall:
	rm -f '$(DESTDIR)$(BINDIR)/broker-exec' '$(DESTDIR)$(MANDIR)/man1/broker-exec.1' \
		'$(DESTDIR)$(BASHDIR)/broker-exec' '$(DESTDIR)$(ZSHDIR)/_broker-exec' \
		'$(DESTDIR)$(FISHDIR)/broker-exec.fish'

dist: all
	@rm -rf dist/$(DIST) && mkdir -p dist/$(DIST)/completions
	@cp $(BIN) man/broker-exec.1 LICENSE README.md dist/$(DIST)
	@cp $(SCRIPTS) dist/$(DIST)/completions
	@tar -C dist --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw \
		-cf - $(DIST) | gzip -9n >dist/$(DIST).tar.gz
	@rm -rf dist/$(DIST)
	@cd dist && sha256sum $(DIST).tar.gz | tee $(DIST).tar.gz.sha256

clean:
	$(CARGO) clean
	rm -rf dist

help:
	@echo 'targets: all check demo bench fuzz soak lint man reproducible install uninstall dist clean'
	@echo 'settings: PREFIX DESTDIR BINDIR MANDIR TARGET CARGO FUZZ_SECONDS SOAK_REQUESTS'

# $(call need,TOOL,ADVICE)
need = command -v $(1) >/dev/null || { echo 'missing: $(1): $(2)' >&2; exit 1; }

tools:
	@$(call need,$(CARGO),install Rust 1.88 or later: https://rustup.rs)
	@$(call need,gcc,install the package gcc)
	@dir=$$(rustc --print target-libdir --target $(TARGET)) && test -d "$$dir" || { \
		command -v rustup >/dev/null || { \
			echo 'missing: the Rust target $(TARGET): install it or rustup' >&2; exit 1; }; \
		rustup target add $(TARGET); }

tools-tests: tools
	@$(call need,python3,install the package python3)
	@$(call need,curl,install the package curl)

.PHONY: all check demo bench fuzz soak lint man reproducible install uninstall dist clean help tools tools-tests
.DELETE_ON_ERROR:
