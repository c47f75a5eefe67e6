# The few verbs people type. Building, installing and running need Go only;
# programs needs a C compiler for WebAssembly, and ci says what it installs.

.PHONY: build test ci demo bench programs generate

build: ## the binary, as a release has it: ./ostrich
	CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o ostrich ./cmd/ostrich

test: ## all tests
	go test ./...

ci: ## every check, as CI runs them; single steps: bash .ci/run format vet
	bash .ci/run

demo: ## three devices on this machine render a picture
	go run ./cmd/ostrich demo

bench: ## the figures of docs/performance.md
	go run ./cmd/swarmbench

programs: ## the .wasm files from the sources beside them
	node/sandbox/programs/build.sh

generate: ## the code of the schema in p2p/wire
	go generate ./...
