// Package wire is the schema of everything that crosses a process boundary or
// enters the replicated log: the messages (in the .proto files beside this
// one), the few encodings that are not protobuf (packs, digests, signed
// statements, lease tokens), the identifiers, the error codes and the bounds.
//
// It holds no behaviour beyond encoding, checking and naming, and imports
// nothing of ours; every other package may import it.
package wire

//go:generate go tool -modfile=../../.ci/tools/go.mod buf generate --config ../../.ci/buf.yaml --template ../../.ci/buf.gen.yaml -o ../.. ../..
