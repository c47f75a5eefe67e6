#!/bin/sh
# Rebuilds the modules of node/sandbox/programs and node/sandbox/testdata from
# the sources beside them. Needs: clang, lld, wasi-libc, libclang-rt-14-dev-wasm32
# (or newer), Go.
set -eu
cd "$(dirname "$0")"

for source in src/*.c ../testdata/*.c; do
	module=${source%.c}.wasm
	case $source in src/*) module=$(basename "$module") ;; esac
	clang --target=wasm32-wasi --sysroot=/usr -O2 -Wall -Wextra -Wno-unused-result -s -o "$module" "$source"
	chmod 644 "$module"
done
GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' \
	-o ../testdata/wordcount-go.wasm ../testdata/wordcount-go/main.go
chmod 644 ../testdata/wordcount-go.wasm
