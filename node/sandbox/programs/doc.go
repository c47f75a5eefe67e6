// Package programs holds the programs that are built into Ostrich, as
// WebAssembly modules beside their sources in src: what builtin:NAME names on the
// command line, what the demo and the benchmarks run.
//
//	noop       reads nothing, prints nothing
//	cat        stdin → stdout
//	upper      stdin → stdout with ASCII letters in upper case
//	spin N     N thousand rounds of a xorshift generator (1 ms: N is about 300 to 500),
//	           whose last number it prints
//	wordcount  stdin → a line "COUNT WORD" for each word, sorted by word
//	render     stdin "X Y WIDTH HEIGHT TOTAL_WIDTH TOTAL_HEIGHT" → that tile of
//	           a picture, three bytes a pixel, row by row
//
// Each is an ordinary WASI preview 1 command and runs under any such runtime.
// Programs that only tests need lie in testdata. The command
//
//	node/sandbox/programs/build.sh
//
// rebuilds all of them; it needs clang with lld, wasi-libc, the compiler
// runtime for wasm32 (Debian: clang lld wasi-libc libclang-rt-14-dev-wasm32)
// and Go. The modules are committed, so that building Ostrich needs none of
// those.
package programs
