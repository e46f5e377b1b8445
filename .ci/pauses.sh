#!/usr/bin/env bash
# A pause of a thread at every step of sleep and wake. The steps are the comments that name them: in
# a copy of the sources, a call of `pause::at` is put in front of each such line.
#
#   .ci/pauses.sh [test]
set -euo pipefail
cd "$(dirname "$0")/.."
.ci/copy.sh target/pauses/copy
cd target/pauses/copy
step='[A-Z][0-9]'
call='crate::tests::pause::at("\2");'
sed -i -E \
    -e "s|^( *)// ($step)\b.*|\1$call\n&|" \
    -e "s|^( *)[^/ ].* // ($step)(:.*)?\$|\1$call\n&|" \
    cleanup/src/protocol/{queue,sleep}.rs cleanup/src/pool/stalls.rs
RUSTFLAGS="--cfg pauses" cargo test --locked --target-dir ../build -p sexton-cleanup --lib -- \
    "${1:-pause}"
