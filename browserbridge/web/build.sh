#!/bin/sh
# Makes the pages from their sources: the code of the schema in src/p2p, the
# bundle in dist, and that of the tests in testdata. All three are committed: it
# needs npm (npm ci in this folder first), and users of Ostrich should not.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
tool() { go tool -modfile=.ci/tools/go.mod "$@"; }

tool buf generate --config .ci/buf.yaml --template browserbridge/web/buf.gen.yaml \
	--path p2p/wire/session.proto --path p2p/wire/peer.proto --path p2p/wire/device.proto \
	--path p2p/wire/job.proto --path p2p/wire/api.proto .
(cd "$here" && node_modules/.bin/tsc --noEmit)

bundle() { # FROM… --format=… --outdir=TO
	tool esbuild "$@" --bundle --minify --target=es2022,chrome100,firefox113,safari16.4 \
		--charset=utf8 --legal-comments=eof --log-level=warning
}
web=browserbridge/web
rm -rf $web/dist $web/testdata/parts.js
mkdir -p $web/dist $web/testdata
bundle $web/src/join.ts --format=esm --outdir=$web/dist
bundle $web/src/slot.ts $web/src/clock.ts --format=iife --outdir=$web/dist
bundle $web/src/join.css --outdir=$web/dist
bundle $web/src/parts.ts --format=iife --outdir=$web/testdata
cp $web/src/join.html $web/src/icon.svg $web/dist/
