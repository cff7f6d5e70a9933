# Thin: what takes more than a line stands in packaging/make/, and sees to what the machine lacks.

PREFIX = /usr/local
DESTDIR =
LIB = . packaging/make/lib.sh

build: ## the agent, at target/release/docker-cache
	@$(LIB); need_cargo; cargo build --release --locked

run: ## the agent in the foreground, with the local Docker and a Redis
	@sh packaging/make/run.sh

demo: ## three containers, what Redis says of them, and a handler
	@sh packaging/make/demo.sh

test: ## all tests
	@sh packaging/make/test.sh

bench: ## the agent beside the least that the same work can take
	@$(LIB); need redis-server redis-server
	@sh packaging/make/static.sh >&2 || echo 'no static agent here: measuring an ordinary one' >&2
	@cargo bench --quiet --locked --profile measure --bench bench -- $(ROWS)

soak: ## random faults against the core, new ones until Ctrl-C
	@$(LIB); need_cargo; from=0; \
	while FROM=$$from SEEDS=200 cargo test --quiet --locked --lib simulation::; do from=$$((from + 200)); echo "$$from seeds passed"; done; exit 1

check: ## format, lints and docs
	@$(LIB); need_lints; \
	cargo fmt --all --check; \
	cargo clippy --locked --workspace --all-targets -- -D warnings; \
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps

static: ## the agent as one static binary
	@sh packaging/make/static.sh

install: ## what was built last, its link and the unit, under $(DESTDIR)$(PREFIX)
	@binary=$$(ls -t target/x86_64-unknown-linux-musl/release/docker-cache target/release/docker-cache 2>/dev/null | head -n 1); \
	[ -n "$$binary" ] || { echo 'error: failed to find a built agent: `make` or `make static` builds one' >&2; exit 1; }; \
	set -ex; \
	install -D "$$binary" '$(DESTDIR)$(PREFIX)/bin/docker-cache'; \
	ln -sf docker-cache '$(DESTDIR)$(PREFIX)/bin/docker-eventsd'; \
	install -D -m 644 packaging/handlers.conf '$(DESTDIR)$(PREFIX)/share/docker-cache/handlers.conf'; \
	install -D -m 644 packaging/docker-cache.service '$(DESTDIR)$(PREFIX)/lib/systemd/system/docker-cache.service'; \
	sed -i 's|/usr/local/|$(PREFIX)/|' '$(DESTDIR)$(PREFIX)/lib/systemd/system/docker-cache.service' \
		'$(DESTDIR)$(PREFIX)/share/docker-cache/handlers.conf'

record: ## the answers of real engines, anew into fixtures/docker
	@$(LIB); need_cargo; tests/record

.PHONY: build run demo test bench soak check static install record
